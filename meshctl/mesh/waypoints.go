package mesh

import (
	"context"
	"errors"

	"github.com/tulle-mesh/tulle/meshctl/local"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

// Labels of the pods of waypoints.
const (
	gatewayName    = "gateway.networking.k8s.io/gateway-name"
	gatewayManaged = "gateway.istio.io/managed=istio.io-mesh-controller"
)

// waypoints lists those of a local mesh.
func (l *localMesh) waypoints(st control.Status) []*Component {
	var out []*Component
	for _, p := range st.Pods {
		if p.Waypoint == "" {
			continue
		}
		x := &Component{
			Kind: Waypoint, Name: p.Namespace + "/" + p.Name, Node: p.Node, Version: st.Version, Ready: p.Ready, Reason: p.Reason,
			Gateway: p.Namespace + "/" + p.Waypoint,
		}
		x.ask = func(ctx context.Context, method, path string) ([]byte, error) {
			body, err := l.mesh.WaypointAdmin(ctx, method, p.Namespace, p.Name, path)
			var refusal *local.RefusalError
			if errors.As(err, &refusal) {
				return nil, &RefusalError{Status: refusal.Status, Text: refusal.Text}
			}
			return body, err
		}
		out = append(out, x)
	}
	return out
}
