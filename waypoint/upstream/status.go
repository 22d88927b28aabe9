package upstream

import (
	"net/netip"
	"time"
)

// Status is what a backend looks like at one moment, for operators.
type Status struct {
	Name     string `json:"name"`
	Balancer string `json:"balancer"`
	// Panicking tells that too few targets were left, so that all take part.
	Panicking bool           `json:"panicking,omitempty"`
	Targets   []TargetStatus `json:"targets"`
	Limits    []LimitStatus  `json:"limits"`
	// Ejections counts them by cause, since the start.
	Ejections map[string]uint64 `json:"ejections,omitempty"`
}

// TargetStatus is one endpoint's.
type TargetStatus struct {
	UID      string         `json:"uid,omitempty"`
	Addr     netip.AddrPort `json:"addr"`
	Hostname string         `json:"hostname,omitempty"`
	Weight   uint32         `json:"weight"`
	// Healthy is what the control plane says, Failing what active checks do; Ejected is
	// how long it is still ejected. Serving tells whether it takes part.
	Healthy bool          `json:"healthy"`
	Failing bool          `json:"failing,omitempty"`
	Ejected time.Duration `json:"ejectedNanos,omitempty"`
	Serving bool          `json:"serving"`
	Active  int           `json:"active"`
	// Connections are the open ones, with those being dialled; Idle of them carry
	// nothing.
	Connections int `json:"connections"`
	Idle        int `json:"idle"`
	// Waiting is how many requests wait for a connection.
	Waiting int `json:"waiting,omitempty"`
}

// LimitStatus is one limit's. Max is 0 when there is none.
type LimitStatus struct {
	Limit    string `json:"limit"`
	Active   int64  `json:"active"`
	Max      int64  `json:"max,omitempty"`
	Overflow uint64 `json:"overflow"`
}

// Status describes the backend.
func (b *Backend) Status() Status {
	b.mu.Lock()
	now := b.now()
	if b.set.Load().next <= now {
		b.rebuild(now)
	}
	targets, cfg := b.targets, b.settings.Load()
	out := Status{Name: cfg.Name, Balancer: cfg.Balancer.String(), Panicking: b.set.Load().panicking}
	out.Targets = make([]TargetStatus, len(targets))
	for i, t := range targets {
		e := t.Endpoint()
		s := &out.Targets[i]
		*s = TargetStatus{
			UID: e.UID, Addr: e.Addr, Hostname: e.Hostname, Weight: e.Weight, Healthy: e.Healthy, Failing: t.failing,
			Serving: t.serving.Load(), Active: t.Active(),
		}
		if t.ejectedUntil != 0 {
			s.Ejected = time.Duration(t.ejectedUntil - now)
		}
	}
	b.mu.Unlock()
	for i, t := range targets {
		for p := range t.pools {
			t.pools[p].describe(&out.Targets[i])
		}
	}
	for kind := range b.circuit.gauges {
		out.Limits = append(out.Limits, b.limitStatus(Limit(kind)))
	}
	for cause := range b.ejections {
		if n := b.ejections[cause].Load(); n > 0 {
			if out.Ejections == nil {
				out.Ejections = map[string]uint64{}
			}
			out.Ejections[EjectionCause(cause).String()] = n
		}
	}
	return out
}

func (b *Backend) limitStatus(kind Limit) LimitStatus {
	g := &b.circuit.gauges[kind]
	s := LimitStatus{Limit: kind.String(), Active: g.n.Load(), Max: g.max.Load(), Overflow: g.overflow.Load()}
	if l := b.settings.Load().limiter; kind == Concurrency && l != nil {
		s.Active, s.Max = l.gauge.n.Load(), l.gauge.max.Load()
	}
	if s.Max == unlimited {
		s.Max = 0
	}
	return s
}

func (p *pool) describe(s *TargetStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Connections += p.open
	s.Waiting += len(p.waiting)
	for _, c := range p.free {
		if c.leases == 0 {
			s.Idle++
		}
	}
}
