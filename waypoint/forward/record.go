package forward

import (
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/trace"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// The words of Envoy's %RESPONSE_FLAGS%, which dashboards know.
const (
	flagDenied           = "UAEX"
	flagNoRoute          = "NR"
	flagNoHealthy        = "UH"
	flagOverflow         = "UO"
	flagUpstreamConnect  = "UF"
	flagUpstreamReset    = "UC"
	flagUpstreamProtocol = "UPE"
	flagTimeout          = "UT"
	flagRetriesExceeded  = "URX"
	flagDownstream       = "DC"
	flagSlow             = "DT"
	flagDelayed          = "DI"
	flagAborted          = "FI"
)

// Record is what became of one request. It belongs to whoever gets it until he returns.
type Record struct {
	Start    time.Time
	Duration time.Duration
	Client   *Client
	// Head is the time until the head of the response, 0 without one.
	Head time.Duration
	// Service is the name of the service that was addressed, Backend where the request
	// went, "namespace/hostname:port".
	Service, Backend string
	// Target is the endpoint that was tried last, nil for none.
	Target *upstream.Target
	// Method, Authority, Path and Query are as the client sent them.
	Method, Authority, Path, Query string
	HasQuery                       bool
	// Request is as the route left it for the backend. Response is the head that the
	// client got, nil without one, and Trailer what followed the content.
	Request  *message.Request
	Response *message.Response
	Trailer  message.Header
	// Span is what a trace is told of the request, nil when it is not sampled.
	Span *trace.Span
	// Status is the response's, 0 when there was none. GRPC is the call's status where
	// it is known, -1 where not.
	Status, GRPC int
	// Call tells that it is one of gRPC.
	Call bool
	// Opened tells of a connection, carried as bytes, that its endpoint has taken it.
	Opened bool
	// Flag is Envoy's word for what went wrong, empty for nothing.
	Flag string
	// Route and Policy decided, Limit is the rate limit that refused; Detail says why a
	// route could not be followed.
	Route, Policy, Limit, Detail string
	// Shadow is the rule of a rate limit that would have refused and is not enforced.
	Shadow string
	// Attempts counts the requests sent for it.
	Attempts int
	// Received counts the bytes of the request's content, Sent those of the response's.
	Received, Sent int64
	// RequestMessages and ResponseMessages count those of a call of gRPC.
	RequestMessages, ResponseMessages int64
	// Err is what ended it out of order.
	Err error
}

func (r *Record) describe(q *message.Request) {
	r.Method, r.Authority, r.Path, r.GRPC = q.Method, q.Authority, q.Path, -1
	r.Query, r.HasQuery, r.Request = q.Query, q.HasQuery, q
}

// Endpoint is the address of Target, empty without one.
func (r *Record) Endpoint() string {
	if r.Target == nil {
		return ""
	}
	return r.Target.Endpoint().String()
}

// fail notes the first failure.
func (r *Record) fail(flag string, err error) {
	if err == nil {
		return
	}
	if r.Flag == "" {
		r.Flag = flag
	}
	if r.Err == nil {
		r.Err = err
	}
}
