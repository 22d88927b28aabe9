package report

import (
	"encoding/hex"
	"strings"

	"go.uber.org/zap/zapcore"

	"github.com/tulle-mesh/tulle/internal/accesslog"
	"github.com/tulle-mesh/tulle/waypoint/forward"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// clientFields are those of a connection, as all lines of it have them.
func (r *Reporter) clientFields(c *forward.Client, s *side, json bool) []byte {
	return accesslog.Render(json, func(l *accesslog.Line) {
		l.Addr("src.addr", c.Source)
		l.Text("src.workload", s.workload)
		l.Text("src.namespace", s.namespace)
		l.Identity("src.identity", c.Identity)
		l.Text("src.cluster", s.cluster)
		l.Addr("dst.addr", c.Destination)
		l.Text("dst.service", c.Service.Hostname)
	})
}

// level is that of a record's line, and its message.
func level(q *forward.Record) (zapcore.Level, string) {
	switch tcp := q.Method == ""; {
	case tcp && q.Err != nil:
		return zapcore.WarnLevel, "connection failed"
	case tcp:
		return zapcore.InfoLevel, "connection complete"
	case q.Err != nil:
		return zapcore.WarnLevel, "request failed"
	}
	return zapcore.InfoLevel, "request complete"
}

// ownLine writes a record in ztunnel's form.
func (r *Reporter) ownLine(buf []byte, m *memory, q *forward.Record, json bool) []byte {
	l := accesslog.Line{JSON: json, Buf: buf}
	lvl, message := level(q)
	l.Begin(q.Start.Add(q.Duration), lvl.String(), message)
	if json {
		l.Fields(m.object)
	} else {
		l.Fields(m.text)
	}
	if t := q.Target; t != nil {
		e := t.Endpoint()
		if e.Addr.Addr().IsValid() {
			l.Addr("dst.endpoint", e.Addr)
		} else {
			l.Text("dst.endpoint", e.String())
		}
		l.Text("dst.workload", nameOf(e.UID))
		l.Identity("dst.identity", e.Identity)
	}
	if q.Method != "" {
		l.Text("method", q.Method)
		l.Text("authority", q.Authority)
		l.Text("path", target(q))
		l.Number("status", uint64(q.Status))
		if q.Call && q.GRPC >= 0 {
			l.Number("grpc_status", uint64(q.GRPC))
		}
		if q.Request != nil {
			l.Text("request_id", q.Request.Header.Get("x-request-id"))
		}
	}
	l.Text("flags", q.Flag)
	l.Text("route", q.Route)
	l.Text("policy", q.Policy)
	l.Text("limit", q.Limit)
	l.Text("limit_shadow", q.Shadow)
	l.Text("detail", q.Detail)
	l.Text("backend", q.Backend)
	if q.Attempts > 1 {
		l.Number("attempts", uint64(q.Attempts))
	}
	if q.Span != nil {
		l.Text("trace_id", hexOf(q.Span.Trace[:]))
	}
	l.Number("bytes_sent", uint64(q.Sent))
	l.Number("bytes_recv", uint64(q.Received))
	l.Millis("duration", q.Duration)
	if q.Err != nil {
		l.Text("error", clip(q.Err.Error()))
	}
	l.End()
	return l.Buf
}

// nameOf is the workload's name in a UID of Istio's form, "cluster/group/kind/namespace/
// name", of which endpoints of a ServiceEntry have more; any other UID as it is.
func nameOf(uid string) string {
	rest, found := uid, true
	for range 4 {
		if _, rest, found = strings.Cut(rest, "/"); !found {
			return uid
		}
	}
	name, _, _ := strings.Cut(rest, "/")
	if name == "" {
		return uid
	}
	return name
}

// clip bounds what may quote a peer.
func clip(s string) string {
	if len(s) <= maxErrorBytes {
		return s
	}
	return s[:maxErrorBytes] + "…"
}
