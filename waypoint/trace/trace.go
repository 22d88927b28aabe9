package trace

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// ID names a trace, SpanID a span of it. Zero is none.
type (
	ID     [16]byte
	SpanID [8]byte
)

// Settings say what is sampled. Nobody changes them once a Tracer has them.
type Settings struct {
	// Sampling is how many of 10,000 requests are sampled whose clients have not decided.
	Sampling uint32
	// IgnoreParent decides anew where a client has: its trace goes on, its decision does
	// not count.
	IgnoreParent bool
}

// Tracer starts spans. It is safe for concurrent use; a nil one starts none.
type Tracer struct{ settings atomic.Pointer[Settings] }

// NewTracer returns a Tracer that samples nothing until it is configured.
func NewTracer() *Tracer { return &Tracer{} }

// Configure changes the settings; nil samples nothing.
func (t *Tracer) Configure(s *Settings) { t.settings.Store(s) }

// Start begins the span of a request, or returns nil when it is not sampled.
func (t *Tracer) Start(r *message.Request) *Span {
	if t == nil {
		return nil
	}
	s := t.settings.Load()
	if s == nil {
		return nil
	}
	var p parent
	found := p.read(r.Header)
	sampled := false
	switch {
	case found && p.decision != undecided && !s.IgnoreParent:
		sampled = p.decision == yes
	default:
		sampled = s.Sampling >= hundredths || s.Sampling > 0 && rand.Uint32N(hundredths) < s.Sampling
	}
	if !sampled {
		return nil
	}
	span := &Span{Trace: p.trace, Parent: p.span, State: p.state, form: p.form}
	if !found {
		span.Trace, span.form = newID(), w3c
	}
	span.ID = newSpanID()
	return span
}

func newID() (id ID) {
	for id == (ID{}) {
		put(id[:8], rand.Uint64())
		put(id[8:], rand.Uint64())
	}
	return id
}

func newSpanID() (id SpanID) {
	for id == (SpanID{}) {
		put(id[:], rand.Uint64())
	}
	return id
}

func put(b []byte, v uint64) {
	for i := range 8 {
		b[i] = byte(v >> (8 * i))
	}
}

// Span is a request that is sampled. Its methods may be called on nil and then do
// nothing.
type Span struct {
	Trace ID
	ID    SpanID
	// Parent is the client's span, zero without.
	Parent SpanID
	// State is the client's tracestate.
	State string
	// Attempts are the requests that were sent for it.
	Attempts []Attempt

	form form
}

// Attempt is one request to an endpoint.
type Attempt struct {
	ID         SpanID
	Start, End time.Time
	Outcome
}

// Outcome is what became of an attempt.
type Outcome struct {
	// Status is the response's, 0 without one; GRPC is the call's, -1 where it is none.
	Status, GRPC int
	// Target is whom it was sent to, nil for nobody.
	Target *upstream.Target
	// Err is why there is no response.
	Err error
}

// Begin begins an attempt and writes its context into the header of the request.
func (s *Span) Begin(h *message.Header, now time.Time) {
	if s == nil {
		return
	}
	a := Attempt{ID: newSpanID(), Start: now}
	if len(s.Attempts) < maxAttempts {
		s.Attempts = append(s.Attempts, a)
	}
	s.form.write(h, s.Trace, a.ID, s.ID)
}

// End ends the attempt that began last.
func (s *Span) End(now time.Time, o Outcome) {
	if s == nil || len(s.Attempts) == 0 {
		return
	}
	if a := &s.Attempts[len(s.Attempts)-1]; a.End.IsZero() {
		a.End, a.Outcome = now, o
	}
}
