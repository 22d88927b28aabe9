package explain

import (
	"fmt"
	"net/netip"

	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/nexthop"
)

// OutboundQuery asks for the ways of a connection: to Dest, or else to Port of
// Service, as a client that resolves the service's name would dial it.
type OutboundQuery struct {
	Client  Name
	Dest    netip.AddrPort
	Service workload.ServiceKey
	Port    uint16
}

// Outbound evaluates the query on a snapshot; network is that of the node. The
// answer's Node, Captured and SameNode are the caller's to fill.
func Outbound(snap *state.Snapshot, q OutboundQuery, network string) OutboundAnswer {
	a := OutboundAnswer{Snapshot: snap.Version(), Ways: []Way{}}
	client := snap.WorkloadByPod(q.Client.Namespace, q.Client.Name)
	a.Client = describe(client)
	if client == nil {
		a.Problem = fmt.Sprintf("the control plane has not announced pod %s to this node", q.Client)
		return a
	}
	if q.Dest.IsValid() {
		a.add(snap, client, q.Dest, network)
		return a
	}
	svc := snap.ServiceByHost(q.Service)
	if svc == nil {
		a.Problem = fmt.Sprintf("the control plane has not announced service %s to this node", q.Service)
		return a
	}
	a.Service = describeService(svc, snap.Endpoints(svc.Key()).Len())
	if vip := vipOf(svc, client, network); vip.IsValid() {
		a.add(snap, client, netip.AddrPortFrom(vip, q.Port), network)
		return a
	}
	// Headless: the name stands for the addresses of the endpoints, and the client
	// dials their own port.
	for w := range snap.Endpoints(svc.Key()).All() {
		if addr := w.Address(first(client)); addr.IsValid() && (w.Healthy || svc.LoadBalancing.AllowUnhealthy) {
			a.add(snap, client, netip.AddrPortFrom(addr, q.Port), network)
		}
	}
	if len(a.Ways) == 0 {
		a.Problem = fmt.Sprintf("service %s has no address of its own and no endpoint whose address its name could stand for", q.Service)
	}
	for i := range a.Ways {
		a.Ways[i].Share /= float64(len(a.Ways))
	}
	return a
}

func (a *OutboundAnswer) add(snap *state.Snapshot, client *workload.Workload, dest netip.AddrPort, network string) {
	candidates := nexthop.Candidates(snap, nexthop.Input{Source: client, Dest: dest, Network: network})
	total := uint64(0)
	for _, c := range candidates {
		total += c.Weight
	}
	for _, c := range candidates {
		w := Way{
			Dest: dest, Kind: c.Kind.String(), Target: c.Target, Authority: c.Authority, Upstream: c.Upstream,
			Workload: describe(c.Workload), Reason: c.Unfit,
		}
		for _, id := range c.Expected {
			w.Expected = append(w.Expected, id.String())
		}
		if c.Service != nil {
			w.Service = c.Service.Key().String()
			if a.Service == nil {
				a.Service = describeService(c.Service, snap.Endpoints(c.Service.Key()).Len())
			}
		}
		if total > 0 {
			w.Share = float64(c.Weight) / float64(total)
		}
		a.Ways = append(a.Ways, w)
	}
}

// vipOf is the address that a client of that network resolves the service's name
// to: one of its own family when there is one.
func vipOf(svc *workload.Service, client *workload.Workload, network string) netip.Addr {
	var any netip.Addr
	for _, v := range svc.VIPs {
		if v.Network != network || !v.Prefix.IsSingleIP() {
			continue
		}
		if a := v.Prefix.Addr(); a.Is4() == first(client).Is4() {
			return a
		} else if !any.IsValid() {
			any = a
		}
	}
	return any
}

func first(w *workload.Workload) netip.Addr {
	if len(w.Addresses) == 0 {
		return netip.Addr{}
	}
	return w.Addresses[0]
}

func describeService(svc *workload.Service, endpoints int) *Service {
	out := &Service{Namespace: svc.Namespace, Hostname: svc.Hostname, Addresses: []string{}, Endpoints: endpoints}
	for _, v := range svc.VIPs {
		if v.Prefix.IsSingleIP() {
			out.Addresses = append(out.Addresses, v.Prefix.Addr().String())
		} else {
			out.Addresses = append(out.Addresses, v.Prefix.String())
		}
	}
	for _, p := range svc.Ports {
		out.Ports = append(out.Ports, p.Service)
	}
	if svc.Waypoint != nil {
		out.Waypoint = svc.Waypoint.String()
	}
	total := uint64(0)
	for i := range svc.WeightedWaypoints {
		total += uint64(svc.WeightedWaypoints[i].Weight)
	}
	for i := range svc.WeightedWaypoints {
		w := &svc.WeightedWaypoints[i]
		if w.Weight > 0 {
			out.Shares = append(out.Shares, WaypointShare{Waypoint: w.GatewayAddress.String(), Share: float64(w.Weight) / float64(total)})
		}
	}
	return out
}
