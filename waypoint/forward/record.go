package forward

import (
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
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
	flagDelayed          = "DI"
	flagAborted          = "FI"
)

// Record is what became of one request.
type Record struct {
	Start    time.Time
	Duration time.Duration
	Client   *Client
	// Service is the name of the service that was addressed, Backend where the request
	// went, "namespace/hostname:port", and Endpoint the last one that was tried.
	Service, Backend, Endpoint string
	Method, Authority, Path    string
	// Status is the response's, 0 when there was none. GRPC is the call's status where
	// it is known, -1 where not.
	Status, GRPC int
	// Flag is Envoy's word for what went wrong, empty for nothing.
	Flag string
	// Route and Policy decided; Detail says why a route could not be followed.
	Route, Policy, Detail string
	// Attempts counts the requests sent for it.
	Attempts int
	// Received counts the bytes of the request's content, Sent those of the response's.
	Received, Sent int64
	// Err is what ended it out of order.
	Err error
}

func (r *Record) describe(q *message.Request) {
	r.Method, r.Authority, r.Path, r.GRPC = q.Method, q.Authority, q.Path, -1
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
