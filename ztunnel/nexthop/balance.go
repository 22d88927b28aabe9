package nexthop

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// endpoint chooses a workload of the service and its application address, or
// says why there is none.
func (c *chooser) endpoint(svc *workload.Service, port workload.Port) (*workload.Workload, netip.AddrPort, string) {
	set := c.snap.Endpoints(svc.Key())
	if set.Len() == 0 {
		return nil, netip.AddrPort{}, "has no endpoints"
	}
	healthyOnly := !svc.LoadBalancing.AllowUnhealthy
	b := balancer{chooser: c, svc: svc, port: port, healthyOnly: healthyOnly, avoid: c.in.Avoid}
	ranked := len(svc.LoadBalancing.Preference) > 0 &&
		(svc.LoadBalancing.Mode == workload.ModeStrict || svc.LoadBalancing.Mode == workload.ModeFailover)
	if total := set.Weight(healthyOnly); total > 0 && !ranked {
		// Almost always every endpoint is fit, and this takes O(log n). When it
		// is not, choosing again among the fit ones keeps their shares even.
		if w := set.At(uint64(c.in.Pick(int(total))), healthyOnly); w != nil {
			if upstream, ok := b.fit(w); ok {
				return w, upstream, ""
			}
		}
	}
	w, upstream, why := b.scan(ranked)
	if w == nil && len(b.avoid) > 0 {
		b.avoid = nil // one that just failed is better than none
		w, upstream, why = b.scan(ranked)
	}
	return w, upstream, why
}

// balancer looks at every endpoint of one service.
type balancer struct {
	*chooser
	svc         *workload.Service
	port        workload.Port
	healthyOnly bool
	avoid       []string // uids that are not fit
	// Why endpoints were not fit, counted for the reason of a denial.
	unhealthy, elsewhere, portless, addressless, weightless, far, avoided int
}

// fit reports whether w can serve the connection, and where.
func (b *balancer) fit(w *workload.Workload) (netip.AddrPort, bool) {
	switch {
	case slices.Contains(b.avoid, w.UID):
		b.avoided++
		return netip.AddrPort{}, false
	case b.healthyOnly && !w.Healthy:
		b.unhealthy++
		return netip.AddrPort{}, false
	case w.Capacity == 0:
		b.weightless++
		return netip.AddrPort{}, false
	case w.Network != b.in.Network:
		// Another network is reached through its gateway, inside a second
		// tunnel. That is not built; its addresses mean nothing here.
		b.elsewhere++
		return netip.AddrPort{}, false
	}
	target, ok := b.targetPort(w)
	if !ok {
		b.portless++
		return netip.AddrPort{}, false
	}
	addr := w.Address(b.in.Dest.Addr())
	if !addr.IsValid() {
		b.addressless++
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr, target), true
}

// targetPort maps the service's port for w: the workload's own mapping comes
// first, since only it knows its named ports.
func (b *balancer) targetPort(w *workload.Workload) (uint16, bool) {
	ports := w.Services[b.svc.Key()]
	for _, p := range ports {
		if p.Service == b.port.Service {
			if p.Target != 0 {
				return p.Target, true
			}
			return b.port.Target, b.port.Target != 0
		}
	}
	// A workload that lists ports, but not this one, does not serve it.
	if len(ports) > 0 {
		return 0, false
	}
	return b.port.Target, b.port.Target != 0
}

// scan chooses among the fit endpoints of the best rank, by weight.
func (b *balancer) scan(ranked bool) (*workload.Workload, netip.AddrPort, string) {
	b.unhealthy, b.elsewhere, b.portless, b.addressless, b.weightless, b.avoided = 0, 0, 0, 0, 0, 0
	b.wait = b.wait || ranked && b.in.Provisional
	set := b.snap.Endpoints(b.svc.Key())
	best, total := 0, uint64(0)
	strict := ranked && b.svc.LoadBalancing.Mode == workload.ModeStrict
	rank := func(w *workload.Workload) int {
		if !ranked {
			return 0
		}
		return affinity(b.svc.LoadBalancing.Preference, b.in.Source, w)
	}
	if strict {
		best = len(b.svc.LoadBalancing.Preference)
	}
	for w := range set.All() {
		if _, ok := b.fit(w); !ok {
			continue
		}
		switch r := rank(w); {
		case r < best:
			b.far++
		case r > best:
			best, total = r, uint64(w.Capacity)
		default:
			total += uint64(w.Capacity)
		}
	}
	if total == 0 {
		return nil, netip.AddrPort{}, b.why()
	}
	n := uint64(b.in.Pick(int(total)))
	for w := range set.All() {
		upstream, ok := b.fit(w)
		if !ok || rank(w) != best {
			continue
		}
		if n < uint64(w.Capacity) {
			return w, upstream, ""
		}
		n -= uint64(w.Capacity)
	}
	return nil, netip.AddrPort{}, "the endpoint choice was out of range"
}

// why tells how many endpoints failed at what.
func (b *balancer) why() string {
	out := fmt.Sprintf("none of its endpoints can serve port %d", b.port.Service)
	sep := ": "
	for _, c := range b.failures() {
		if c.n > 0 {
			out += fmt.Sprintf("%s%d %s", sep, c.n, c.what)
			sep = ", "
		}
	}
	return out
}

// failure counts endpoints that are not fit for one reason.
type failure struct {
	n    int
	what string
}

func (b *balancer) failures() []failure {
	return []failure{
		{b.avoided, "just failed"},
		{b.unhealthy, "not healthy"},
		{b.weightless, "without capacity"},
		{b.elsewhere, "in another network"},
		{b.portless, "without this port"},
		{b.addressless, "without an address (names are not resolved)"},
		{b.far, "outside the strict routing preference"},
	}
}

// affinity counts the leading scopes of the preference that w shares with the
// client. An empty property is unknown and shared with nobody, except that
// workloads without a network share the default one.
func affinity(preference []workload.Scope, client, w *workload.Workload) int {
	same := func(a, b string) bool { return a != "" && a == b }
	for i, s := range preference {
		shared := false
		switch s {
		case workload.ScopeRegion:
			shared = same(client.Locality.Region, w.Locality.Region)
		case workload.ScopeZone:
			shared = same(client.Locality.Zone, w.Locality.Zone)
		case workload.ScopeSubzone:
			shared = same(client.Locality.Subzone, w.Locality.Subzone)
		case workload.ScopeNode:
			shared = same(client.Node, w.Node)
		case workload.ScopeCluster:
			shared = same(client.ClusterID, w.ClusterID)
		case workload.ScopeNetwork:
			shared = client.Network == w.Network
		}
		if !shared {
			return i
		}
	}
	return len(preference)
}
