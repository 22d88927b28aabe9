package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// codecs dials with the waypoint's own clients.
type codecs struct{ dials atomic.Int64 }

func (c *codecs) Dial(ctx context.Context, e *upstream.Endpoint, p upstream.Protocol) (message.Client, error) {
	c.dials.Add(1)
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.Addr.String())
	if err != nil {
		return nil, err
	}
	if p == upstream.HTTP2 {
		return http2.NewClient(conn, http2.ClientConfig{})
	}
	return http1.NewClient(conn, http1.ClientConfig{})
}

// app is an application that answers with its name, behind a real listener.
type app struct {
	endpoint upstream.Endpoint
	listener net.Listener
	drain    func()
	served   atomic.Int64
	done     sync.WaitGroup
	cancel   context.CancelFunc
}

func startApp(t testing.TB, name string, p upstream.Protocol) *app {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &app{listener: l, cancel: cancel, endpoint: upstream.Endpoint{
		UID: name, Addr: netip.MustParseAddrPort(l.Addr().String()), Weight: 1, Healthy: true,
	}}
	handler := func(_ context.Context, x message.Exchange) {
		a.served.Add(1)
		if err := x.Respond(&message.Response{Status: 200, Length: int64(len(name))}, false); err != nil {
			return
		}
		if _, err := io.WriteString(x, name); err == nil {
			_ = x.Close(nil)
		}
	}
	serve := (&http1.Server{Handler: handler}).Serve
	if p == upstream.HTTP2 {
		s := &http2.Server{Handler: handler, Config: http2.ServerConfig{MaxStreams: 10}}
		serve, a.drain = s.Serve, s.Drain
	} else {
		s := &http1.Server{Handler: handler}
		serve, a.drain = s.Serve, s.Drain
	}
	a.done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			a.done.Go(func() { _ = serve(ctx, conn) })
		}
	})
	t.Cleanup(a.stop)
	return a
}

func (a *app) stop() {
	_ = a.listener.Close()
	a.cancel()
	a.done.Wait()
}

// ask sends a request, as often as the policy allows, and returns the content.
func ask(ctx context.Context, b *upstream.Backend, p upstream.Protocol) (string, error) {
	policy := upstream.DefaultRetry()
	var tried []*upstream.Target
	free := 0
	for number := 1; ; number++ {
		content, x, err := once(ctx, b, p, tried)
		if err == nil {
			return content, nil
		}
		if x.Target() != nil {
			tried = append(tried, x.Target())
		}
		d := policy.Decide(get, upstream.Attempt{
			Number: number, Free: free, Failure: upstream.FailureOf(ctx, err), Reused: x.Reused(), Replayable: true,
		})
		if !d.Retry {
			return "", fmt.Errorf("attempt %d: %w (%s)", number, err, d.Reason)
		}
		if d.Free {
			free++
		}
		select {
		case <-time.After(d.After):
		case <-ctx.Done():
		}
	}
}

func once(ctx context.Context, b *upstream.Backend, p upstream.Protocol, tried []*upstream.Target) (string, upstream.Exchange, error) {
	x, err := b.Send(ctx, p, upstream.Options{Avoid: tried}, get.Clone(), true)
	if err != nil {
		return "", x, err
	}
	r, err := x.Response(ctx)
	if err != nil {
		x.Report(upstream.Outcome{Failure: upstream.FailureOf(ctx, err)})
		_ = x.Close()
		return "", x, err
	}
	x.Report(upstream.Outcome{Status: r.Status})
	content, err := io.ReadAll(x.Body())
	return string(content), x, errors.Join(err, x.Close())
}

// Applications come and go under load, with their own goodbyes, and no request fails.
func TestNoRequestFailsWhenApplicationsGo(t *testing.T) {
	for _, p := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
		t.Run(p.String(), func(t *testing.T) {
			d := &codecs{}
			apps := []*app{startApp(t, "a", p), startApp(t, "b", p), startApp(t, "c", p)}
			e := []upstream.Endpoint{apps[0].endpoint, apps[1].endpoint, apps[2].endpoint}
			b := newBackend(t, upstream.Config{Outlier: upstream.DefaultOutlier()}, d, e)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			stop := make(chan struct{})
			var wg sync.WaitGroup
			var good atomic.Int64
			for range 16 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if _, err := ask(ctx, b, p); err != nil {
							t.Error(err)
							return
						}
						good.Add(1)
					}
				})
			}
			reach := func(n int64) {
				for from := good.Load(); good.Load() < from+n && ctx.Err() == nil; {
					time.Sleep(time.Millisecond)
				}
			}
			reach(500)
			if err := b.Update(e[:2]); err != nil { // c is told of first, then stops
				t.Error(err)
			}
			apps[2].drain()
			reach(500)
			apps[1].drain() // b stops, and nobody was told
			_ = apps[1].listener.Close()
			reach(500)
			close(stop)
			wg.Wait()
			if p == upstream.HTTP2 && d.dials.Load() > 30 {
				t.Errorf("%d connections were made for 16 requests at a time", d.dials.Load())
			}
			for _, a := range apps {
				if a.served.Load() < 50 {
					t.Errorf("%s served %d requests", a.endpoint.UID, a.served.Load())
				}
			}
		})
	}
}

func TestCheckersAskRealServers(t *testing.T) {
	var status atomic.Int64
	status.Store(200)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, strings.Repeat("fine ", 10_000))
	}))
	defer web.Close()
	e := upstream.Endpoint{Addr: netip.MustParseAddrPort(web.Listener.Addr().String())}
	d := &codecs{}
	check := upstream.HTTPChecker{Dialer: d, Path: "/healthz"}
	if err := check.Check(t.Context(), &e); err != nil {
		t.Error(err)
	}
	status.Store(503)
	if err := check.Check(t.Context(), &e); err == nil || err.Error() != "status 503" {
		t.Errorf("error %v", err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, healthy := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, healthy)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	defer func() { server.Stop(); <-done }()
	e = upstream.Endpoint{Addr: netip.MustParseAddrPort(l.Addr().String())}
	if err := (upstream.GRPCChecker{Dialer: d}).Check(t.Context(), &e); err != nil {
		t.Error(err)
	}
	healthy.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	for service, want := range map[string]string{"shop.Cart": "NOT_SERVING", "nobody": "grpc-status 5"} {
		if err := (upstream.GRPCChecker{Dialer: d, Service: service}).Check(t.Context(), &e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", service, err, want)
		}
	}
	// A server that never answers fails the check when its time is over.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	e = upstream.Endpoint{Addr: netip.MustParseAddrPort(silent.Addr().String())}
	if err := check.Check(ctx, &e); err == nil {
		t.Error("a silent server passes")
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := (upstream.GRPCChecker{Dialer: d}).Check(ctx, &e); err == nil {
		t.Error("a silent server passes")
	}
}

func BenchmarkRealRequests(b *testing.B) {
	for _, p := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
		b.Run(p.String(), func(b *testing.B) {
			apps := []*app{startApp(b, "a", p), startApp(b, "b", p)}
			backend := newBackend(b, upstream.Config{}, &codecs{}, []upstream.Endpoint{apps[0].endpoint, apps[1].endpoint})
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := once(b.Context(), backend, p, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
