package forward

import (
	"context"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
)

// The words of Envoy's %RESPONSE_FLAGS% for rate limits.
const (
	flagRateLimited    = "RL"
	flagRateLimitError = "RLSE"
)

// rations is what a request's limits came to. Its zero value is that of one without.
type rations struct {
	ticket  *ratelimit.Ticket
	verdict *ratelimit.Verdict
	// token that the request carries, for keys of its claims.
	token *jwt.Token
}

// ration counts the request, and lets it go on if no limit stands against it.
func (e *exchange) ration(ctx context.Context) bool {
	names := e.svc.RateLimits
	var own []string
	if e.d.Rule != nil {
		own = e.d.Rule.RateLimits
	}
	if len(names)+len(own) == 0 {
		return true
	}
	m := e.f.cfg.Mesh
	t := m.Limiter().Ticket()
	q := ratelimit.Request{Message: e.r, Peer: e.c.Peer, Source: e.c.Source.Addr()}
	if e.rations.token != nil {
		q.Token = e.rations.token
	}
	collect(m, t, names, nil, &q)
	collect(m, t, own, names, &q)
	v := t.Decide(ctx)
	e.rations.ticket, e.rations.verdict = t, v
	if v.Err != nil {
		e.f.log.Debug("request could not be counted", zap.Error(v.Err))
	}
	if v.Allowed {
		if v.Shadow != "" {
			e.rec.Shadow = v.Shadow
		}
		return true
	}
	if e.rec.Limit = v.Policy; v.Rule != "" {
		e.rec.Limit += "/" + v.Rule
	}
	if v.Failed {
		e.rec.Err = v.Err
		e.reply(reply{status: 503, flag: flagRateLimitError, text: "the request could not be counted"})
		return false
	}
	e.reply(reply{status: 429, flag: flagRateLimited, text: "too many requests", grpc: grpcResourceExhausted})
	return false
}

// collect shows the ticket to the policies of these names that are not among others. The
// control plane sends limits before what lists them: one that is not here was rejected,
// and nobody knows what it allows.
func collect(m *mesh.Mesh, t *ratelimit.Ticket, names, others []string, q *ratelimit.Request) {
next:
	for _, name := range names {
		for _, other := range others {
			if name == other {
				continue next
			}
		}
		if p := m.RateLimit(name); p != nil {
			t.Count(p, q)
		} else {
			t.Missing(name)
		}
	}
}

// rationed tells the client of its limits, and counts what the response costs.
func (e *exchange) rationed(r *message.Response) {
	if e.rations.ticket == nil || r.Interim() {
		return
	}
	e.rations.verdict.Fields(&r.Header)
	if e.rations.verdict.Allowed {
		e.rations.ticket.Answered(r.Header)
	}
}

// spent ends the request's way past its limits.
func (e *exchange) spent() {
	if t := e.rations.ticket; t != nil {
		if e.rations.verdict.Allowed {
			t.Answered(nil) // where no response came
		}
		e.rations = rations{}
		t.Release()
	}
}
