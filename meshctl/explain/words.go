package explain

import (
	"context"
	"fmt"
	"strings"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
	ztunnel "github.com/tulle-mesh/tulle/ztunnel/explain"
)

// words is the next hop as people say it.
func words(w ztunnel.Way) string {
	switch w.Kind {
	case "hbone":
		how := fmt.Sprintf("tunnel (HBONE) to %s, asking for %s", w.Target, w.Authority)
		if w.SameNode {
			how = fmt.Sprintf("to %s inside this node's ztunnel, which serves both pods: nothing goes over the network", w.Authority)
		}
		return how + "; the peer has to be " + strings.Join(w.Expected, " or ")
	case "waypoint":
		return fmt.Sprintf("tunnel (HBONE) to the waypoint at %s, asking for %s; the peer has to be %s", w.Target, w.Authority, strings.Join(w.Expected, " or "))
	case "direct":
		return fmt.Sprintf("plaintext to %s: the server is not reached by a tunnel", w.Target)
	case "passthrough":
		return fmt.Sprintf("plaintext to %s, which the mesh does not know", w.Target)
	}
	return "refused by the client's own ztunnel"
}

// adviseHop says what to do about a next hop that is refused.
func (x *run) adviseHop(hop ztunnel.Way) {
	switch reason := hop.Reason; {
	case strings.Contains(reason, "has no port"):
		if len(x.out.Server.Ports) > 0 {
			x.advise("the service's ports are %s", list(x.out.Server.Ports))
		}
	case strings.Contains(reason, "has no endpoints"):
		x.advise("no running pod matches the service's selector (`kubectl get endpointslices` shows none): is the Deployment scaled to 0, do the labels match?")
	case strings.Contains(reason, "not healthy"):
		x.adviseUnready()
	case strings.HasPrefix(reason, "waypoint "):
		x.advise("the label istio.io/use-waypoint sends this through a waypoint that cannot be reached: deploy the Gateway that it names, or remove the label (or set it to none)")
	case strings.Contains(reason, "belongs to the mesh itself"):
		x.advise("ports 15001, 15006 and 15008 of a pod in the mesh are its node proxy's: let the application use others")
	}
}

// adviseUnready names pods that are not ready and why.
func (x *run) adviseUnready() {
	ns, _, _ := strings.Cut(x.out.Server.Service, "/")
	pods, err := x.mesh.Pods(x.ctx, ns)
	if err != nil {
		return
	}
	named := 0
	for _, p := range pods {
		for _, w := range x.out.Ways {
			if w.Hop.Workload == nil || w.Hop.Workload.Name != p.Name || p.Ready {
				continue
			}
			if named++; named <= 3 {
				x.advise("pod %s/%s is not ready: %s", p.Namespace, p.Name, p.Reason)
			}
		}
	}
	if named == 0 {
		x.advise("its pods are not ready: their readiness probes say why (kubectl describe pod -n %s)", ns)
	}
}

// adviseOutsideServer says that the server has no protection.
func (x *run) adviseOutsideServer(hop ztunnel.Way) {
	pod, err := x.mesh.Pod(x.ctx, hop.Workload.Namespace, hop.Workload.Name)
	if err != nil || pod.Member || pod.Outside == "" {
		return
	}
	x.advise("pod %s/%s is not in the mesh: %s. It is reached in plaintext, and no policy is enforced for it", pod.Namespace, pod.Name, pod.Outside)
}

// advisePolicy says what to do about a refusal at the server.
func (x *run) advisePolicy(w Way, identity string) {
	var decisive *ztunnel.Verdict
	for i := range w.Policies {
		if w.Policies[i].Decides {
			decisive = &w.Policies[i]
		}
	}
	_, name, _ := strings.Cut(w.Policy, "/")
	switch {
	case identity == "" && (strings.HasPrefix(name, "istio_converted_") || strings.HasPrefix(name, "converted_peer_authentication_")):
		x.advise("PeerAuthentication STRICT takes connections from members of the mesh only, and the client is none: %s", x.out.Client.Outside)
	case identity == "" && decisive != nil:
		x.advise("policy %s wants an identity, and the client, outside the mesh, has none: %s", w.Policy, x.out.Client.Outside)
	case decisive != nil && decisive.Action == "Allow" && strings.HasPrefix(decisive.Reason, "source "):
		x.advise("to let the client in, add source principal %q to the rule of AuthorizationPolicy %s that is meant for it", strings.TrimPrefix(identity, "spiffe://"), w.Policy)
	case decisive != nil && decisive.Action == "Allow" && strings.HasPrefix(decisive.Reason, "destination port "):
		x.advise("to open this port, add %d to the ports of the rule of AuthorizationPolicy %s (the server's own port, not the service's)", w.Hop.Upstream.Port(), w.Policy)
	case decisive != nil && decisive.Action == "Allow":
		x.advise("to allow it, change AuthorizationPolicy %s or add another ALLOW policy: what one of them allows passes", w.Policy)
	case decisive != nil:
		x.advise("AuthorizationPolicy %s denies this on purpose; change its rule if it is not meant", w.Policy)
	}
}

// adviseWaypoint tells of a label that names a waypoint which traffic does not go
// through.
func (x *run) adviseWaypoint() {
	c, ok := x.mesh.(*mesh.Cluster)
	if !ok {
		return
	}
	ns, host, _ := strings.Cut(x.out.Server.Service, "/")
	name, _, _ := strings.Cut(host, ".")
	use, on := useWaypoint(x.ctx, c, ns, name)
	if use == "" || use == "none" {
		return
	}
	x.advise("%s is labelled istio.io/use-waypoint=%s, but connections go past it: there is no such Gateway that is programmed", on, use)
}

// useWaypoint is the label that counts for a service, and on what it is.
func useWaypoint(ctx context.Context, c *mesh.Cluster, namespace, name string) (use, on string) {
	const label = "istio.io/use-waypoint"
	if svc, err := c.ServiceLabels(ctx, namespace, name); err == nil && svc[label] != "" {
		return svc[label], "service " + namespace + "/" + name
	}
	if ns, err := c.NamespaceLabels(ctx, namespace); err == nil && ns[label] != "" {
		return ns[label], "namespace " + namespace
	}
	return "", ""
}
