package upstream

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
)

// Balancer is a way to share requests among targets.
type Balancer uint8

// The balancers. The zero value is LeastRequest, which is right for most.
const (
	// LeastRequest takes the less busy of two that are drawn by weight (power of two
	// choices).
	LeastRequest Balancer = iota
	// RoundRobin takes one after another, in proportion to their weights.
	RoundRobin
	// Random draws by weight.
	Random
	// PeakEWMA takes the one of two that is expected to answer earlier.
	PeakEWMA
	// RingHash and Maglev send equal keys to the same target. Maglev is quicker and
	// more even; the ring moves fewer keys when targets come and go.
	RingHash
	Maglev
)

var balancerNames = [...]string{"least-request", "round-robin", "random", "peak-ewma", "ring-hash", "maglev"}

func (b Balancer) String() string {
	if int(b) < len(balancerNames) {
		return balancerNames[b]
	}
	return fmt.Sprintf("Balancer(%d)", uint8(b))
}

// hashed tells the balancers that choose by a key.
func (b Balancer) hashed() bool { return b == RingHash || b == Maglev }

// picker chooses among the targets of a tier; it returns an index. try counts from 0
// for one request: the next may be, and from hashed ones is, another target.
type picker interface {
	pick(hash uint64, try int) int
}

// randomPicker draws by weight: alias is nil when all weights are equal.
type randomPicker struct {
	n     uint32
	alias aliasTable
}

func (p *randomPicker) pick(uint64, int) int { return p.alias.draw(p.n) }

// aliasTable draws by weight in constant time (Vose's alias method).
type aliasTable []aliasEntry

type aliasEntry struct {
	// keep is the part of 1<<32 that stays; the rest goes to other.
	keep  uint32
	other uint32
}

func equal(weights []uint32) bool {
	for _, w := range weights {
		if w != weights[0] {
			return false
		}
	}
	return true
}

func newAlias(weights []uint32) aliasTable {
	if equal(weights) {
		return nil
	}
	n := len(weights)
	var sum float64
	for _, w := range weights {
		sum += float64(w)
	}
	scaled := make([]float64, n)
	table := make(aliasTable, n)
	var small, large []int
	for i, w := range weights {
		scaled[i] = float64(w) * float64(n) / sum
		table[i] = aliasEntry{keep: 1<<32 - 1, other: uint32(i)}
		if scaled[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		table[s] = aliasEntry{keep: uint32(scaled[s] * (1<<32 - 1)), other: uint32(l)}
		scaled[l] -= 1 - scaled[s]
		if scaled[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	return table
}

// draw returns one of n, by the table's weights if there is one.
func (a aliasTable) draw(n uint32) int {
	r := rand.Uint64()
	i := uint32(uint64(uint32(r>>32)) * uint64(n) >> 32)
	if a == nil {
		return int(i)
	}
	if uint32(r) > a[i].keep {
		i = a[i].other
	}
	return int(i)
}

// leastPicker draws two and takes the better one.
type leastPicker struct {
	targets []*Target
	weights []uint32 // nil when all are equal
	alias   aliasTable
	ewma    bool
	decay   float32
}

func (p *leastPicker) pick(uint64, int) int {
	n := uint32(len(p.targets))
	if n == 1 {
		return 0
	}
	var a, b int
	if p.alias == nil {
		// Without weights, the second is drawn among the others.
		r := rand.Uint64()
		a, b = int((r>>32)*uint64(n)>>32), int((r&(1<<32-1))*uint64(n-1)>>32)
		if b >= a {
			b++
		}
	} else {
		a = p.alias.draw(n)
		for range redraws {
			if b = p.alias.draw(n); b != a {
				break
			}
		}
	}
	ca, cb := p.cost(a, b)
	if p.weights != nil {
		ca, cb = ca/float32(p.weights[a]), cb/float32(p.weights[b])
	}
	if cb < ca {
		return b
	}
	return a
}

func (p *leastPicker) cost(a, b int) (float32, float32) {
	ta, tb := p.targets[a], p.targets[b]
	if p.ewma {
		return costs(&ta.ewma, &tb.ewma, ta.active.Load(), tb.active.Load(), p.decay)
	}
	return float32(ta.active.Load() + 1), float32(tb.active.Load() + 1)
}

// roundRobin goes around. Its place survives changes of the set, so that a set that
// changes often does not begin with the same target each time.
type roundRobin struct {
	place *atomic.Uint64
	n     uint64
	// shares are the weights scaled to stride, nil when all are equal. In each round
	// a target is passed over unless its share, added up round by round, has reached
	// another stride (gRPC's "static stride scheduler"): exact over stride rounds, and
	// no state but the place.
	shares []uint64
}

func newRoundRobin(place *atomic.Uint64, weights []uint32) *roundRobin {
	p := &roundRobin{place: place, n: uint64(len(weights))}
	if equal(weights) {
		return p
	}
	var most uint32
	for _, w := range weights {
		most = max(most, w)
	}
	p.shares = make([]uint64, len(weights))
	for i, w := range weights {
		p.shares[i] = max(1, uint64(w)*stride/uint64(most))
	}
	return p
}

func (p *roundRobin) pick(uint64, int) int {
	for {
		place := p.place.Add(1)
		i, round := place%p.n, place/p.n
		if p.shares == nil {
			return int(i)
		}
		// Each target starts elsewhere, so that light ones do not come in one burst.
		if (p.shares[i]*round+i*(stride/2))%stride >= stride-p.shares[i] {
			return int(i)
		}
	}
}
