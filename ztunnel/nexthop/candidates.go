package nexthop

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
)

// Candidate is one way that a connection can go, for explanations.
type Candidate struct {
	// Decision is what Decide returns when it takes this way.
	Decision
	// Weight is the way's part of new connections, out of the sum of all; 0 when
	// it is not taken.
	Weight uint64
	// Unfit says why the way is not taken; empty when it is.
	Unfit string
}

// Candidates returns every way that Decide may choose for the connection: one for
// each endpoint of a service whose endpoints it balances over, those that are not
// fit included, in the order of their uids; one for each waypoint that shares the
// connections to a service, in the order of the service; else the one way that there is.
// It costs time of the order of the endpoints.
func Candidates(snap *state.Snapshot, in Input) []Candidate {
	in.Dest = netip.AddrPortFrom(in.Dest.Addr().Unmap(), in.Dest.Port())
	if in.Pick == nil {
		in.Pick = func(int) int { return 0 }
	}
	c := chooser{snap: snap, in: in}
	if out := c.shared(); out != nil {
		return out
	}
	svc, port, balanced := c.balanced()
	if !balanced {
		d := Decide(snap, in)
		if d.Kind == Deny {
			return []Candidate{{Decision: d, Unfit: d.Reason}}
		}
		return []Candidate{{Decision: d, Weight: 1}}
	}
	lb := svc.LoadBalancing
	ranked := len(lb.Preference) > 0 && (lb.Mode == workload.ModeStrict || lb.Mode == workload.ModeFailover)
	best := 0
	if ranked && lb.Mode == workload.ModeStrict {
		best = len(lb.Preference)
	}
	var out []Candidate
	var ranks []int
	for w := range snap.Endpoints(svc.Key()).All() {
		b := balancer{chooser: &c, svc: svc, port: port, healthyOnly: !lb.AllowUnhealthy}
		upstream, ok := b.fit(w)
		if !ok {
			out = append(out, Candidate{Decision: Decision{Workload: w, Service: svc}, Unfit: b.unfit()})
			ranks = append(ranks, -1)
			continue
		}
		rank := 0
		if ranked {
			rank = affinity(lb.Preference, in.Source, w)
		}
		best = max(best, rank)
		out = append(out, Candidate{Decision: c.toEndpoint(svc, w, upstream), Weight: uint64(w.Capacity)})
		ranks = append(ranks, rank)
	}
	for i := range out {
		switch {
		case out[i].Unfit != "":
		case ranks[i] < best && lb.Mode == workload.ModeStrict:
			out[i].Weight, out[i].Unfit = 0, "outside the strict routing preference"
		case ranks[i] < best:
			out[i].Weight, out[i].Unfit = 0, "farther away than others, by the service's routing preference"
		case out[i].Kind == Deny:
			out[i].Unfit = out[i].Reason
		}
	}
	return out
}

// shared returns the ways through the waypoints that share the connections to a service;
// nil when none do, or the client is one of them.
func (c *chooser) shared() []Candidate {
	if refuse(c.in) != "" {
		return nil
	}
	svc := c.snap.ServiceByVIPFor(c.in.Source.Namespace, c.in.Network, c.in.Dest.Addr())
	if svc == nil {
		return nil
	}
	var out []Candidate
	for i := range svc.WeightedWaypoints {
		w := &svc.WeightedWaypoints[i]
		switch {
		case c.behind(&w.GatewayAddress):
			return nil
		case w.Weight == 0:
			continue
		}
		d := c.viaWaypoint(&w.GatewayAddress)
		d.Service = svc
		out = append(out, Candidate{Decision: d, Weight: uint64(w.Weight), Unfit: d.Reason})
	}
	return out
}

// balanced returns the service and port whose endpoints share the connections to
// the destination; false when nothing is to be chosen among.
func (c *chooser) balanced() (*workload.Service, workload.Port, bool) {
	if refuse(c.in) != "" {
		return nil, workload.Port{}, false
	}
	svc := c.snap.ServiceByVIPFor(c.in.Source.Namespace, c.in.Network, c.in.Dest.Addr())
	if svc == nil || svc.LoadBalancing.Mode == workload.ModePassthrough || len(svc.WeightedWaypoints) > 0 {
		return nil, workload.Port{}, false
	}
	if svc.Waypoint != nil && !c.behind(svc.Waypoint) {
		return nil, workload.Port{}, false
	}
	port, ok := svc.Port(c.in.Dest.Port())
	return svc, port, ok && c.snap.Endpoints(svc.Key()).Len() > 0
}

// unfit names the one reason that a single call of fit counted.
func (b *balancer) unfit() string {
	for _, f := range b.failures() {
		if f.n > 0 {
			return f.what
		}
	}
	return ""
}
