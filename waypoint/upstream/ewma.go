package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

// ewma is a peak-sensitive average of latencies that forgets with time (Finagle's
// "peak EWMA"): it jumps to a worse value and comes back slowly. One word holds the
// average in microseconds as a float32 and when it was set, in milliseconds of the
// backend's clock, so that reading it takes no lock. The stamp wraps after 49 days;
// a target that was quiet for so long is taken for one that answered lately.
type ewma struct{ word atomic.Uint64 }

func packEWMA(micros float32, ms uint32) uint64 {
	return uint64(math.Float32bits(micros))<<32 | uint64(ms)
}

func unpackEWMA(w uint64) (float32, uint32) {
	return math.Float32frombits(uint32(w >> 32)), uint32(w)
}

func millis(now int64) uint32 { return uint32(now / int64(time.Millisecond)) }

// decayed is what is left of a value after some milliseconds: half of it after each
// decay·ln 2. 2^-x is made from the bits of a float by a straight line between the
// powers, at most 6 % off, which is far below the noise of latencies; math.Exp
// would cost more than the rest of the choice.
func decayed(v float32, ms uint32, decay float32) float32 {
	x := float32(ms) * decay
	if x >= 100 {
		return 0
	}
	whole := int32(x)
	part := x - float32(whole)
	return v * (1 - part/2) * math.Float32frombits(uint32(127-whole)<<23)
}

// perMilli turns a decay time into halvings per millisecond.
func perMilli(decay time.Duration) float32 {
	return float32(math.Log2E / (float64(decay) / float64(time.Millisecond)))
}

func (e *ewma) observe(latency time.Duration, now int64, decay float32) {
	micros := max(1, float32(latency)/float32(time.Microsecond))
	ms := millis(now)
	for {
		old := e.word.Load()
		v, at := unpackEWMA(old)
		next := micros
		if v > 0 && micros < v {
			// The weight of the old value is what is left of 1 since then. Within one
			// millisecond nothing is forgotten, so the smallest step counts as one.
			keep := decayed(1, max(1, ms-at), decay)
			next = v*keep + micros*(1-keep)
		}
		if e.word.CompareAndSwap(old, packEWMA(next, ms)) {
			return
		}
	}
}

// unknownCost is that of a call at a target which has not answered any yet, in
// microseconds: one call is let through to find out, more only when all others are
// worse than a second.
const unknownCost = 1e6

// costs are what another call is expected to take at each of two targets, in
// microseconds: the average times the calls that would then be under way. What both
// have forgotten since the later of their answers would not change which is less, so
// no clock is read.
func costs(a, b *ewma, activeA, activeB int32, decay float32) (float32, float32) {
	va, atA := unpackEWMA(a.word.Load())
	vb, atB := unpackEWMA(b.word.Load())
	if d := int32(atB - atA); d > 0 {
		va = decayed(va, uint32(d), decay)
	} else {
		vb = decayed(vb, uint32(-d), decay)
	}
	return cost(va, activeA), cost(vb, activeB)
}

func cost(v float32, active int32) float32 {
	if v == 0 {
		return unknownCost * float32(active)
	}
	return v * float32(active+1)
}
