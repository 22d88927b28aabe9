package outbound

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
	"github.com/tulle-mesh/tulle/ztunnel/inbound"
	"github.com/tulle-mesh/tulle/ztunnel/nexthop"
)

const (
	// maxAttempts is how many next hops are tried for one connection: while a
	// Deployment is rolled, the second one may have ended a moment ago, too. More
	// would make an outage of all endpoints worse.
	maxAttempts = 3
	// slowAttempt is how long an endpoint may take to be connected before another one
	// is tried, if there is one: time for a SYN and one that repeats it after 1 s. What
	// ConnectTimeout leaves is the last one's.
	slowAttempt = 2 * time.Second
)

// errSlow ends an attempt that another endpoint may do better.
var errSlow = fmt.Errorf("not connected within %v", slowAttempt)

// attempts connects to the next hop d and, when that fails, to others. An endpoint
// may have ended a moment ago, or be known to have joined or left the mesh only
// now. No byte of the client has been read until a next hop is connected, so
// nothing can be done twice by it.
func (p *Proxy) attempts(ctx context.Context, c *conntrack.Connection, d nexthop.Decision) (carrier, error) {
	var avoid []string
	for attempt := 1; ; attempt++ {
		if d.Workload != nil {
			avoid = append(avoid, d.Workload.UID)
		}
		if attempt == maxAttempts {
			return p.try(ctx, c, d)
		}
		carry, err := p.patiently(ctx, c, d, avoid)
		if err == nil || !elsewhere(err) || ctx.Err() != nil {
			return carry, err
		}
		next, ok := p.another(c, d, avoid)
		if !ok {
			return nil, err
		}
		if c.Retried == nil {
			c.Retried = err
		} else {
			c.Retried = fmt.Errorf("%w; %w", c.Retried, err)
		}
		describe(c, next)
		d = next
	}
}

// patiently is try, ended early when it takes long and there is another next hop.
func (p *Proxy) patiently(ctx context.Context, c *conntrack.Connection, d nexthop.Decision, avoid []string) (carrier, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	seen := *c // try writes to c
	timer := time.AfterFunc(slowAttempt, func() {
		if _, ok := p.another(&seen, d, avoid); ok {
			cancel(errSlow)
		}
	})
	defer timer.Stop()
	return p.try(ctx, c, d)
}

// another chooses a next hop after d has failed, and what avoid names. There is none
// when the mesh has no other choice than d.
func (p *Proxy) another(c *conntrack.Connection, d nexthop.Decision, avoid []string) (nexthop.Decision, bool) {
	next := p.cfg.Mesh.Decide(nexthop.Input{Source: c.SrcWorkload, Dest: c.OriginalDst, Avoid: avoid})
	// The same address may be another endpoint's by now.
	same := next.Kind == d.Kind && next.Target == d.Target && (next.Workload == nil || sameWorkload(d, next))
	if next.Kind == nexthop.Deny || same {
		return nexthop.Decision{}, false
	}
	// Who can break tunnels must not be able to choose plaintext by it: a tunnel is
	// given up for that only when the control plane says so of the same workload.
	return next, next.Kind.Tunnelled() || !d.Kind.Tunnelled() || sameWorkload(d, next)
}

func sameWorkload(d, next nexthop.Decision) bool {
	return d.Workload != nil && next.Workload != nil && d.Workload.UID == next.Workload.UID
}

// elsewhere tells whether a connection that failed with err may do better at
// another endpoint: when this one could not be reached, proved to be somebody
// else, or could not reach its application. What was denied is denied.
func elsewhere(err error) bool {
	var dial *DialError
	var status *hbone.StatusError
	var local *inbound.Refusal
	switch {
	case errors.As(err, &dial):
		return true
	case errors.As(err, &status):
		return status.Status == 503
	case errors.As(err, &local):
		return local.Status == 503
	}
	return false
}
