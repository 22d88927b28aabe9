package forward

import (
	"context"
	"errors"

	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// errRationed is why a connection that its limits do not allow leads nowhere.
var errRationed = errors.New("too many connections in too short a time")

// ration counts a connection that is carried as bytes, as one request. What is known of
// requests alone, a rule does not find.
func (b *Bytes) ration(ctx context.Context, m *mesh.Mesh, svc *mesh.Service, rule *route.Rule) error {
	var own []string
	if rule != nil {
		own = rule.RateLimits
	}
	if len(svc.RateLimits)+len(own) == 0 {
		return nil
	}
	t := m.Limiter().Ticket()
	defer t.Release()
	q := ratelimit.Request{Peer: b.rec.Client.Peer, Source: b.rec.Client.Source.Addr()}
	collect(m, t, svc.RateLimits, nil, &q)
	collect(m, t, own, svc.RateLimits, &q)
	v := t.Decide(ctx)
	if v.Allowed {
		if v.Shadow != "" {
			b.rec.Shadow = v.Shadow
		}
		return nil
	}
	if b.rec.Limit = v.Policy; v.Rule != "" {
		b.rec.Limit += "/" + v.Rule
	}
	if v.Failed {
		b.rec.Flag = flagRateLimitError
		return v.Err
	}
	b.rec.Flag = flagRateLimited
	return errRationed
}
