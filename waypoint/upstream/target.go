package upstream

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"
)

// Target is an endpoint and what this waypoint knows about it. It is the same one
// for as long as its endpoint is, whatever the control plane says of weight and
// health. It is safe for concurrent use.
type Target struct {
	// What balancers read of every target that they draw comes first, on one cache line.

	// active is how many calls are under way.
	active atomic.Int32
	// serving tells whether it takes part now, for sessions.
	serving atomic.Bool
	// ewma is what answers cost.
	ewma ewma
	// warmUntil is when its slow start ends, 0 without one.
	warmUntil atomic.Int64
	endpoint  atomic.Pointer[Endpoint]
	hash      uint64 // of the name, for tables and tokens
	backend   *Backend
	// outlier counts failures.
	outlier outlierCounts
	pools   [protocols]pool

	// Under Backend.mu:
	ejectedUntil int64  // on the backend's clock; 0 when it is not ejected
	ejections    int64  // in a row, each longer than the last
	backSince    int64  // when the last one ended
	failing      bool   // active checks say so
	retired      bool   // its endpoint is gone
	generation   uint64 // of the last update that had it
	stopChecks   context.CancelFunc
}

// Endpoint returns what the control plane says last. Nobody may change it.
func (t *Target) Endpoint() *Endpoint { return t.endpoint.Load() }

// Active is how many calls are under way.
func (t *Target) Active() int { return int(t.active.Load()) }

// Begin counts a call; its End must follow. The call is one attempt to have a
// request answered, from the connection to the last byte.
func (t *Target) Begin() Call {
	t.active.Add(1)
	c := Call{target: t}
	if t.backend.settings.Load().timed() {
		c.start = t.backend.now()
	}
	return c
}

// Call is one attempt at a target. The zero value is none. Its methods are for one
// goroutine at a time.
type Call struct {
	target *Target
	start  int64 // on the backend's clock, which starts at 1; 0 when nobody wants to know
	// seen tells that the latency was counted, judged that the outcome was; until then
	// a good one is kept.
	seen, judged bool
	outcome      Outcome
}

// Report tells how the target answers, first when the head of the response has come,
// and again when more is known: that the response broke off, or the gRPC status in
// its trailers. The first report has the latency. A failure counts at once; what went
// well until then counts at End, so that responses which never become whole are no
// success. What comes from the client (it gave up, its body was wrong) is not
// reported.
func (c *Call) Report(o Outcome) {
	if c.target == nil {
		return
	}
	b := c.target.backend
	s := b.settings.Load()
	c.outcome = o
	if o.code() >= 500 {
		c.judge(s)
	}
	if c.seen || !s.timed() || o.Latency == 0 && c.start == 0 {
		return
	}
	c.seen = true
	now := b.now()
	if o.Latency == 0 {
		o.Latency = time.Duration(now - c.start)
	}
	if s.Balancer == PeakEWMA {
		c.target.ewma.observe(o.Latency, now, s.decay)
	}
	// What timed out would have taken even longer.
	if s.limiter != nil && (o.Failure == NoFailure || o.Failure == TimedOut) {
		s.limiter.observe(o.Latency, now)
	}
}

// judge counts the outcome once, for ejection.
func (c *Call) judge(s *settings) {
	if !c.judged && s.outlier != nil {
		s.outlier.report(c.target, &c.outcome)
	}
	c.judged = true
}

// End says that the call is over. It may be called more than once.
func (c *Call) End() {
	if c.target == nil {
		return
	}
	if c.outcome != (Outcome{}) {
		c.judge(c.target.backend.settings.Load())
	}
	c.target.active.Add(-1)
	c.target = nil
}

// timed reports whether anybody wants to know latencies: the clock is read for
// nobody else.
func (s *settings) timed() bool { return s.Balancer == PeakEWMA || s.limiter != nil }

// Outcome is how a target answered one call. The zero value says nothing.
type Outcome struct {
	// Status is the response's, 0 when there was none.
	Status int
	// GRPC is the call's status where it is known to be one, else -1 or 0.
	GRPC int
	// Failure says why there was no response, or no whole one.
	Failure Failure
	// Latency is from the beginning to the response's head; 0 takes the time since
	// Begin.
	Latency time.Duration
}

// Failure is a kind of failure that this waypoint saw itself.
type Failure uint8

const (
	// NoFailure: there was a response.
	NoFailure Failure = iota
	// ConnectFailed: no connection, so the application has seen nothing.
	ConnectFailed
	// Refused: the target certainly did not look at the request (RFC 9113, 8.7).
	Refused
	// Reset: the exchange broke off before the response was whole.
	Reset
	// TimedOut: no response in the time of one attempt.
	TimedOut
)

func (f Failure) String() string {
	switch f {
	case ConnectFailed:
		return "connect failure"
	case Refused:
		return "refused"
	case Reset:
		return "reset"
	case TimedOut:
		return "timeout"
	default:
		return "none"
	}
}

// code is the HTTP status that outlier detection counts the outcome as: that of
// the gRPC status when it tells more, 503 or 504 for what broke off.
func (o *Outcome) code() int {
	switch {
	case o.Failure == TimedOut:
		return 504
	case o.Failure != NoFailure:
		return 503
	case o.GRPC > 0:
		return HTTPStatus(o.GRPC)
	}
	return o.Status
}

func portText(p uint16) string { return strconv.Itoa(int(p)) }
