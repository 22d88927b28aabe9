package report

import (
	"sync"
	"sync/atomic"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap/zapcore"

	"github.com/tulle-mesh/tulle/internal/accesslog"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/otlp"
	"github.com/tulle-mesh/tulle/waypoint/trace"
)

// exports are the collectors that something is sent to, by address.
type exports struct {
	r                   *Reporter
	lostLogs, lostSpans atomic.Uint64

	mu     sync.Mutex
	closed bool
	logs   map[string]*otlp.Logs
	spans  map[string]*otlp.Spans
	ending sync.WaitGroup
}

func (x *exports) init(r *Reporter) {
	x.r, x.logs, x.spans = r, map[string]*otlp.Logs{}, map[string]*otlp.Spans{}
}

func (x *exports) lost() (logs, spans uint64) { return x.lostLogs.Load(), x.lostSpans.Load() }

func (x *exports) config(addr string, lost *atomic.Uint64) otlp.Config {
	s := x.r.cfg.Self
	return otlp.Config{Addr: addr, Lost: lost, Logger: x.r.cfg.Logger, Resource: &resourcepb.Resource{Attributes: otlp.Texts(nil,
		"service.name", s.Gateway+"."+s.Namespace, "service.namespace", s.Namespace, "service.version", s.Version,
		"k8s.pod.name", s.Pod, "k8s.namespace.name", s.Namespace, "k8s.node.name", s.Node, "k8s.cluster.name", s.Cluster)}}
}

func (x *exports) logsTo(addr string) (*otlp.Logs, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.logs[addr]; e != nil {
		return e, nil
	}
	e, err := otlp.NewLogs(x.config(addr, &x.lostLogs))
	if err == nil {
		x.logs[addr] = e
	}
	return e, err
}

func (x *exports) spansTo(addr string) (*otlp.Spans, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.spans[addr]; e != nil {
		return e, nil
	}
	e, err := otlp.NewSpans(x.config(addr, &x.lostSpans))
	if err == nil {
		x.spans[addr] = e
	}
	return e, err
}

// keep ends what the settings do not use.
func (x *exports) keep(s *settings) {
	x.mu.Lock()
	defer x.mu.Unlock()
	used := map[any]bool{}
	for i := range s.logs {
		used[s.logs[i].otlp] = true
	}
	if s.tracing != nil {
		used[s.tracing.otlp] = true
	}
	for addr, e := range x.logs {
		if !used[e] {
			delete(x.logs, addr)
			x.ending.Go(e.Close)
		}
	}
	for addr, e := range x.spans {
		if !used[e] {
			delete(x.spans, addr)
			x.ending.Go(e.Close)
		}
	}
}

func (x *exports) close() {
	x.mu.Lock()
	for _, e := range x.logs {
		x.ending.Go(e.Close)
	}
	for _, e := range x.spans {
		x.ending.Go(e.Close)
	}
	x.logs, x.spans = map[string]*otlp.Logs{}, map[string]*otlp.Spans{}
	x.mu.Unlock()
	x.ending.Wait()
}

// logAll writes the lines of a record.
func (r *Reporter) logAll(s *settings, m *memory, q *forward.Record) {
	if len(s.logs) == 0 {
		return
	}
	lvl, message := level(q)
	if r.cfg.Levels != nil && !r.cfg.Levels.Enabled("access", lvl) {
		return
	}
	for i := range s.logs {
		l := &s.logs[i]
		if l.filter != nil {
			if holds, err := l.filter.Holds(&vars{r, m, q}); err != nil || !holds {
				continue
			}
		}
		if l.otlp != nil {
			l.otlp.Add(r.record(l, m, q, lvl, message))
			continue
		}
		buf := r.lines.Buffer()
		*buf = r.line(*buf, l, m, q)
		r.lines.Write(buf)
	}
}

// line writes a record in the form that the log wants.
func (r *Reporter) line(buf []byte, l *accessLog, m *memory, q *forward.Record) []byte {
	switch {
	case l.format != nil:
		buf = l.format.Append(buf, &vars{r, m, q})
		if n := len(buf); n == 0 || buf[n-1] != '\n' {
			buf = append(buf, '\n')
		}
		return buf
	case l.fields != nil:
		v := &vars{r, m, q}
		buf = append(buf, '{')
		for i := range l.fields {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = append(accesslog.AppendJSON(buf, l.fields[i].name), ':')
			buf = appendValue(buf, &l.fields[i], v)
		}
		return append(buf, '}', '\n')
	}
	return r.ownLine(buf, m, q, r.cfg.JSON || l.object)
}

// appendValue writes the value of one field: numbers as such, null for what has none.
func appendValue(buf []byte, f *logField, v *vars) []byte {
	var scratch [128]byte
	if c, ok := f.format.Single(); ok {
		value, known := c.Append(scratch[:0], v)
		switch {
		case !known:
			return append(buf, "null"...)
		case c.Number:
			return append(buf, value...)
		}
		return accesslog.AppendJSON(buf, string(value))
	}
	return accesslog.AppendJSON(buf, string(f.format.Append(scratch[:0], v)))
}

// record is a record as a collector gets it.
func (r *Reporter) record(l *accessLog, m *memory, q *forward.Record, lvl zapcore.Level, message string) *logspb.LogRecord {
	end := q.Start.Add(q.Duration)
	out := &logspb.LogRecord{
		TimeUnixNano: uint64(q.Start.UnixNano()), ObservedTimeUnixNano: uint64(end.UnixNano()),
		SeverityNumber: logspb.SeverityNumber_SEVERITY_NUMBER_INFO, SeverityText: "INFO",
	}
	if lvl > zapcore.InfoLevel {
		out.SeverityNumber, out.SeverityText = logspb.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
	}
	if q.Span != nil {
		out.TraceId, out.SpanId, out.Flags = q.Span.Trace[:], q.Span.ID[:], 1
	}
	v := &vars{r, m, q}
	for i := range l.fields {
		f := &l.fields[i]
		out.Attributes = append(out.Attributes, otlp.Text(f.name, string(f.format.Append(nil, v))))
	}
	switch {
	case l.format != nil:
		text := l.format.Append(nil, v)
		for n := len(text); n > 0 && text[n-1] == '\n'; n-- {
			text = text[:n-1]
		}
		out.Body = otlp.Value(string(text))
	default:
		out.Body = otlp.Value(message)
		if l.fields == nil {
			out.Attributes = r.attributes(m, q)
			out.Attributes = append(out.Attributes, otlp.Int("duration_ms", q.Duration.Milliseconds()))
		}
	}
	return out
}

// attributes describe a request by OpenTelemetry's names, and what has none there by
// ours.
func (r *Reporter) attributes(m *memory, q *forward.Record) []*commonpb.KeyValue {
	c, d := q.Client, r.destinationOf(q)
	v := vars{r, m, q}
	list := otlp.Texts(nil,
		"http.request.method", q.Method, "url.path", q.Path, "server.address", q.Authority,
		"user_agent.original", v.requestHeader().Get("user-agent"), "client.address", c.Source.Addr().String(),
		"guid:x-request-id", v.requestHeader().Get("x-request-id"),
		"response_flags", flagOf(q), "upstream_cluster", q.Backend, "network.peer.address", q.Endpoint(),
		"source.workload", m.source.workload, "source.namespace", m.source.namespace, "source.principal", m.source.principal, "source.cluster", m.source.cluster,
		"destination.workload", d.workload, "destination.namespace", d.namespace, "destination.principal", d.principal, "destination.cluster", d.cluster,
		"destination.service", c.Service.Hostname,
		"tulle.route", q.Route, "tulle.policy", q.Policy, "tulle.limit", q.Limit, "tulle.detail", q.Detail)
	switch c.Version {
	case 1:
		list = append(list, otlp.Text("network.protocol.version", "1.1"))
	case 2:
		list = append(list, otlp.Text("network.protocol.version", "2"))
	}
	if q.Status != 0 {
		list = append(list, otlp.Int("http.response.status_code", int64(q.Status)))
	}
	if q.Call && q.GRPC >= 0 {
		list = append(list, otlp.Text("rpc.system", "grpc"), otlp.Int("rpc.grpc.status_code", int64(q.GRPC)))
	}
	list = append(list, otlp.Int("http.request.body.size", q.Received), otlp.Int("http.response.body.size", q.Sent))
	if q.Err != nil {
		list = append(list, otlp.Text("error.message", clip(q.Err.Error())))
	}
	return list
}

// span sends the span of a request, which is a server's to the client, and those of its
// attempts, which are a client's to the endpoints.
func (x *exports) span(s *settings, m *memory, q *forward.Record) {
	t := s.tracing
	if t == nil {
		return // switched off meanwhile
	}
	r, sp := x.r, q.Span
	end := q.Start.Add(q.Duration)
	server := &tracepb.Span{
		TraceId: sp.Trace[:], SpanId: sp.ID[:], TraceState: otlp.Valid(sp.State), Kind: tracepb.Span_SPAN_KIND_SERVER,
		Name: spanName(q), StartTimeUnixNano: uint64(q.Start.UnixNano()), EndTimeUnixNano: uint64(end.UnixNano()),
		Attributes: x.tags(t, q, r.attributes(m, q)), Status: statusOf(q.Status, q.GRPC, q.Err), Flags: 0x101,
	}
	if sp.Parent != (trace.SpanID{}) {
		server.ParentSpanId = sp.Parent[:]
	}
	t.otlp.Add(server)
	for i := range sp.Attempts {
		a := &sp.Attempts[i]
		ended := a.End
		if ended.IsZero() {
			ended = end
		}
		client := &tracepb.Span{
			TraceId: sp.Trace[:], SpanId: a.ID[:], ParentSpanId: sp.ID[:], TraceState: otlp.Valid(sp.State), Kind: tracepb.Span_SPAN_KIND_CLIENT,
			Name: or(q.Backend), StartTimeUnixNano: uint64(a.Start.UnixNano()), EndTimeUnixNano: uint64(ended.UnixNano()),
			Status: statusOf(a.Status, a.GRPC, a.Err), Flags: 0x101,
			Attributes: otlp.Texts([]*commonpb.KeyValue{otlp.Int("http.request.resend_count", int64(i))},
				"http.request.method", q.Method, "upstream_cluster", q.Backend),
		}
		if a.Status != 0 {
			client.Attributes = append(client.Attributes, otlp.Int("http.response.status_code", int64(a.Status)))
		}
		if a.Target != nil {
			e := a.Target.Endpoint()
			d := r.destinationOf(&forward.Record{Target: a.Target})
			client.Attributes = otlp.Texts(client.Attributes, "network.peer.address", e.String(), "destination.workload", d.workload,
				"destination.namespace", d.namespace, "destination.principal", d.principal, "destination.uid", e.UID)
		}
		if a.Err != nil {
			client.Attributes = append(client.Attributes, otlp.Text("error.message", clip(a.Err.Error())))
		}
		t.otlp.Add(client)
	}
}

// spanName is the method and the route, of which there are few.
func spanName(q *forward.Record) string {
	name := q.Method
	if name == "" {
		name = "connection"
	}
	if q.Route != "" {
		return name + " " + q.Route
	}
	return name + " " + q.Client.Service.Hostname
}

func statusOf(code, grpcStatus int, err error) *tracepb.Status {
	r := forward.Record{Method: "-", Status: code, GRPC: grpcStatus}
	if !failed(&r) && err == nil {
		return nil
	}
	s := &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	if err != nil {
		s.Message = otlp.Valid(clip(err.Error()))
	}
	return s
}

// tags adds what the Telemetry resource wants.
func (x *exports) tags(t *tracing, q *forward.Record, list []*commonpb.KeyValue) []*commonpb.KeyValue {
	for _, tag := range t.tags {
		value := tag.GetLiteral()
		switch {
		case tag.GetHeader() != "" && q.Request != nil:
			value, _ = q.Request.Header.Lookup(tag.GetHeader())
		case tag.GetEnvironment() != "":
			value = environment(tag.GetEnvironment())
		}
		if value == "" {
			value = tag.GetDefault()
		}
		list = otlp.Texts(list, tag.GetName(), value)
	}
	return list
}
