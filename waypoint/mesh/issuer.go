package mesh

import (
	"net/url"
	"strings"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/workload"
)

// ServiceOf returns the service that a name of a cluster stands for:
// NAME.NAMESPACE.svc and what may follow.
func ServiceOf(host string) (workload.ServiceKey, bool) {
	labels := strings.SplitN(host, ".", 4)
	if len(labels) < 3 || labels[0] == "" || labels[1] == "" || labels[2] != "svc" {
		return workload.ServiceKey{}, false
	}
	return workload.ServiceKey{Namespace: labels[1], Hostname: host}, true
}

// issuers are the services of the mesh at which keys are fetched.
func issuers(a *api.Authentication) []string {
	var names []string
	for _, r := range a.GetRules() {
		at := r.GetJwksUri()
		if at == "" && r.GetJwks() == "" {
			at = r.GetIssuer()
		}
		if u, err := url.Parse(at); err == nil {
			if key, ok := ServiceOf(u.Hostname()); ok {
				names = append(names, key.String())
			}
		}
	}
	return names
}
