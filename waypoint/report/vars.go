package report

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/logformat"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// vars are what is known of a request, for expressions and for formats.
type vars struct {
	r *Reporter
	m *memory
	q *forward.Record
}

// Start implements logformat.Values.
func (v *vars) Start() time.Time { return v.q.Start }

// fields shows a header to expressions.
type fields struct{ h message.Header }

// Lookup implements cel.Fields.
func (f fields) Lookup(name string) (string, bool) { return f.h.Lookup(name) }

// Names implements cel.Fields.
func (f fields) Names(yield func(string) bool) { f.h.Names(yield) }

func (v *vars) requestHeader() message.Header {
	if v.q.Request == nil {
		return nil
	}
	return v.q.Request.Header
}

func (v *vars) responseHeader() message.Header {
	if v.q.Response == nil {
		return nil
	}
	return v.q.Response.Header
}

// Attribute implements cel.Vars by Envoy's names.
func (v *vars) Attribute(name string) (any, bool) {
	q, c := v.q, v.q.Client
	text := func(s string) (any, bool) { return s, s != "" }
	switch name {
	case "request.headers":
		return fields{v.requestHeader()}, true
	case "request.host":
		return text(q.Authority)
	case "request.id":
		return text(v.requestHeader().Get("x-request-id"))
	case "request.method":
		return text(q.Method)
	case "request.path":
		return text(target(q))
	case "request.url_path":
		return text(q.Path)
	case "request.query":
		return q.Query, q.HasQuery
	case "request.protocol":
		return text(protocolOf(c))
	case "request.scheme":
		if q.Request == nil {
			return nil, false
		}
		return text(q.Request.Scheme)
	case "request.time":
		return q.Start, true
	case "request.duration":
		return q.Duration, true
	case "request.size", "request.total_size":
		return q.Received, true
	case "request.referer":
		return text(v.requestHeader().Get("referer"))
	case "request.useragent":
		return text(v.requestHeader().Get("user-agent"))
	case "response.code":
		return int64(q.Status), q.Status != 0
	case "response.code_details":
		return text(details(q))
	case "response.flags":
		return text(flagOf(q))
	case "response.grpc_status":
		return int64(q.GRPC), q.GRPC >= 0
	case "response.headers":
		return fields{v.responseHeader()}, true
	case "response.trailers":
		return fields{q.Trailer}, true
	case "response.size", "response.total_size":
		return q.Sent, true
	case "source.address":
		return text(c.Source.String())
	case "source.ip":
		return text(c.Source.Addr().String())
	case "source.port":
		return int64(c.Source.Port()), true
	case "source.namespace":
		return text(c.Peer.Namespace())
	case "source.principal", "connection.uri_san_peer_certificate":
		return identity(c.Identity)
	case "source.service_account":
		_, account, found := strings.Cut(c.Identity.Path(), "/sa/")
		return account, found
	case "source.trust_domain":
		return text(c.Identity.TrustDomain().Name())
	case "source.workload":
		return text(v.m.source.workload)
	case "destination.address":
		return text(c.Destination.String())
	case "destination.ip":
		if !c.Destination.Addr().IsValid() {
			return nil, false
		}
		return c.Destination.Addr().String(), true
	case "destination.port":
		return int64(c.Port), true
	case "destination.service":
		return text(c.Service.Hostname)
	case "destination.namespace":
		return text(c.Service.Namespace)
	case "connection.mtls":
		return true, true
	case "upstream.address":
		return text(q.Endpoint())
	case "upstream.port":
		if q.Target == nil {
			return nil, false
		}
		return int64(q.Target.Endpoint().Addr.Port()), true
	case "upstream.cluster", "xds.cluster_name":
		return text(q.Backend)
	case "upstream.transport_failure_reason":
		return text(failureReason(q))
	case "xds.route_name":
		return text(q.Route)
	}
	return nil, false
}

func identity(id spiffeid.ID) (any, bool) {
	if id.IsZero() {
		return "", false
	}
	return id.String(), true
}

func protocolOf(c *forward.Client) string {
	switch c.Version {
	case 1:
		return "HTTP/1.1"
	case 2:
		return "HTTP/2"
	}
	return ""
}

func flagOf(q *forward.Record) string {
	if q.Flag == "" {
		return "-"
	}
	return q.Flag
}

// failureReason is why there was no connection to the endpoint.
func failureReason(q *forward.Record) string {
	if q.Flag == "UF" && q.Err != nil {
		return clip(q.Err.Error())
	}
	return ""
}

// details is Envoy's word for who answered.
func details(q *forward.Record) string {
	switch q.Flag {
	case "":
		if q.Attempts > 0 {
			return "via_upstream"
		}
		return "direct_response"
	case "UAEX":
		return "rbac_access_denied_matched_policy[" + or(q.Policy) + "]"
	case "NR":
		if q.Detail != "" {
			return q.Detail
		}
		return "route_not_found"
	case "RL":
		return "request_rate_limited"
	case "UH":
		return "no_healthy_upstream"
	case "UO":
		return "overflow"
	case "UF":
		return "upstream_reset_before_response_started{connection_failure}"
	case "UC":
		return "upstream_reset_after_response_started"
	case "UPE":
		return "upstream_protocol_error"
	case "UT":
		return "response_timeout"
	case "DC":
		return "downstream_remote_disconnect"
	case "FI":
		return "fault_filter_abort"
	case "DI":
		return "via_upstream"
	}
	return q.Detail
}

var longFlags = map[string]string{
	"UAEX": "UnauthorizedExternalService", "NR": "NoRouteFound", "UH": "NoHealthyUpstream", "UO": "UpstreamOverflow",
	"UF": "UpstreamConnectionFailure", "UC": "UpstreamConnectionTermination", "UPE": "UpstreamProtocolError",
	"UT": "UpstreamRequestTimeout", "URX": "UpstreamRetryLimitExceeded", "DC": "DownstreamConnectionTermination",
	"DI": "DelayInjected", "FI": "FaultInjected", "RL": "RateLimited",
}

// grpcCamel are the statuses of gRPC by number.
var grpcCamel = []string{
	"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied", "ResourceExhausted",
	"FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
}

var grpcSnake = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// Append implements logformat.Values.
func (v *vars) Append(dst []byte, c *logformat.Command) ([]byte, bool) {
	q, client := v.q, v.q.Client
	text := func(s string) ([]byte, bool) { return append(dst, s...), s != "" }
	number := func(n int64, ok bool) ([]byte, bool) { return strconv.AppendInt(dst, n, 10), ok }
	ip := func(a netip.Addr) ([]byte, bool) {
		if !a.IsValid() {
			return dst, false
		}
		return a.AppendTo(dst), true
	}
	addr := func(a netip.AddrPort) ([]byte, bool) {
		if !a.Addr().IsValid() {
			return dst, false
		}
		return a.AppendTo(dst), true
	}
	switch c.Op {
	case logformat.Req:
		value, ok := v.requestField(c.Name)
		if !ok && c.Alternative != "" {
			value, _ = v.requestField(c.Alternative)
		}
		return text(value)
	case logformat.ReqWithoutQuery:
		value, ok := v.requestField(c.Name)
		if !ok && c.Alternative != "" {
			value, _ = v.requestField(c.Alternative)
		}
		value, _, _ = strings.Cut(value, "?")
		return text(value)
	case logformat.Resp:
		value, ok := responseField(q, v.responseHeader(), c.Name)
		if !ok && c.Alternative != "" {
			value, _ = responseField(q, v.responseHeader(), c.Alternative)
		}
		return text(value)
	case logformat.Trailer:
		value, ok := q.Trailer.Lookup(c.Name)
		if !ok && c.Alternative != "" {
			value, _ = q.Trailer.Lookup(c.Alternative)
		}
		return text(value)
	case logformat.Protocol:
		return text(protocolOf(client))
	case logformat.UpstreamProtocol:
		return dst, false
	case logformat.ResponseCode:
		return number(int64(q.Status), true)
	case logformat.ResponseCodeDetails:
		return text(details(q))
	case logformat.ConnectionTerminationDetails:
		if q.Flag == "DC" && q.Err != nil {
			return text(clip(q.Err.Error()))
		}
		return dst, false
	case logformat.ResponseFlags:
		return text(q.Flag)
	case logformat.ResponseFlagsLong:
		return text(longFlags[q.Flag])
	case logformat.BytesReceived:
		return number(q.Received, true)
	case logformat.BytesSent:
		return number(q.Sent, true)
	case logformat.Duration:
		return number(q.Duration.Milliseconds(), true)
	case logformat.ResponseDuration:
		return number(q.Head.Milliseconds(), q.Head > 0)
	case logformat.ResponseTxDuration:
		return number((q.Duration - q.Head).Milliseconds(), q.Head > 0)
	case logformat.RouteName:
		return text(q.Route)
	case logformat.UpstreamHost:
		return text(q.Endpoint())
	case logformat.UpstreamHostWithoutPort, logformat.UpstreamPort, logformat.UpstreamHostName, logformat.UpstreamPeerURISAN:
		if q.Target == nil {
			return dst, false
		}
		e := q.Target.Endpoint()
		switch c.Op {
		case logformat.UpstreamHostWithoutPort:
			return ip(e.Addr.Addr())
		case logformat.UpstreamPort:
			return number(int64(e.Addr.Port()), true)
		case logformat.UpstreamHostName:
			return text(e.Hostname)
		}
		if e.Identity.IsZero() {
			return dst, false
		}
		return text(e.Identity.String())
	case logformat.UpstreamCluster:
		return text(q.Backend)
	case logformat.UpstreamTransportFailureReason:
		return text(failureReason(q))
	case logformat.UpstreamRequestAttemptCount:
		return number(int64(q.Attempts), true)
	case logformat.DownstreamRemoteAddress:
		return addr(client.Source)
	case logformat.DownstreamRemoteAddressWithoutPort:
		return ip(client.Source.Addr())
	case logformat.DownstreamRemotePort:
		return number(int64(client.Source.Port()), true)
	case logformat.DownstreamLocalAddress:
		return addr(client.Destination)
	case logformat.DownstreamLocalAddressWithoutPort:
		return ip(client.Destination.Addr())
	case logformat.DownstreamLocalPort:
		return number(int64(client.Port), true)
	case logformat.DownstreamPeerURISAN:
		if client.Identity.IsZero() {
			return dst, false
		}
		return text(client.Identity.String())
	case logformat.DownstreamTLSVersion:
		return text("TLSv1.3") // no other is spoken
	case logformat.GRPCStatus:
		if q.GRPC < 0 {
			return dst, false
		}
		names := grpcCamel
		if c.Name == "SNAKE_STRING" {
			names = grpcSnake
		}
		if c.Name == "NUMBER" || q.GRPC >= len(names) {
			return number(int64(q.GRPC), true)
		}
		return text(names[q.GRPC])
	case logformat.GRPCStatusNumber:
		return number(int64(q.GRPC), q.GRPC >= 0)
	case logformat.Hostname:
		return text(v.r.cfg.Self.Pod)
	case logformat.Environment:
		return text(os.Getenv(c.Name))
	case logformat.TraceID:
		if q.Span == nil {
			return dst, false
		}
		return text(hexOf(q.Span.Trace[:]))
	case logformat.StreamID:
		return text(v.requestHeader().Get("x-request-id"))
	case logformat.Path:
		p := target(q)
		if c.Alternative == "PATH" && q.Request != nil { // as the route left it
			p = q.Request.Target()
		}
		if c.Name == "NQ" {
			p, _, _ = strings.Cut(p, "?")
		}
		return text(p)
	case logformat.Method:
		return text(q.Method)
	case logformat.Own:
		return text(v.own(c.Name))
	}
	return dst, false
}

// own are the values of %TULLE()%.
func (v *vars) own(word string) string {
	switch word {
	case "POLICY":
		return v.q.Policy
	case "LIMIT":
		return v.q.Limit
	case "DETAIL":
		return v.q.Detail
	case "SOURCE_WORKLOAD":
		return v.m.source.workload
	case "SOURCE_NAMESPACE":
		return v.m.source.namespace
	case "DESTINATION_SERVICE":
		return v.q.Client.Service.Hostname
	case "DESTINATION_WORKLOAD":
		return v.r.destinationOf(v.q).workload
	}
	return ""
}

// requestField is a field of the request, or what HTTP/2 says by pseudo fields.
func (v *vars) requestField(name string) (string, bool) {
	q := v.q
	switch name {
	case ":method":
		return q.Method, q.Method != ""
	case ":authority", "host":
		return q.Authority, q.Authority != ""
	case ":path", "x-envoy-original-path":
		return target(q), q.Path != ""
	case ":scheme":
		if q.Request == nil {
			return "", false
		}
		return q.Request.Scheme, true
	}
	return v.requestHeader().Lookup(name)
}

func responseField(q *forward.Record, h message.Header, name string) (string, bool) {
	switch name {
	case ":status":
		return strconv.Itoa(q.Status), q.Status != 0
	case "x-envoy-upstream-service-time":
		if q.Attempts == 0 || q.Head == 0 {
			return "", false
		}
		return strconv.FormatInt(q.Head.Milliseconds(), 10), true
	}
	return h.Lookup(name)
}

func environment(name string) string { return os.Getenv(name) }
