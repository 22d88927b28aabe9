package upstream

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Conditions are kinds of outcomes that are tried again, with Envoy's names.
type Conditions uint16

// The conditions.
const (
	// OnConnectFailure: there was no connection. Nobody has seen the request.
	OnConnectFailure Conditions = 1 << iota
	// OnRefused: the server said that it did not look at the request.
	OnRefused
	// OnReset: the exchange broke off before the response.
	OnReset
	// OnTimeout: no response in the time of one attempt.
	OnTimeout
	// OnGatewayError: 502, 503 or 504.
	OnGatewayError
	// On5xx: 500 to 599, OnReset and OnTimeout.
	On5xx
	// On409: a conflict, Envoy's "retriable-4xx".
	On409
	// OnRateLimited: an answer with x-envoy-ratelimited, which no other condition takes.
	OnRateLimited
)

// words are Envoy's names for conditions (x-envoy-retry-on); what it counts as an answer
// of 5xx includes that there was none.
var words = map[string]Conditions{
	"5xx":                    On5xx | OnReset | OnTimeout | OnConnectFailure | OnRefused,
	"gateway-error":          OnGatewayError | OnReset | OnTimeout | OnConnectFailure | OnRefused,
	"reset":                  OnReset | OnTimeout | OnConnectFailure | OnRefused,
	"reset-before-request":   OnConnectFailure | OnRefused,
	"connect-failure":        OnConnectFailure,
	"refused-stream":         OnRefused,
	"retriable-4xx":          On409,
	"envoy-ratelimited":      OnRateLimited,
	"retriable-status-codes": 0, // the codes say it
}

// grpcWords are its names for statuses (x-envoy-retry-grpc-on).
var grpcWords = map[string]int{
	"cancelled":          grpcCancelled,
	"deadline-exceeded":  grpcDeadlineExceeded,
	"internal":           grpcInternal,
	"resource-exhausted": grpcResourceExhausted,
	"unavailable":        grpcUnavailable,
}

// Add adds what one of Envoy's words for retries says, and reports whether it is one:
// of x-envoy-retry-on or x-envoy-retry-grpc-on.
func (p *RetryPolicy) Add(word string) bool {
	if on, known := words[word]; known {
		p.On |= on
		return true
	}
	status, known := grpcWords[word]
	if known {
		p.GRPC |= 1 << status
	}
	return known
}

// StatusSet is a set of HTTP statuses. The zero value is empty.
type StatusSet [10]uint64

// Add puts a status of 0 to 639 into the set; others are left out.
func (s *StatusSet) Add(status int) {
	if status >= 0 && status < len(s)*64 {
		s[status/64] |= 1 << (status % 64)
	}
}

// Has reports whether a status is in the set.
func (s *StatusSet) Has(status int) bool {
	return status >= 0 && status < len(s)*64 && s[status/64]&(1<<(status%64)) != 0
}

// RetryPolicy says which outcomes are tried again. The zero value retries nothing
// but what a pooled connection spoilt.
type RetryPolicy struct {
	// Attempts is how many retries a request may have.
	Attempts int
	On       Conditions
	// Codes are statuses besides those of On.
	Codes StatusSet
	// GRPC has a bit for each gRPC status that is tried again, when nothing came before
	// it.
	GRPC uint32
	// AnyMethod also retries what is not idempotent and may have reached an
	// application (RFC 9110, 9.2.2): its owner vouches that this does no harm.
	AnyMethod bool
	// PerTry is the time of one attempt, 0 without end.
	PerTry  time.Duration
	Backoff Backoff
	// SameEndpoint does not avoid those that were tried; OtherLocalities goes to
	// endpoints that are farther away than they.
	SameEndpoint, OtherLocalities bool
}

// DefaultRetry is what Istio's waypoints do without a policy: two retries of what no
// application has seen, and of gRPC's UNAVAILABLE and CANCELLED.
func DefaultRetry() *RetryPolicy {
	return &RetryPolicy{
		Attempts: 2, On: OnConnectFailure | OnRefused, GRPC: 1<<grpcUnavailable | 1<<grpcCancelled,
		Backoff: DefaultBackoff,
	}
}

// Backoff is the delay before retries: full jitter, so that those who failed together
// do not come back together, over a fixed least.
type Backoff struct {
	// Floor is waited in any case: Gateway API's `backoff`.
	Floor time.Duration
	// Base is the most that is added before the first retry; it doubles up to Max.
	Base, Max time.Duration
}

// DefaultBackoff is Envoy's.
var DefaultBackoff = Backoff{Base: 25 * time.Millisecond, Max: 250 * time.Millisecond}

// Delay returns how long to wait before the n-th retry, n from 1.
func (b Backoff) Delay(n int) time.Duration {
	step := b.Base
	for i := 1; i < n && step < b.Max; i++ {
		step *= 2
	}
	step = min(step, b.Max)
	if step <= 0 {
		return b.Floor
	}
	return b.Floor + rand.N(step)
}

// Attempt is what became of one attempt of a request.
type Attempt struct {
	// Number counts the attempts of the request, this one included.
	Number int
	// Free is how many retries it had that were Decision.Free.
	Free    int
	Failure Failure
	// Status and Header are the response's, when there was one.
	Status int
	Header message.Header
	// GRPC is the status of a gRPC call that ended without any message, else -1 or 0.
	GRPC int
	// Reused tells that the connection had carried requests before (Exchange.Reused).
	Reused bool
	// Replayable tells that the request's content can be sent again from its beginning,
	// and that the client has seen nothing of this attempt.
	Replayable bool
	// Left is the time until the request's deadline; 0 or less is none.
	Left time.Duration
}

// Decision says whether an attempt is followed by another.
type Decision struct {
	Retry bool
	// After is how long to wait first.
	After time.Duration
	// Free retries are due to the pool of connections, not to the backend: they need no
	// place in its budget (Backend.Retry).
	Free bool
	// Reason says why there is no retry, for logs and explanations; empty with one,
	// and when the outcome is none to try again.
	Reason string
}

// Decide says whether the request is sent again after an attempt. It is pure but for
// the jitter.
func (p *RetryPolicy) Decide(r *message.Request, a Attempt) Decision {
	no := func(reason string) Decision { return Decision{Reason: reason} }
	// The server closed an idle connection just as the request came (RFC 9112, 9.3.1).
	stale := a.Failure == Reset && a.Reused && a.Free < staleTries && idempotent(r)
	if !stale && !p.wants(&a) {
		return Decision{}
	}
	if !a.Replayable {
		return no("the request cannot be sent again from its beginning")
	}
	if stale {
		return Decision{Retry: true, Free: true}
	}
	unsent := a.Failure == ConnectFailed || a.Failure == Refused
	tries := a.Number - a.Free
	switch {
	case tries > p.Attempts:
		return no("no attempts are left")
	case unsent || p.AnyMethod || idempotent(r) || a.Failure == NoFailure && a.GRPC > 0:
	default:
		return no("the method is not idempotent")
	}
	after := p.Backoff.Delay(tries)
	if unsent && tries == 1 {
		// Nobody was burdened, and another endpoint is asked.
		after = p.Backoff.Floor
	}
	if a.Failure == NoFailure {
		asked, ok := pushback(a.Header)
		if !ok || asked > maxRetryAfter {
			return no("the server asks to wait longer")
		}
		after = max(after, asked)
	}
	if a.Left > 0 && after >= a.Left {
		return no("no time is left")
	}
	return Decision{Retry: true, After: after}
}

// wants reports whether the policy names the outcome.
func (p *RetryPolicy) wants(a *Attempt) bool {
	var on Conditions
	switch a.Failure {
	case ConnectFailed:
		on = OnConnectFailure
	case Refused:
		on = OnRefused
	case Reset:
		on = OnReset | On5xx
	case TimedOut:
		on = OnTimeout | OnGatewayError | On5xx
	default:
		// Who limits rates wants no more of it.
		if a.Header.Has("x-envoy-ratelimited") {
			return p.On&OnRateLimited != 0
		}
		if a.GRPC > 0 && a.GRPC < grpcStatuses && p.GRPC&(1<<a.GRPC) != 0 {
			return true
		}
		switch {
		case a.Status == 409:
			on = On409
		case a.Status >= 502 && a.Status <= 504:
			on = OnGatewayError | On5xx
		case a.Status >= 500 && a.Status <= 599:
			on = On5xx
		}
		if p.Codes.Has(a.Status) {
			return true
		}
	}
	return p.On&on != 0
}

// idempotent reports whether sending a request twice does what sending it once does
// (RFC 9110, 9.2.2), by its method or because its sender says so
// (draft-ietf-httpapi-idempotency-key-header).
func idempotent(r *message.Request) bool {
	if r.Protocol != "" {
		return false // an upgrade, whose bytes mean what they like
	}
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	case "CONNECT":
		return false
	}
	return r.Header.Has("idempotency-key")
}

// httpDate is the format of dates that senders must use (RFC 9110, 5.6.7).
const httpDate = "Mon, 02 Jan 2006 15:04:05 GMT"

// pushback returns the delay that the server asks for before a retry: Retry-After
// (RFC 9110, 10.2.3), or gRPC's (grpc/proposal A6), which may also say never. A date is
// taken by the server's own clock, its Date field; what cannot be read is no wish.
func pushback(h message.Header) (time.Duration, bool) {
	if v := h.Get("grpc-retry-pushback-ms"); v != "" {
		ms, err := strconv.ParseInt(v, 10, 32)
		return time.Duration(ms) * time.Millisecond, err == nil && ms >= 0
	}
	v := strings.TrimSpace(h.Get("retry-after"))
	if v == "" {
		return 0, true
	}
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	then, err := time.Parse(httpDate, v)
	now, errNow := time.Parse(httpDate, h.Get("date"))
	if err != nil || errNow != nil {
		return 0, true
	}
	return max(0, then.Sub(now)), true
}
