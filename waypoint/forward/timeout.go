package forward

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// errRequestTimeout is the cause of an end by the rule's request timeout or the
// client's own deadline, errAttemptTimeout that of one attempt.
var (
	errRequestTimeout = errors.New("no whole response in time")
	errAttemptTimeout = errors.New("no response of the backend in time")
)

// limit bounds a request or an attempt in time. within makes it.
type limit struct {
	ctx    context.Context
	cancel context.CancelFunc // nil where nothing is to be released or ended
	timer  *time.Timer        // of what may become bytes
}

// within returns a context that ends with the cause after d, 0 being without end. What
// may become bytes can lift the limit: its context has no deadline. Without a limit the
// context is ctx itself, unless it must be possible to end it: most requests need none
// of their own.
func within(ctx context.Context, d time.Duration, cause error, bytes, endable bool) (context.Context, limit) {
	var l limit
	switch {
	case d <= 0 && !endable:
	case d <= 0:
		ctx, l.cancel = context.WithCancel(ctx)
	case !bytes:
		ctx, l.cancel = context.WithTimeoutCause(ctx, d, cause)
	default:
		bounded, cancel := context.WithCancelCause(ctx)
		ctx, l.cancel = bounded, func() { cancel(nil) }
		l.timer = time.AfterFunc(d, func() { cancel(cause) })
	}
	l.ctx = ctx
	return ctx, l
}

// cause says what ended it, nil while nothing has.
func (l *limit) cause() error { return context.Cause(l.ctx) }

// lift takes the limit of time away.
func (l *limit) lift() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

// end ends it.
func (l *limit) end() {
	l.lift()
	if l.cancel != nil {
		l.cancel()
	}
}

// timeout is the least of what the rule and a gRPC client allow for the whole; 0 is
// without end.
func (e *exchange) timeout() time.Duration {
	var limit time.Duration
	if e.d.Rule != nil {
		limit = e.d.Rule.RequestTimeout
	}
	if t, ok := grpcTimeout(e.r.Header.Get("grpc-timeout")); ok && (limit == 0 || t < limit) {
		limit = t
	}
	return limit
}

// tellDeadline tells the application how much of the time is left: in gRPC's own field,
// and in Envoy's. An attempt may have less of it than the request.
func (e *exchange) tellDeadline(r *message.Request, policy *upstream.RetryPolicy) {
	left := e.perTry(policy)
	if !e.until.IsZero() {
		if whole := max(time.Millisecond, time.Until(e.until)); left == 0 || whole < left {
			left = whole
		}
		if e.r.Header.Has("grpc-timeout") || isGRPC(r.Header) {
			r.Header.Set("grpc-timeout", grpcTimeoutOf(left))
		}
	}
	if left > 0 {
		r.Header.Set("x-envoy-expected-rq-timeout-ms", strconv.FormatInt(max(1, left.Milliseconds()), 10))
	}
}

// grpcTimeoutOf writes a deadline in at most eight digits, rounded down to the unit.
func grpcTimeoutOf(d time.Duration) string {
	const most = 99_999_999
	switch {
	case d.Microseconds() <= most:
		return strconv.FormatInt(max(1, d.Microseconds()), 10) + "u"
	case d.Milliseconds() <= most:
		return strconv.FormatInt(d.Milliseconds(), 10) + "m"
	}
	return strconv.FormatInt(min(most, int64(d/time.Second)), 10) + "S"
}

// grpcTimeout reads the deadline of a call (gRPC over HTTP/2, "Timeout"). One that has
// passed already is the least there is, and no missing one.
func grpcTimeout(v string) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, true
	}
	return max(time.Duration(n)*unit, 1), true
}
