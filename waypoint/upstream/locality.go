package upstream

import "github.com/tulle-mesh/tulle/internal/workload"

// shared counts the leading scopes of the preference that two places share, as the
// node proxy does (ztunnel/nexthop): an unknown part is shared with nobody, except
// that no network is the default one.
func shared(preference []workload.Scope, a, b *Place) int {
	same := func(x, y string) bool { return x != "" && x == y }
	for i, s := range preference {
		ok := false
		switch s {
		case workload.ScopeRegion:
			ok = same(a.Region, b.Region)
		case workload.ScopeZone:
			ok = same(a.Zone, b.Zone)
		case workload.ScopeSubzone:
			ok = same(a.Subzone, b.Subzone)
		case workload.ScopeNode:
			ok = same(a.Node, b.Node)
		case workload.ScopeCluster:
			ok = same(a.Cluster, b.Cluster)
		case workload.ScopeNetwork:
			ok = a.Network == b.Network
		}
		if !ok {
			return i
		}
	}
	return len(preference)
}

// tierOf returns which tier an endpoint belongs to, 0 being the nearest; false when
// the preference is strict and it is too far.
// failoverTo is the region that comes before other regions than the own.
func tierOf(lb *workload.LoadBalancing, failoverTo string, own, theirs *Place) (int, bool) {
	if len(lb.Preference) == 0 {
		return 0, true
	}
	switch lb.Mode {
	case workload.ModeStrict:
		return 0, shared(lb.Preference, own, theirs) == len(lb.Preference)
	case workload.ModeFailover:
		n := len(lb.Preference) - shared(lb.Preference, own, theirs)
		if failoverTo != "" && n == len(lb.Preference) && theirs.Region != failoverTo {
			n++
		}
		return n, true
	default:
		return 0, true
	}
}

// overprovision is how much more than its share a tier can carry, in percent: it
// keeps all requests until fewer than 1/1.4 of its targets are left, and gives them
// away little by little from there. Envoy's default.
const overprovision = 140

// spread shares requests among tiers in their order: each takes what the part of its
// targets that are left can carry, the rest goes to the next. The results are upper
// bounds in parts of 1<<32; the last is 1<<32. When all together cannot carry
// everything, they share it in proportion.
func spread(left, all []int) []uint64 {
	const whole = 1 << 32
	bounds := make([]uint64, len(all))
	var sum uint64
	for i := range all {
		var can uint64
		if all[i] > 0 {
			can = min(whole, uint64(left[i])*overprovision*whole/100/uint64(all[i]))
		}
		sum = min(whole, sum+can)
		bounds[i] = sum
	}
	if sum == 0 {
		return bounds
	}
	for i := range bounds {
		// At most 2^32 times 2^32, which is why sum is not whole here.
		if sum < whole {
			bounds[i] = uint64(float64(bounds[i]) / float64(sum) * whole)
		}
	}
	last := len(bounds) - 1
	for last > 0 && left[last] == 0 {
		last--
	}
	for i := last; i < len(bounds); i++ {
		bounds[i] = whole
	}
	return bounds
}
