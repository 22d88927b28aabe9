package forward

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// errAborted is the cause of a request's end that somebody asked for.
var errAborted = errors.New("a fault was injected")

// inject does to the request what faults of the rule and the backend say. It comes
// before any limit or time is taken up: a request that is held up costs nobody a place.
func (e *exchange) inject(ctx context.Context) bool {
	if e.d.Rule == nil {
		return true
	}
	return e.injectAll(ctx, e.d.Rule.Filters) && (e.b == nil || e.injectAll(ctx, e.b.Filters))
}

func (e *exchange) injectAll(ctx context.Context, filters route.Filters) bool {
	for i := range filters {
		if f := filters[i].Fault; f != nil && f.Hits(e.r) && !e.injectOne(ctx, f) {
			return false
		}
	}
	return true
}

func (e *exchange) injectOne(ctx context.Context, f *route.Fault) bool {
	if d := f.Delay; d != nil && d.Picks(rand.Uint64()) {
		e.rec.Flag, e.rec.Detail = flagDelayed, f.Name
		if !sleep(ctx, d.Duration) {
			cause := context.Cause(ctx)
			e.rec.fail(flagDownstream, cause)
			e.x.Abort(cause)
			return false
		}
	}
	a := f.Abort
	if a == nil || !a.Picks(rand.Uint64()) {
		return true
	}
	e.rec.Detail = f.Name
	if a.Reset {
		e.rec.Flag, e.rec.Err = flagAborted, errAborted
		// INTERNAL_ERROR (RFC 9113, 7)
		e.x.Abort(&message.ResetError{Code: 2})
		return false
	}
	r := reply{status: a.Status, flag: flagAborted, text: "fault filter abort", grpc: max(0, a.GRPC)}
	if a.Status == 0 {
		r.status = upstream.HTTPStatus(a.GRPC)
	}
	e.reply(r)
	return false
}
