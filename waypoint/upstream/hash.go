package upstream

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Replicas of a waypoint must agree on where a key goes, so hashes are the same in
// every process.

// HashString returns the key of a value that requests are to stick by: a header, a
// cookie, a query parameter.
func HashString(s string) uint64 { return xxhash.Sum64String(s) }

// HashAddr returns the key of a source address.
func HashAddr(a netip.Addr) uint64 {
	b := a.As16()
	return xxhash.Sum64(b[:])
}

// mix scatters a number over all bits (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}

// The tables have all members of a tier: those that are left out for now are passed
// over, so that only their own keys move, and back to where they were.

// ring is consistent hashing: every target has points on a circle, as many as its
// weight tells, and a key belongs to the next point.
type ring struct {
	points  []uint64
	targets []uint16
	// first has, for each value of a hash's leading bits (what shift leaves), the first
	// point that does not lie before them. There are about as many as points, so that a
	// step or two finds a key's point, where halving took 16 with a cache miss each.
	first []uint32
	shift uint
}

func newRing(targets []*Target, weights []uint32, size int) *ring {
	var sum uint64
	for _, w := range weights {
		sum += uint64(w)
	}
	// The number of points of a target does not depend on how many others there are,
	// else their keys would move, too, whenever one comes or goes; it is halved only
	// where there is no room for all.
	least, each := uint64(slices.Min(weights)), uint64(ringPoints)
	for each > 1 && sum/least*each > maxRing {
		each /= 2
	}
	// More of them where a larger ring is wanted, by doubling, for the same reason.
	for sum/least*each < uint64(size) && sum/least*each*2 <= maxRing {
		each *= 2
	}
	type point struct {
		at     uint64
		target uint16
	}
	var points []point
	for i, t := range targets {
		n := min(maxRing, max(1, uint64(weights[i])*each/least))
		for k := range n {
			points = append(points, point{mix(t.hash + mix(k+1)), uint16(i)})
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		if a.at != b.at {
			return cmp.Compare(a.at, b.at)
		}
		// Where two meet, the order of the targets' hashes decides, not that of the list.
		return cmp.Compare(targets[a.target].hash, targets[b.target].hash)
	})
	r := &ring{points: make([]uint64, len(points)), targets: make([]uint16, len(points))}
	for i, p := range points {
		r.points[i], r.targets[i] = p.at, p.target
	}
	r.shift = uint(64 - bits.Len(uint(len(points))))
	r.first = make([]uint32, 1<<(64-r.shift))
	at := 0
	for i := range r.first {
		for at < len(points) && r.points[at] < uint64(i)<<r.shift {
			at++
		}
		r.first[i] = uint32(at)
	}
	return r
}

func (r *ring) pick(hash uint64, try int) int {
	lo := int(r.first[hash>>r.shift])
	for lo < len(r.points) && r.points[lo] < hash {
		lo++
	}
	if lo == len(r.points) {
		lo = 0
	}
	found := r.targets[lo]
	// The next tries are the next other targets on the ring.
	for steps := len(r.points); try > 0 && steps > 0; steps-- {
		if lo++; lo == len(r.points) {
			lo = 0
		}
		if r.targets[lo] != found {
			found = r.targets[lo]
			try--
		}
	}
	return int(found)
}

// maglev is the look-up table of Google's load balancer (Eisenbud et al., NSDI
// 2016, section 3.4): each target fills entries in its own order, taking turns by
// weight.
type maglev []uint16

func newMaglev(targets []*Target, weights []uint32, places int) maglev {
	if places == 0 {
		places = maglevSize
	}
	size := uint64(places)
	type turn struct {
		offset, skip uint64
		share, due   float64
		order        uint64
		index        uint16
	}
	most := float64(slices.Max(weights))
	turns := make([]turn, len(targets))
	for i, t := range targets {
		turns[i] = turn{
			offset: t.hash % size, skip: mix(t.hash)%(size-1) + 1,
			share: float64(weights[i]) / most, order: t.hash, index: uint16(i),
		}
	}
	// Replicas agree whatever order they were told the endpoints in.
	slices.SortFunc(turns, func(a, b turn) int { return cmp.Compare(a.order, b.order) })
	table := make(maglev, places)
	taken := make([]bool, places)
	for left := places; ; {
		for i := range turns {
			t := &turns[i]
			if t.due += t.share; t.due < 1 {
				continue
			}
			t.due--
			at := t.offset
			for taken[at] {
				if at += t.skip; at >= size {
					at -= size
				}
			}
			taken[at], table[at] = true, t.index
			// Where it looks next time; its order has come so far.
			if t.offset = at + t.skip; t.offset >= size {
				t.offset -= size
			}
			if left--; left == 0 {
				return table
			}
		}
	}
}

func (m maglev) pick(hash uint64, try int) int {
	if try > 0 {
		hash = mix(hash + uint64(try))
	}
	return int(m[hash%uint64(len(m))])
}

// prime reports whether n, at least 2, is one.
func prime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n >= 2
}
