package ratelimit

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Filter narrows a Status. Its zero value has all rules, and of each the busiest keys.
type Filter struct {
	// Policy is "namespace/name", or "namespace/"; empty is all.
	Policy string
	// Rule is a rule's name; empty is all.
	Rule string
	// Keys of each rule at most; 0 is 20.
	Keys int
}

// Status is what is counted, for operators.
type Status struct {
	// Keys that are counted in memory, of MaxKeys at most.
	Keys    int          `json:"keys"`
	MaxKeys int          `json:"maxKeys"`
	Rules   []RuleStatus `json:"rules"`
}

// RuleStatus is one rule of a policy.
type RuleStatus struct {
	Policy string `json:"policy"`
	Rule   string `json:"rule"`
	// Backend is local, leases, redis or rateLimitService.
	Backend string `json:"backend"`
	Shadow  bool   `json:"shadow,omitempty"`
	// Fault is why nothing is counted.
	Fault string `json:"fault,omitempty"`
	// FailureMode is what becomes of requests that are not counted, open or closed.
	FailureMode string `json:"failureMode"`
	// Problem is why the backend does not count now, ProblemAt when that was seen last;
	// empty when it does, or was not asked yet.
	Problem   string        `json:"problem,omitempty"`
	ProblemAt time.Time     `json:"problemAt,omitzero"`
	Limits    []LimitStatus `json:"limits,omitempty"`
	// Parts of the key.
	Parts []string `json:"parts,omitempty"`
	// Share of the limits in 65,536ths, of leases.
	Share     uint32      `json:"share,omitempty"`
	Decisions Decisions   `json:"decisions"`
	Keys      []KeyStatus `json:"keys,omitempty"`
}

// LimitStatus is one limit.
type LimitStatus struct {
	Requests uint64 `json:"requests"`
	Per      string `json:"per"`
	Burst    uint64 `json:"burst"`
}

// Decisions count requests.
type Decisions struct {
	Allowed       uint64 `json:"allowed"`
	Limited       uint64 `json:"limited"`
	ShadowLimited uint64 `json:"shadowLimited,omitempty"`
	FailedOpen    uint64 `json:"failedOpen,omitempty"`
	FailedClosed  uint64 `json:"failedClosed,omitempty"`
}

// KeyStatus is one key that is counted in memory.
type KeyStatus struct {
	// Key is the values of the rule's parts.
	Key     []string `json:"key"`
	Allowed uint64   `json:"allowed"`
	Limited uint64   `json:"limited"`
	// Share in 65,536ths, of leases.
	Share uint32 `json:"share,omitempty"`
	// Remaining of each limit, of this replica's share, and seconds until it is full.
	Remaining []uint64  `json:"remaining"`
	Reset     []float64 `json:"reset"`
}

// Status tells what is counted.
func (l *Limiter) Status(f Filter) Status {
	if f.Keys <= 0 {
		f.Keys = 20
	}
	l.mu.Lock()
	policies := slices.SortedFunc(maps.Values(l.policies), func(a, b *Policy) int { return cmp.Compare(a.name, b.name) })
	l.mu.Unlock()
	out := Status{Keys: l.keys.Len(), MaxKeys: l.keys.limit * shards, Rules: []RuleStatus{}}
	for _, p := range policies {
		if f.Policy != "" && p.name != f.Policy && !(strings.HasSuffix(f.Policy, "/") && strings.HasPrefix(p.name, f.Policy)) {
			continue
		}
		if p.fault != nil {
			out.Rules = append(out.Rules, RuleStatus{Policy: p.name, Fault: p.fault.Error(), FailureMode: p.failureMode()})
			continue
		}
		for _, r := range p.rules {
			if f.Rule == "" || f.Rule == r.name {
				out.Rules = append(out.Rules, l.statusOf(r, f.Keys))
			}
		}
	}
	return out
}

func (p *Policy) failureMode() string {
	if p.failOpen {
		return "open"
	}
	return "closed"
}

func (l *Limiter) statusOf(r *rule, keys int) RuleStatus {
	s := RuleStatus{
		Policy: r.policy.name, Rule: r.name, Backend: "local", Shadow: r.shadow, FailureMode: r.policy.failureMode(),
		Decisions: Decisions{
			Allowed: read(r.metrics.allowed), Limited: read(r.metrics.limited), ShadowLimited: read(r.metrics.shadowed),
			FailedOpen: read(r.metrics.open), FailedClosed: read(r.metrics.closed),
		},
	}
	for i := range r.parts {
		s.Parts = append(s.Parts, r.parts[i].label())
	}
	for _, a := range r.amounts {
		s.Limits = append(s.Limits, LimitStatus{Requests: a.requests, Per: a.per.String(), Burst: a.burst})
	}
	switch {
	case r.leased:
		s.Backend, s.Share = "leases", r.share.rest.Load()
	case r.remotely():
		s.Backend = r.policy.remote.kind()
		if f := r.policy.remote.trouble(); f != nil {
			s.Problem, s.ProblemAt = f.err.Error(), f.at
		}
		return s
	}
	s.Keys = l.keys.busiest(l.now(), r.Counter, keys)
	return s
}

func read(c prometheus.Counter) uint64 {
	var m dto.Metric
	if c.Write(&m) != nil {
		return 0
	}
	return uint64(m.GetCounter().GetValue())
}

// busiest returns the keys of a counter with the most requests.
func (k *Keys) busiest(now int64, c *Counter, most int) []KeyStatus {
	var out []KeyStatus
	order := func(a, b KeyStatus) int {
		return cmp.Or(cmp.Compare(b.Limited, a.Limited), cmp.Compare(b.Allowed, a.Allowed), slices.Compare(a.Key, b.Key))
	}
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		for _, e := range s.ring {
			if e.rule == c {
				out = append(out, e.status(now))
			}
		}
		s.mu.Unlock()
		if len(out) > 4*most {
			slices.SortFunc(out, order)
			out = out[:most]
		}
	}
	slices.SortFunc(out, order)
	return out[:min(len(out), most)]
}

func (e *entry) status(now int64) KeyStatus {
	share := e.share
	if e.rule.leased {
		share = e.adjust(now)
	}
	s := KeyStatus{Key: e.rule.values(e.key), Allowed: e.admitted, Limited: e.refused}
	if e.rule.leased {
		s.Share = share
	}
	for i := range e.cells {
		a := &e.rule.amounts[i]
		var out Outcome
		a.tell(a.debt(e.cells[i], a.at(now), share), share, &out)
		s.Remaining = append(s.Remaining, out.Remaining)
		s.Reset = append(s.Reset, float64(out.Reset)/float64(time.Second))
	}
	return s
}
