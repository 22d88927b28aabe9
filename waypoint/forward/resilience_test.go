package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/waypoint/forward"
)

func injected(f *api.Fault) *api.RouteTable {
	f.Ref = &api.RouteRef{Kind: "FaultPolicy", Namespace: "shop", Name: "slow", Rule: "0"}
	return rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Filters: []*api.Filter{{Kind: &api.Filter_Fault{Fault: f}}}})
}

func TestFaultsAreInjected(t *testing.T) {
	versions(t, func(t *testing.T, c *http.Client) {
		w := newWorld(t)
		var calls atomic.Int32
		w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) }))

		w.routes(injected(&api.Fault{Abort: &api.FaultAbort{Status: 418}}))
		if r, body := get(t, c, w.url); r.StatusCode != 418 || body != "fault filter abort\n" {
			t.Errorf("%d %q", r.StatusCode, body)
		}
		w.recorded(func(r forward.Record) bool {
			return r.Flag == "FI" && r.Detail == "FaultPolicy/shop/slow/0" && r.Attempts == 0
		})
		w.routes(injected(&api.Fault{Abort: &api.FaultAbort{HasGrpcStatus: true, GrpcStatus: 14}}))
		if r, _ := get(t, c, w.url); r.StatusCode != 503 {
			t.Errorf("a gRPC status for a plain request: %d", r.StatusCode)
		}
		r, err := http.NewRequest("POST", w.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.Header.Get("grpc-status") != "14" {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
		w.routes(injected(&api.Fault{Abort: &api.FaultAbort{Reset_: true}}))
		if r, err := c.Get(w.url); err == nil {
			t.Errorf("a response where there is none: %d", r.StatusCode)
		}
		if calls.Load() != 0 {
			t.Errorf("%d requests reached the application", calls.Load())
		}
		begin := time.Now()
		w.routes(injected(&api.Fault{Delay: &api.FaultDelay{Duration: durationpb.New(50 * time.Millisecond)}}))
		if r, _ := get(t, c, w.url); r.StatusCode != 200 || time.Since(begin) < 50*time.Millisecond {
			t.Errorf("%d after %v", r.StatusCode, time.Since(begin))
		}
		w.recorded(func(r forward.Record) bool { return r.Flag == "DI" && r.Status == 200 })
		w.routes(injected(&api.Fault{
			Abort:   &api.FaultAbort{Status: 500},
			Headers: []*api.FieldMatch{{Name: "x-chaos", Kind: &api.FieldMatch_Present{Present: true}}},
		}))
		if r, _ := get(t, c, w.url); r.StatusCode != 200 {
			t.Errorf("a request without the field: %d", r.StatusCode)
		}
		w.routes(injected(&api.Fault{Abort: &api.FaultAbort{Status: 500, Numerator: 0, Denominator: 100}}))
		if r, _ := get(t, c, w.url); r.StatusCode != 200 {
			t.Errorf("none of a hundred: %d", r.StatusCode)
		}
	})
}

// A request that a fault holds up takes no place of the backend's limits.
func TestDelaysHoldNoPlace(t *testing.T) {
	w := newWorld(t)
	c := httpClient(t, true)
	w.service("web", apiworkload.AppProtocol_HTTP11, named(t, "web"))
	w.destine("web", &api.Destination{Settings: &api.DestinationSettings{Circuit: &api.Circuit{Requests: 2}}})
	w.routes(injected(&api.Fault{
		Delay:   &api.FaultDelay{Duration: durationpb.New(time.Minute)},
		Headers: []*api.FieldMatch{{Name: "x-slow", Kind: &api.FieldMatch_Present{Present: true}}},
	}))
	ctx, cancel := context.WithCancel(t.Context())
	const delayed = 2
	slow := make(chan error, delayed)
	for range delayed {
		go func() {
			r, err := http.NewRequestWithContext(ctx, "GET", w.url, nil)
			if err == nil {
				r.Header.Set("x-slow", "1")
				_, err = c.Do(r)
			}
			slow <- err
		}()
	}
	for w.forward.Active() < delayed {
		runtime.Gosched()
	}
	// One place is for the request before, which gives it back behind its response.
	for range 5 {
		if r, _ := get(t, c, w.url); r.StatusCode != 200 {
			t.Errorf("%d", r.StatusCode)
		}
	}
	cancel()
	for range delayed {
		if err := <-slow; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	w.recorded(func(r forward.Record) bool { return strings.Contains(r.Flag, "DI") && r.Err != nil })
}

func retried(r *api.Retry) *api.RouteTable {
	return rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Retry: r})
}

func TestContentThatComesLateIsSentAgain(t *testing.T) {
	versions(t, func(t *testing.T, c *http.Client) {
		w := newWorld(t)
		var calls atomic.Int32
		w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			if calls.Add(1) < 3 {
				w.WriteHeader(500)
			}
			fmt.Fprintf(w, "%s %s", body, r.Trailer.Get("x-end"))
		}))
		w.routes(retried(&api.Retry{Attempts: 2, Codes: []uint32{500}, Conditions: []string{"retriable-status-codes"}}))
		begun, content := io.Pipe()
		go func() {
			for range 3 {
				_, _ = io.WriteString(content, "piece ")
			}
			_ = content.Close()
		}()
		r, err := http.NewRequest("POST", w.url, begun)
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"X-End": {"yes"}}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 || string(body) != "piece piece piece  yes" || calls.Load() != 3 {
			t.Errorf("%d %q after %d calls", resp.StatusCode, body, calls.Load())
		}
		w.recorded(func(r forward.Record) bool { return r.Status == 200 && r.Attempts == 3 && r.Received == 18 })
	})
}

func TestContentThatIsLongIsSentOnce(t *testing.T) {
	w := newWorld(t)
	var calls atomic.Int32
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		calls.Add(1)
		w.WriteHeader(500)
	}))
	w.routes(retried(&api.Retry{Attempts: 2, Codes: []uint32{500}}))
	resp, err := httpClient(t, true).Post(w.url, "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 500 || calls.Load() != 1 {
		t.Errorf("%d after %d calls", resp.StatusCode, calls.Load())
	}
}

func TestRetriesGoElsewhere(t *testing.T) {
	w := newWorld(t)
	var bad atomic.Int32
	failing := app(t, func(w http.ResponseWriter, r *http.Request) {
		bad.Add(1)
		w.WriteHeader(503)
	})
	w.service("web", apiworkload.AppProtocol_HTTP11, failing, named(t, "good"))
	c := httpClient(t, false)
	w.routes(retried(&api.Retry{Attempts: 1, Conditions: []string{"gateway-error"}}))
	for range 8 {
		if r, _ := get(t, c, w.url); r.StatusCode != 200 {
			t.Errorf("%d", r.StatusCode)
		}
	}
	if bad.Load() == 0 {
		t.Error("nobody was sent to the failing endpoint")
	}
	// One that limits rates is not asked again, unless the policy says so.
	w = newWorld(t)
	var limited atomic.Int32
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		limited.Add(1)
		w.Header().Set("x-envoy-ratelimited", "true")
		w.WriteHeader(503)
	}))
	for n, conditions := range map[int32][]string{1: {"gateway-error"}, 2: {"gateway-error", "envoy-ratelimited"}} {
		limited.Store(0)
		w.routes(retried(&api.Retry{Attempts: 1, Conditions: conditions}))
		get(t, c, w.url)
		if limited.Load() != n {
			t.Errorf("%v: %d attempts, want %d", conditions, limited.Load(), n)
		}
	}
}

func TestDeadlinesAreHandedOn(t *testing.T) {
	w := newWorld(t)
	c := httpClient(t, true)
	told := make(chan http.Header, 1)
	w.service("web", apiworkload.AppProtocol_HTTP2, app(t, func(w http.ResponseWriter, r *http.Request) {
		told <- r.Header
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("grpc-status", "0")
	}))
	call := func(timeout string) http.Header {
		r, err := http.NewRequest("POST", w.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		if timeout != "" {
			r.Header.Set("grpc-timeout", timeout)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return <-told
	}
	w.routes()
	if h := call(""); h.Get("grpc-timeout")+h.Get("x-envoy-expected-rq-timeout-ms") != "" {
		t.Errorf("without a deadline: %v", h)
	}
	micros := func(h http.Header) int {
		n, err := strconv.Atoi(strings.TrimSuffix(h.Get("grpc-timeout"), "u"))
		if err != nil {
			t.Errorf("grpc-timeout %q", h.Get("grpc-timeout"))
		}
		return n
	}
	if n := micros(call("10S")); n >= 10_000_000 || n < 5_000_000 {
		t.Errorf("%d µs are left of ten seconds", n)
	}
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Timeouts: &api.Timeouts{Request: durationpb.New(5 * time.Second)}}))
	if n := micros(call("10S")); n >= 5_000_000 {
		t.Errorf("%d µs where the route allows five seconds", n)
	}
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Timeouts: &api.Timeouts{Request: durationpb.New(5 * time.Second), Backend: durationpb.New(time.Second)}}))
	if h := call(""); h.Get("x-envoy-expected-rq-timeout-ms") != "1000" {
		t.Errorf("%v", h)
	}
}

// The time of a request runs while its client is slow to send it.
func TestSlowContentEndsWithTheRequestsTime(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, named(t, "web"))
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Timeouts: &api.Timeouts{Request: durationpb.New(50 * time.Millisecond)}}))
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nten bytes"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("%q, %v", answer, err)
	}
	w.recorded(func(r forward.Record) bool { return r.Status == 408 && r.Attempts == 0 && r.Err != nil })
}
