package nexthop

import (
	"fmt"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// serviceWaypoint returns the waypoint of this connection to the service: one of
// the canaries by their weight in percent, else the main one, else nil.
func (c *chooser) serviceWaypoint(svc *workload.Service) *workload.GatewayAddress {
	var total uint64
	for i := range svc.WeightedWaypoints {
		total += uint64(svc.WeightedWaypoints[i].Weight)
	}
	if total == 0 {
		return svc.Waypoint
	}
	n := uint64(c.in.Pick(int(total)))
	for i := range svc.WeightedWaypoints {
		w := &svc.WeightedWaypoints[i]
		if n < uint64(w.Weight) {
			return &w.GatewayAddress
		}
		n -= uint64(w.Weight)
	}
	return svc.Waypoint
}

// behind reports whether the client is the waypoint itself: what it sends on is
// not sent back to it.
func (c *chooser) behind(wp *workload.GatewayAddress) bool {
	c.wait = c.wait || c.in.Provisional
	if !wp.Hostname.IsZero() {
		_, ok := c.in.Source.Services[wp.Hostname]
		return ok
	}
	for _, a := range c.in.Source.Addresses {
		if a == wp.Addr && c.in.Source.Network == wp.Network {
			return true
		}
	}
	if svc := c.snap.ServiceByVIP(wp.Network, wp.Addr); svc != nil {
		_, ok := c.in.Source.Services[svc.Key()]
		return ok
	}
	return false
}

// viaWaypoint hands the connection to a waypoint, asking for what the client
// dialled. A waypoint that cannot be reached denies: going past it would skip
// the policies that live there.
func (c *chooser) viaWaypoint(wp *workload.GatewayAddress) Decision {
	deny := func(format string, args ...any) Decision {
		return Decision{Reason: fmt.Sprintf("waypoint %s: ", wp) + fmt.Sprintf(format, args...)}
	}
	var w *workload.Workload
	var at netip.Addr
	var sans []spiffeid.ID
	svc := c.snap.ServiceByHost(wp.Hostname)
	if wp.Hostname.IsZero() {
		svc = c.snap.ServiceByVIP(wp.Network, wp.Addr)
		w, at = c.snap.WorkloadByAddr(wp.Network, wp.Addr), wp.Addr
	}
	switch {
	case svc != nil:
		// The service may list its HBONE port; that only maps it.
		port, ok := svc.Port(wp.Port)
		if !ok {
			port = workload.Port{Service: wp.Port, Target: wp.Port}
		}
		chosen, upstream, why := c.endpoint(svc, port)
		if chosen == nil {
			return deny("service %s: %s", svc.Key(), why)
		}
		w, at, sans = chosen, upstream.Addr(), svc.SubjectAltNames
		wp = &workload.GatewayAddress{Hostname: svc.Key(), Port: upstream.Port()}
	case w == nil:
		return deny("is not known")
	case w.Network != c.in.Network:
		return deny("is in another network")
	}
	id := w.Identity()
	if id.IsZero() {
		return deny("workload %s has no identity to expect", w.UID)
	}
	return Decision{
		Kind:      Waypoint,
		Target:    netip.AddrPortFrom(at, wp.Port),
		Authority: c.in.Dest.String(),
		Expected:  union([]spiffeid.ID{id}, sans),
		Workload:  w,
		Upstream:  c.in.Dest,
	}
}
