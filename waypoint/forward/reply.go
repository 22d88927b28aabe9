package forward

import (
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// reply is an answer of the waypoint itself.
type reply struct {
	status int
	// flag is Envoy's word for the log and the metric's response_flags, "-" for none.
	flag string
	// text is for the client: it says what happened, and nothing of the mesh.
	text string
	// grpc is the status for gRPC clients; 0 stands for that of the HTTP status.
	grpc   int
	header message.Header
}

// The statuses of gRPC (https://grpc.io/docs/guides/status-codes/) that a waypoint
// answers with.
const (
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// grpcStatus maps an HTTP status as gRPC clients do
// (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
func grpcStatus(status int) int {
	switch status {
	case 200:
		return 0
	case 400:
		return grpcInternal
	case 401:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 404:
		return grpcUnimplemented
	case 429, 502, 503, 504:
		return grpcUnavailable
	}
	return grpcUnknown
}

// isGRPC reports whether a request is one of gRPC, whose clients look for the status
// in its own fields.
func isGRPC(h message.Header) bool {
	v := h.Get("content-type")
	const prefix = "application/grpc"
	return strings.HasPrefix(v, prefix) && (len(v) == len(prefix) || v[len(prefix)] == '+' || v[len(prefix)] == ';')
}

// send answers x with the reply, after leave has seen the head.
func (r reply) send(x message.Exchange, leave func(*message.Response)) error {
	respond := func(status int, h message.Header, length int64, end bool) error {
		head := &message.Response{Status: status, Header: h, Length: length}
		leave(head)
		return x.Respond(head, end)
	}
	if isGRPC(x.Request().Header) {
		status := r.grpc
		if status == 0 {
			status = grpcStatus(r.status)
		}
		h := append(message.Header{
			{Name: "content-type", Value: "application/grpc"},
			{Name: "grpc-status", Value: strconv.Itoa(status)},
			{Name: "grpc-message", Value: percentEncode(r.text)},
		}, r.header...)
		if err := respond(200, h, 0, true); err != nil {
			return err
		}
		return x.Close(nil)
	}
	h := r.header
	if r.text == "" || x.Request().Method == "HEAD" {
		if err := respond(r.status, h, 0, true); err != nil {
			return err
		}
		return x.Close(nil)
	}
	h = append(message.Header{{Name: "content-type", Value: "text/plain; charset=utf-8"}}, h...)
	if err := respond(r.status, h, int64(len(r.text)+1), false); err != nil {
		return err
	}
	if _, err := x.Write([]byte(r.text + "\n")); err != nil {
		return err
	}
	return x.Close(nil)
}

// percentEncode writes a grpc-message (gRPC over HTTP/2, "Status-Message").
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(strconv.FormatUint(uint64(c)|0x100, 16)[1:]))
		}
	}
	return b.String()
}
