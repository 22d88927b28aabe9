package report_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/trace"
)

const patience = 30 * time.Second

// collector is a server of OTLP's services.
type collector struct {
	addr  string
	spans chan *tracepb.Span
	logs  chan *logspb.LogRecord
}

// export makes the method of a service that takes T.
func export[T any](take func(*T)) []grpc.MethodDesc {
	return []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		body := new(T)
		if err := decode(body); err != nil {
			return nil, err
		}
		take(body)
		return new(emptypb.Empty), nil
	}}}
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{spans: make(chan *tracepb.Span, 100), logs: make(chan *logspb.LogRecord, 100)}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.trace.v1.TraceService", HandlerType: (*any)(nil),
		Methods: export(func(d *tracepb.TracesData) {
			for _, r := range d.GetResourceSpans() {
				for _, s := range r.GetScopeSpans() {
					for _, x := range s.GetSpans() {
						c.spans <- x
					}
				}
			}
		}),
	}, struct{}{})
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.logs.v1.LogsService", HandlerType: (*any)(nil),
		Methods: export(func(d *logspb.LogsData) {
			for _, r := range d.GetResourceLogs() {
				for _, s := range r.GetScopeLogs() {
					for _, x := range s.GetLogRecords() {
						c.logs <- x
					}
				}
			}
		}),
	}, struct{}{})
	pid := os.Getpid()
	ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 64+pid>>14&0x3f, pid>>7&0x7f, 1+pid&0x7f))
	if err != nil {
		t.Fatal(err)
	}
	c.addr = ln.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return c
}

func receive[T any](t *testing.T, from chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func texts(list []*commonpb.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		if s, ok := kv.GetValue().GetValue().(*commonpb.AnyValue_StringValue); ok {
			out[kv.GetKey()] = s.StringValue
		} else {
			out[kv.GetKey()] = fmt.Sprint(kv.GetValue().GetIntValue())
		}
	}
	return out
}

func TestSpansReachACollector(t *testing.T) {
	c := newCollector(t)
	w := newWorld(t, nil)
	err := w.report.Apply(&api.Telemetry{Tracing: &api.Tracing{Otlp: c.addr, HasSampling: true, Sampling: 10000, Tags: []*api.SpanTag{
		{Name: "env", Kind: &api.SpanTag_Literal{Literal: "prod"}},
		{Name: "team", Kind: &api.SpanTag_Header{Header: "x-team"}},
		{Name: "absent", Kind: &api.SpanTag_Header{Header: "x-absent"}, Default: "none"},
		{Name: "home", Kind: &api.SpanTag_Environment{Environment: "NOBODY_SETS_THIS"}, Default: "here"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	q := w.record()
	q.Request.Header.Add("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	q.Request.Header.Add("tracestate", "a=b")
	q.Span = w.tracer.Start(q.Request)
	for i, status := range []int{503, 200} {
		q.Span.Begin(&q.Request.Header, q.Start.Add(time.Duration(i)*time.Millisecond))
		q.Span.End(q.Start.Add(time.Duration(i+1)*time.Millisecond), trace.Outcome{Status: status, GRPC: -1, Target: w.target})
	}
	q.Attempts, q.Limit = 2, "shop/limit/rule"
	w.report.Report(q)
	server := receive(t, c.spans)
	tags := texts(server.GetAttributes())
	if hex.EncodeToString(server.GetTraceId()) != "4bf92f3577b34da6a3ce929d0e0e4736" || hex.EncodeToString(server.GetParentSpanId()) != "00f067aa0ba902b7" ||
		server.GetKind() != tracepb.Span_SPAN_KIND_SERVER || server.GetTraceState() != "a=b" || server.GetName() != "GET shop/items/rule-0" {
		t.Errorf("server span: %v", server)
	}
	for k, want := range map[string]string{
		"env": "prod", "team": "blue", "absent": "none", "home": "here", "http.response.status_code": "200",
		"source.workload": "web", "destination.workload": "api", "source.principal": webIdentity.String(),
		"tulle.route": "shop/items/rule-0", "tulle.policy": "shop/allow-web", "tulle.limit": "shop/limit/rule", "guid:x-request-id": "id-1",
	} {
		if tags[k] != want {
			t.Errorf("%s is %q, want %q", k, tags[k], want)
		}
	}
	for i, status := range []string{"503", "200"} {
		client := receive(t, c.spans)
		tags := texts(client.GetAttributes())
		if string(client.GetParentSpanId()) != string(server.GetSpanId()) || client.GetKind() != tracepb.Span_SPAN_KIND_CLIENT ||
			tags["http.response.status_code"] != status || tags["destination.workload"] != "api" || tags["network.peer.address"] != "10.0.0.2:8080" {
			t.Errorf("attempt %d: %v", i, client)
		}
		if failed := client.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR; failed != (status == "503") {
			t.Errorf("attempt %d failed: %t", i, failed)
		}
	}
	// Switched off, nothing is sampled any more.
	if err := w.report.Apply(nil); err != nil {
		t.Fatal(err)
	}
	if w.tracer.Start(q.Request) != nil {
		t.Error("sampled without tracing")
	}
}

func TestLogsReachACollector(t *testing.T) {
	c := newCollector(t)
	w := newWorld(t, nil)
	err := w.report.Apply(&api.Telemetry{AccessLogs: []*api.AccessLog{
		{Otlp: c.addr},
		{Otlp: c.addr, Format: "%REQ(:METHOD)% %RESPONSE_CODE%\n", Json: []*api.HeaderField{{Name: "path", Value: "%REQ(:PATH)%"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.report.Report(w.record())
	if got := w.lines(); got != "" {
		t.Errorf("lines besides: %q", got)
	}
	whole := receive(t, c.logs)
	if tags := texts(whole.GetAttributes()); whole.GetBody().GetStringValue() != "request complete" || tags["url.path"] != "/items" || tags["duration_ms"] != "12" || tags["tulle.policy"] != "shop/allow-web" {
		t.Errorf("%v", whole)
	}
	short := receive(t, c.logs)
	if tags := texts(short.GetAttributes()); short.GetBody().GetStringValue() != "GET 200" || tags["path"] != "/items?q=1" || len(tags) != 1 {
		t.Errorf("%v", short)
	}
}
