package upstream

import (
	"fmt"
	"sync/atomic"
)

// CircuitLimits bound what is under way at a backend, over all of its targets. 0 is
// no limit.
type CircuitLimits struct {
	// Connections that are open or being opened.
	Connections int
	// Pending are requests that wait for a connection, or for one to be opened.
	Pending int
	// Requests are those under way, retries included once.
	Requests int
	// Retries are those under way at the same time.
	Retries int
}

// Limit is one of the circuit's.
type Limit uint8

// The limits.
const (
	Connections Limit = iota
	Pending
	Requests
	Retries
	// Concurrency is what adaptive concurrency allows.
	Concurrency
	limitKinds
)

func (l Limit) String() string {
	return [...]string{"connections", "pending requests", "requests", "retries", "adaptive concurrency"}[l]
}

// OverflowError says that a limit was reached, and so nothing was sent. It answers
// 503.
type OverflowError struct {
	Backend string
	Limit   Limit
}

func (e *OverflowError) Error() string {
	return fmt.Sprintf("%s: the limit of %s is reached", e.Backend, e.Limit)
}

// unlimited is the bound of a gauge without one.
const unlimited = 1<<63 - 1

// circuit counts what is under way.
type circuit struct {
	gauges [limitKinds]gauge
}

func (c *circuit) limit(l CircuitLimits) {
	for kind, most := range map[Limit]int{Connections: l.Connections, Pending: l.Pending, Requests: l.Requests, Retries: l.Retries} {
		c.gauges[kind].max.Store(unlimited)
		if most > 0 {
			c.gauges[kind].max.Store(int64(most))
		}
	}
	c.gauges[Concurrency].max.Store(unlimited)
}

// gauge is a bounded count.
type gauge struct {
	n, max   atomic.Int64
	overflow atomic.Uint64
}

// acquire counts one more unless there are max: no two of those who ask at the same
// time are both refused for the last place.
func (g *gauge) acquire() bool {
	for {
		n := g.n.Load()
		if n >= g.max.Load() {
			g.overflow.Add(1)
			return false
		}
		if g.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *gauge) release() { g.n.Add(-1) }

// Permit is a place within a limit. It must be released. The zero value is none, and
// may be released.
type Permit struct {
	first, second *gauge
}

// Release gives the place back. It may be called more than once.
func (p *Permit) Release() {
	if p.first != nil {
		p.first.release()
	}
	if p.second != nil {
		p.second.release()
	}
	*p = Permit{}
}

// Request asks for a place for a request, for all of its attempts. priority matters
// only with adaptive concurrency: the less important are refused first. The error is
// an *OverflowError.
func (b *Backend) Request(priority Priority) (Permit, error) {
	g := &b.circuit.gauges[Requests]
	if !g.acquire() {
		return Permit{}, &OverflowError{b.Name(), Requests}
	}
	p := Permit{first: g}
	s := b.settings.Load()
	if s.limiter != nil {
		if !s.limiter.acquire(priority) {
			p.Release()
			b.circuit.gauges[Concurrency].overflow.Add(1)
			return Permit{}, &OverflowError{b.Name(), Concurrency}
		}
		p.second = &s.limiter.gauge
	}
	s.budget.request(b.now())
	return p, nil
}

// Connection asks for a place for a connection that no pool holds: bytes of TCP or TLS.
// The error is an *OverflowError.
func (b *Backend) Connection() (Permit, error) {
	g := &b.circuit.gauges[Connections]
	if !g.acquire() {
		return Permit{}, &OverflowError{b.Name(), Connections}
	}
	return Permit{first: g}, nil
}

// Retry asks for a place for a retry: within the circuit's limit and the budget. The
// error is an *OverflowError, or an ErrBudget.
func (b *Backend) Retry() (Permit, error) {
	g := &b.circuit.gauges[Retries]
	if !g.acquire() {
		return Permit{}, &OverflowError{b.Name(), Retries}
	}
	if !b.settings.Load().budget.retry(b.now()) {
		g.release()
		return Permit{}, ErrBudget
	}
	return Permit{first: g}, nil
}
