package ratelimit

import (
	"math/bits"
	"time"
)

// amount is one limit, ready for exact arithmetic. A bucket is measured in units of
// which a request takes cost times unit, and of which refill flow back with each tick:
// both are whole numbers, so nothing is ever rounded but time itself, to the tick.
type amount struct {
	requests, burst uint64
	per             time.Duration

	tick           time.Duration
	refill, unit   uint64
	capacity       uint64 // burst * unit
	ticksNanosOnly bool   // tick is a nanosecond
}

// newAmount takes the finest tick with which a bucket stays within units.
func newAmount(requests uint64, per time.Duration, burst uint64, finest time.Duration, units uint64) amount {
	a := amount{requests: requests, burst: burst, per: per}
	for _, tick := range []time.Duration{time.Nanosecond, time.Microsecond, time.Millisecond, time.Second} {
		if tick < finest {
			continue
		}
		// Rounded up: a limit is rather kept too well.
		whole := uint64((per + tick - 1) / tick)
		g := gcd(whole, requests)
		a.tick, a.unit, a.refill = tick, whole/g, requests/g
		if hi, lo := bits.Mul64(burst, a.unit); hi == 0 && lo <= units {
			a.capacity = lo
			break
		}
	}
	a.ticksNanosOnly = a.tick == time.Nanosecond
	return a
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// at returns the tick of a time in nanoseconds.
func (a *amount) at(now int64) int64 {
	if a.ticksNanosOnly {
		return now
	}
	return now / int64(a.tick)
}

// need is what requests of that cost take; ok is false for what no bucket can hold.
func (a *amount) need(cost uint64) (units uint64, ok bool) {
	hi, lo := bits.Mul64(cost, a.unit)
	if hi != 0 || lo > a.capacity {
		return maxUnits, false
	}
	return lo, true
}

// scaled is a share of units.
func scaled(units uint64, share uint32) uint64 {
	if share == fullShare {
		return units
	}
	hi, lo := bits.Mul64(units, uint64(share))
	return hi<<48 | lo>>16
}

// cell is the state of one bucket: what is taken of it, at a tick.
type cell struct {
	last int64
	debt uint64
}

// debt is what is still taken at a tick.
func (a *amount) debt(c cell, t int64, share uint32) uint64 {
	if c.debt == 0 || t <= c.last {
		return c.debt
	}
	hi, lo := bits.Mul64(uint64(t-c.last), a.refill)
	if hi != 0 {
		return 0
	}
	if lo = scaled(lo, share); lo >= c.debt {
		return 0
	}
	return c.debt - lo
}

// fits reports whether need can be taken. A share of a bucket that is smaller than one
// request still lets one pass when nothing is taken: its replica then waits until that
// has flowed back at the share's pace.
func (a *amount) fits(debt, need uint64, share uint32) bool {
	return debt+need <= scaled(a.capacity, share) || share != fullShare && debt == 0 && need <= a.capacity
}

// wait is how long it takes for units to flow back.
func (a *amount) wait(units uint64, share uint32) time.Duration {
	if units == 0 {
		return 0
	}
	pace := a.refill
	if share != fullShare {
		hi, lo := bits.Mul64(units, fullShare)
		if share == 0 || hi >= uint64(share) {
			return a.per
		}
		units, _ = bits.Div64(hi, lo, uint64(share))
	}
	ticks := (units + pace - 1) / pace
	if ticks > uint64(1<<62)/uint64(a.tick) {
		return 1 << 62
	}
	return time.Duration(ticks) * a.tick
}

// cutTo returns the debt under another share. What was left of the old share's bucket is
// left, if the new one holds it, and nothing is added: shares that move between
// replicas bring no requests into being.
func (a *amount) cutTo(debt uint64, was, is uint32) uint64 {
	old, capacity := scaled(a.capacity, was), scaled(a.capacity, is)
	if debt >= old {
		return capacity + (debt - old)
	}
	return capacity - min(old-debt, capacity)
}
