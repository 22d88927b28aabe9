package supervisor

import (
	"fmt"
	"net"
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
