package supervisor

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"

	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
)

// isWaypoint reports whether a pod runs a waypoint, which speaks to the control plane
// under the pod's own account.
func isWaypoint(p *plan.Pod) bool { return p.Object.Labels[manifest.LabelManaged] != "" }

// podToken is where a pod's own token lies.
func (s *Supervisor) podToken(p *plan.Pod) string { return s.dir.Pods(p.UID + ".token") }

// waypointEnv tells a waypoint where the control plane is and who it is itself.
func (s *Supervisor) waypointEnv(p *plan.Pod) []string {
	env := []string{
		"XDS_ADDRESS=" + net.JoinHostPort(plan.ControlPlane4.String(), fmt.Sprint(portXDS)),
		"ALT_XDS_HOSTNAME=istiod.istio-system.svc",
		"XDS_ROOT_CA=" + filepath.Join(s.dir.Authority(), "root-cert.pem"),
		"AUTH_TOKEN=" + s.podToken(p),
		"TRUST_DOMAIN=" + s.settings.TrustDomain,
	}
	return env
}

// portWaypointAdmin is a waypoint's own HTTP interface, inside its pod.
const portWaypointAdmin = 15000

// forwardWaypoint asks a waypoint, as forward does other components.
func (s *Supervisor) forwardWaypoint(w http.ResponseWriter, r *http.Request) {
	key := plan.PodKey{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod")}
	s.mu.Lock()
	p := s.pods[key]
	s.mu.Unlock()
	if p == nil || !isWaypoint(p.current()) {
		http.Error(w, fmt.Sprintf("no waypoint %s/%s", key.Namespace, key.Name), http.StatusBadGateway)
		return
	}
	pass(w, r, p.ns, portWaypointAdmin)
}
