package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Ticket is one request's way past its limits: Count for each of its policies, then
// Decide, Answered with the response, and Release.
type Ticket struct {
	limiter *Limiter
	buckets []bucket
	room    []byte
	lists   []*bucket
	failed  *Policy
	verdict Verdict
}

// bucket is what one rule counts of the request.
type bucket struct {
	rule        *rule
	key         []byte
	least, cost uint64
	after       bool // the cost comes with the response
	out         Outcome
	taken       bool
	asked       bool // a remote backend was
	unknown     bool // could not be counted
}

// Verdict is what all rules together decided.
type Verdict struct {
	Outcome
	// Policy and Rule decided: of a refusal the one that asks for the longest wait, else
	// the one with the least left. Empty when no rule counts the request.
	Policy, Rule string
	// Failed tells that the request is refused because it could not be counted.
	Failed bool
	// Shadow is a rule that would have refused, "policy/rule", and is not enforced.
	Shadow string
	// Err is why something could not be counted, whatever became of the request.
	Err error
}

// Ticket returns an empty one.
func (l *Limiter) Ticket() *Ticket { return l.tickets.Get().(*Ticket) }

var errMissing = errors.New("the policy was rejected, or has not come yet")

// Release ends the use of a ticket.
func (t *Ticket) Release() {
	if cap(t.room) > 64<<10 {
		t.room = nil
	}
	clear(t.buckets)
	t.buckets, t.room, t.lists, t.failed, t.verdict = t.buckets[:0], t.room[:0], t.lists[:0], nil, Verdict{}
	t.limiter.tickets.Put(t)
}

// Count adds a policy of the request.
func (t *Ticket) Count(p *Policy, q *Request) {
	if p.fault != nil {
		if t.failed == nil || t.failed.failOpen && !p.failOpen {
			t.failed = p
		}
		return
	}
	for _, r := range p.rules {
		if !r.fits(q) {
			continue
		}
		start := len(t.room)
		room, ok := r.appendKey(t.room, q)
		t.room = room
		if !ok {
			continue
		}
		b := bucket{rule: r}
		b.least, b.after = r.cost.of(q)
		if b.cost = b.least; b.after {
			b.least, b.cost = 1, 0
		}
		b.key = room[start:]
		t.buckets = append(t.buckets, b)
	}
}

// Missing adds the policy "namespace/name", which applies and is not known: the request
// could not be counted, and what it says of that is not known either, so it is refused.
func (t *Ticket) Missing(name string) { t.failed = &Policy{name: name, fault: errMissing} }

// Decide takes what the request costs, of all that enforce or of none. It blocks no
// longer than the policies' timeouts.
func (t *Ticket) Decide(ctx context.Context) *Verdict {
	v := &t.verdict
	v.Allowed = true
	if t.failed != nil {
		v.Err = fmt.Errorf("%s: %w", t.failed.name, t.failed.fault)
		if !t.failed.failOpen {
			v.Allowed, v.Failed, v.Policy = false, true, t.failed.name
			return v
		}
	}
	if len(t.buckets) == 0 {
		return v
	}
	now, refused := t.limiter.now(), false
	for i := range t.buckets {
		b := &t.buckets[i]
		if b.rule.remotely() {
			continue
		}
		b.taken = t.limiter.keys.take(now, b.rule.Counter, b.key, b.least, b.cost, &b.out)
		refused = refused || !b.taken && !b.rule.shadow
	}
	if !refused {
		t.ask(ctx)
	}
	t.judge()
	if !v.Allowed {
		t.giveBack()
	}
	t.count()
	return v
}

func (r *rule) remotely() bool { return r.policy.remote != nil && !r.local }

// ask has the other backends count, one after the other. Rules that enforce are asked
// together, for they are all or none; those in shadow one by one, and only about a request
// that passes.
func (t *Ticket) ask(ctx context.Context) {
	for _, shadow := range []bool{false, true} {
		for i := range t.buckets {
			if b := &t.buckets[i]; b.rule.remotely() && b.rule.shadow == shadow && !b.asked && !t.askFrom(ctx, i) {
				return
			}
		}
	}
}

// askFrom asks the backend of the bucket i, also about those that follow and are counted
// there, and reports whether the request may still pass.
func (t *Ticket) askFrom(ctx context.Context, i int) bool {
	first := &t.buckets[i]
	t.lists = t.lists[:0]
	timeout := first.rule.policy.timeout
	for j := i; j < len(t.buckets); j++ {
		b := &t.buckets[j]
		if b.asked || !b.rule.remotely() || b.rule.policy.remote != first.rule.policy.remote || b.rule.shadow != first.rule.shadow {
			continue
		}
		t.lists, b.asked = append(t.lists, b), true
		timeout = min(timeout, b.rule.policy.timeout)
		if b.rule.shadow {
			break
		}
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	err := first.rule.policy.remote.take(bounded, t.lists)
	cancel()
	if ctx.Err() == nil { // else it is the client that has gone
		first.rule.policy.remote.note(err)
	}
	if err != nil {
		// Whoever else counts there is not waited for once more.
		for j := range t.buckets {
			if b := &t.buckets[j]; !b.asked && b.rule.remotely() && b.rule.policy.remote == first.rule.policy.remote {
				t.lists, b.asked = append(t.lists, b), true
			}
		}
	}
	refused := false
	for _, b := range t.lists {
		if err != nil {
			b.unknown, b.out, t.verdict.Err = true, Outcome{}, fmt.Errorf("%s: %w", b.rule.policy.name, err)
			continue
		}
		b.taken = b.out.Allowed
		refused = refused || !b.taken && !b.rule.shadow
	}
	return !refused
}

// judge makes the verdict of what the buckets say.
func (t *Ticket) judge() {
	v := &t.verdict
	nearest := math.Inf(1)
	var wait time.Duration = -1
	for i := range t.buckets {
		b := &t.buckets[i]
		switch {
		case b.unknown:
			if b.rule.shadow || b.rule.policy.failOpen {
				continue
			}
			v.Allowed = false
			if wait < 0 {
				v.Failed, v.Policy, v.Rule = true, b.rule.policy.name, b.rule.name
			}
		case b.taken:
			left := float64(b.out.Remaining) / float64(b.out.Limit)
			if v.Allowed && !b.rule.shadow && left < nearest {
				nearest, v.Outcome, v.Policy, v.Rule = left, b.out, b.rule.policy.name, b.rule.name
			}
		case b.out.Limit == 0: // nobody was asked any more
		case b.rule.shadow:
			v.Shadow = b.rule.policy.name + "/" + b.rule.name
		case b.out.RetryAfter > wait:
			wait = b.out.RetryAfter
			v.Outcome, v.Policy, v.Rule, v.Failed = b.out, b.rule.policy.name, b.rule.name, false
		}
	}
}

// giveBack returns what was taken for a request that is refused.
func (t *Ticket) giveBack() {
	for i := range t.buckets {
		b := &t.buckets[i]
		switch {
		case !b.taken:
		case !b.rule.remotely():
			t.limiter.keys.give(b.rule.Counter, b.key, b.cost)
		default:
			if back, ok := b.rule.policy.remote.(interface{ give([]charge) }); ok {
				back.give([]charge{{b.rule, string(b.key), b.cost}})
			}
		}
	}
}

// count tells of the decisions.
func (t *Ticket) count() {
	for i := range t.buckets {
		b := &t.buckets[i]
		m := &b.rule.metrics
		switch {
		case b.unknown && (b.rule.policy.failOpen || b.rule.shadow):
			m.open.Inc()
		case b.unknown:
			m.closed.Inc()
		case b.taken:
			m.allowed.Inc()
		case b.out.Limit == 0:
		case b.rule.shadow:
			m.shadowed.Inc()
		default:
			m.limited.Inc()
		}
	}
}

// Answered takes the costs that the response tells. It does not wait for backends.
func (t *Ticket) Answered(h message.Header) {
	for i := range t.buckets {
		b := &t.buckets[i]
		if !b.after || b.unknown {
			continue
		}
		b.after = false
		cost := parseCost(h, b.rule.cost.responseHeader, b.rule.cost.otherwise)
		if b.rule.remotely() {
			b.rule.policy.remote.charge([]charge{{b.rule, string(b.key), cost}})
		} else {
			t.limiter.keys.charge(t.limiter.now(), b.rule.Counter, b.key, cost)
		}
	}
}
