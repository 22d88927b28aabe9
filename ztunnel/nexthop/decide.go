package nexthop

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
)

// Ports of the node proxy inside every pod of the mesh. Nobody connects to them
// through the mesh: the proxy would answer itself.
const (
	outboundPort = 15001
	inboundPort  = 15006
	tunnelPort   = workload.DefaultTunnelPort
)

// Decide says where the connection goes. It has no side effects besides calling
// in.Pick, does not block and is safe for concurrent use when in.Pick is.
func Decide(snap *state.Snapshot, in Input) Decision {
	in.Dest = netip.AddrPortFrom(in.Dest.Addr().Unmap(), in.Dest.Port())
	if in.Pick == nil {
		in.Pick = func(int) int { return 0 }
	}
	if reason := refuse(in); reason != "" {
		return Decision{Reason: reason}
	}
	c := chooser{snap: snap, in: in}
	d := c.decide()
	d.Wait = c.wait
	return d
}

// refuse names what is wrong with the connection before the mesh is asked.
func refuse(in Input) string {
	a := in.Dest.Addr()
	switch {
	case in.Source == nil:
		return "the source workload is not known"
	case !a.IsValid() || in.Dest.Port() == 0:
		return "the original destination is not known"
	case a.IsUnspecified() || a.IsMulticast():
		return fmt.Sprintf("destination %s is not one host", in.Dest)
	case a.IsLoopback():
		return fmt.Sprintf("destination %s is the pod itself and does not belong into the mesh", in.Dest)
	}
	return ""
}

// chooser carries what every step of one decision needs.
type chooser struct {
	snap *state.Snapshot
	in   Input
	// wait is set where more than the name of a provisional source is asked for.
	wait bool
}

func (c *chooser) decide() Decision {
	if svc := c.snap.ServiceByVIPFor(c.in.Source.Namespace, c.in.Network, c.in.Dest.Addr()); svc != nil {
		return c.toService(svc)
	}
	if w := c.snap.WorkloadByAddr(c.in.Network, c.in.Dest.Addr()); w != nil {
		return c.toAddress(w)
	}
	return Decision{Kind: Passthrough, Target: c.in.Dest, Upstream: c.in.Dest}
}

func (c *chooser) toService(svc *workload.Service) Decision {
	deny := func(format string, args ...any) Decision {
		return Decision{Service: svc, Reason: fmt.Sprintf("service %s: ", svc.Key()) + fmt.Sprintf(format, args...)}
	}
	if wp := c.serviceWaypoint(svc); wp != nil && !c.behind(wp) {
		d := c.viaWaypoint(wp)
		d.Service = svc
		return d
	}
	if svc.LoadBalancing.Mode == workload.ModePassthrough {
		// The client's address stands; the service only gives it a name.
		if w := c.snap.WorkloadByAddr(c.in.Network, c.in.Dest.Addr()); w != nil {
			d := c.toAddress(w)
			d.Service = svc
			return d
		}
		return Decision{Kind: Passthrough, Target: c.in.Dest, Upstream: c.in.Dest, Service: svc}
	}
	port, ok := svc.Port(c.in.Dest.Port())
	if !ok {
		return deny("has no port %d", c.in.Dest.Port())
	}
	w, upstream, why := c.endpoint(svc, port)
	if w == nil {
		return deny("%s", why)
	}
	return c.toEndpoint(svc, w, upstream)
}

// toEndpoint reaches the endpoint w of a service at upstream.
func (c *chooser) toEndpoint(svc *workload.Service, w *workload.Workload, upstream netip.AddrPort) Decision {
	d := c.toWorkload(w, upstream)
	d.Service = svc
	if d.Kind.Tunnelled() {
		d.Expected = union(d.Expected, svc.SubjectAltNames)
	}
	return d
}

// toAddress handles a connection to a workload's own address. Its health does
// not matter: the client asked for this one and no other.
func (c *chooser) toAddress(w *workload.Workload) Decision {
	if wp := w.Waypoint; wp != nil && !c.behind(wp) && w.UID != c.in.Source.UID {
		return c.viaWaypoint(wp)
	}
	return c.toWorkload(w, c.in.Dest)
}

// toWorkload reaches the application of w at upstream.
func (c *chooser) toWorkload(w *workload.Workload, upstream netip.AddrPort) Decision {
	d := Decision{Workload: w, Upstream: upstream}
	if w.Protocol != workload.HBONE {
		d.Kind, d.Target = Direct, upstream
		return d
	}
	switch upstream.Port() {
	case outboundPort, inboundPort, tunnelPort:
		d.Reason = fmt.Sprintf("%s: port %d of workload %s belongs to the mesh itself", upstream, upstream.Port(), w.UID)
		return d
	}
	if w.UID == c.in.Source.UID {
		// To itself: the bytes never leave the pod.
		d.Kind, d.Target = Direct, upstream
		return d
	}
	id := w.Identity()
	if id.IsZero() {
		d.Reason = fmt.Sprintf("workload %s has no identity to expect", w.UID)
		return d
	}
	d.Kind = HBONE
	d.Target = netip.AddrPortFrom(upstream.Addr(), tunnelPort)
	d.Authority = upstream.String()
	d.Expected = []spiffeid.ID{id}
	return d
}

// union returns a and what b has besides, in a new slice when it adds anything.
func union(a, b []spiffeid.ID) []spiffeid.ID {
	out := slices.Clip(a)
	for _, id := range b {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}
