package otlp_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/tulle-mesh/tulle/waypoint/otlp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait.
const patience = 30 * time.Second

// host is a loopback address of this process's own.
func host() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>14&0x3f, pid>>7&0x7f, 1+pid&0x7f)
}

// collector is a server of OTLP's trace service.
type collector struct {
	addr   string
	spans  chan *tracepb.ResourceSpans
	answer func(n int64) error
	calls  atomic.Int64
}

func newCollector(t *testing.T, answer func(n int64) error) *collector {
	t.Helper()
	c := &collector{spans: make(chan *tracepb.ResourceSpans, 100), answer: answer}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.trace.v1.TraceService", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var body tracepb.TracesData
			if err := decode(&body); err != nil {
				return nil, err
			}
			if c.answer != nil {
				if err := c.answer(c.calls.Add(1)); err != nil {
					return nil, err
				}
			}
			for _, r := range body.GetResourceSpans() {
				c.spans <- r
			}
			return new(emptypb.Empty), nil
		}}},
	}, struct{}{})
	ln, err := net.Listen("tcp", net.JoinHostPort(host(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	c.addr = ln.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return c
}

func (c *collector) next(t *testing.T) *tracepb.ResourceSpans {
	t.Helper()
	select {
	case r := <-c.spans:
		return r
	case <-time.After(patience):
		t.Fatal("nothing came")
		return nil
	}
}

func start(t *testing.T, addr string, lost *atomic.Uint64) *otlp.Spans {
	t.Helper()
	s, err := otlp.NewSpans(otlp.Config{Addr: addr, Lost: lost, Resource: &resourcepb.Resource{Attributes: otlp.Texts(nil, "service.name", "l7.shop", "none", "")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestSpansArriveInBatchesOfTheirResource(t *testing.T) {
	c := newCollector(t, nil)
	s := start(t, c.addr, nil)
	for range 3 {
		s.Add(&tracepb.Span{Name: "GET"})
	}
	s.Close()
	r := c.next(t)
	if len(r.GetResource().GetAttributes()) != 1 || r.GetScopeSpans()[0].GetScope().GetName() != otlp.Scope || len(r.GetScopeSpans()[0].GetSpans()) != 3 {
		t.Errorf("%v", r)
	}
}

func TestNoOctetsOfAClientLoseABatch(t *testing.T) {
	c := newCollector(t, nil)
	s := start(t, c.addr, nil)
	s.Add(&tracepb.Span{Name: "GET", Attributes: otlp.Texts(nil, "user_agent.original", "a\xff")})
	s.Close()
	if got := c.next(t).GetScopeSpans()[0].GetSpans()[0].GetAttributes()[0].GetValue().GetStringValue(); got != "a\ufffd" {
		t.Errorf("%q", got)
	}
}

func TestABatchWaitsNotForEver(t *testing.T) {
	c := newCollector(t, nil)
	s := start(t, c.addr, nil)
	s.Add(&tracepb.Span{Name: "GET"})
	c.next(t) // without the end
}

func TestWhatIsRefusedForAMomentIsSentAgain(t *testing.T) {
	c := newCollector(t, func(n int64) error {
		if n == 1 {
			return status.Error(codes.Unavailable, "not yet")
		}
		return nil
	})
	var lost atomic.Uint64
	s := start(t, c.addr, &lost)
	s.Add(&tracepb.Span{Name: "GET"})
	s.Close()
	c.next(t)
	if lost.Load() != 0 {
		t.Errorf("%d lost", lost.Load())
	}
}

func TestWhatIsRefusedForGoodIsCounted(t *testing.T) {
	c := newCollector(t, func(int64) error { return status.Error(codes.InvalidArgument, "no") })
	var lost atomic.Uint64
	s := start(t, c.addr, &lost)
	s.Add(&tracepb.Span{Name: "GET"})
	s.Close()
	if lost.Load() != 1 || c.calls.Load() != 1 {
		t.Errorf("%d lost after %d calls", lost.Load(), c.calls.Load())
	}
}

func TestACollectorThatIsGoneHoldsNobodyUp(t *testing.T) {
	var lost atomic.Uint64
	s := start(t, net.JoinHostPort(host(), "9"), &lost)
	began := time.Now()
	for range 5000 {
		s.Add(&tracepb.Span{Name: "GET"})
	}
	if d := time.Since(began); d > patience {
		t.Errorf("queueing took %v", d)
	}
	s.Close()
	s.Close()
	s.Add(&tracepb.Span{})
	if lost.Load() != 5001 {
		t.Errorf("%d lost", lost.Load())
	}
}
