package upstream_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// scripted answers checks by address.
type scripted struct {
	mu     sync.Mutex
	ill    map[string]bool
	checks map[string]int
	hang   bool
}

func (s *scripted) Check(ctx context.Context, e *upstream.Endpoint) error {
	s.mu.Lock()
	s.checks[e.String()]++
	ill, hang := s.ill[e.String()], s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if ill {
		return errors.New("ill")
	}
	return nil
}

func (s *scripted) set(addr string, ill bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ill[addr] = ill
}

func TestActiveChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endpoints(4)
		c := &scripted{ill: map[string]bool{e[1].String(): true}, checks: map[string]int{}}
		cfg := upstream.Config{Health: &upstream.Health{Checker: c}}
		b := newBackend(t, cfg, nil, e)
		if got := left(b); got != "0 1 2 3" && len(strings.Fields(got)) != 4 {
			t.Errorf("left %q before the first check", got)
		}
		has := func(want ...int) {
			t.Helper()
			for i := range e {
				if serving(b, e[i].Addr) != slices.Contains(want, i) {
					t.Errorf("endpoint %d takes part: %v", i, !slices.Contains(want, i))
				}
			}
		}
		time.Sleep(1500 * time.Millisecond) // the first check decides
		has(0, 2, 3)
		c.set(e[1].String(), false)
		c.set(e[0].String(), true)
		time.Sleep(12 * time.Second) // one check more
		has(0, 2, 3)
		time.Sleep(11 * time.Second) // two: enough to come back
		has(0, 1, 2, 3)
		time.Sleep(11 * time.Second) // three: enough to go
		has(1, 2, 3)
		// A check that does not end has failed.
		c.mu.Lock()
		c.hang = true
		c.mu.Unlock()
		time.Sleep(40 * time.Second)
		has()
		if _, err := b.Pick(upstream.Options{}); err == nil || !strings.Contains(err.Error(), "4 failing checks") {
			t.Errorf("error %v", err)
		}
		// Who is gone is not asked any more.
		if err := b.Update(e[:1]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.mu.Lock()
		clear(c.checks)
		c.mu.Unlock()
		time.Sleep(time.Minute)
		c.mu.Lock()
		if len(c.checks) != 1 || c.checks[e[0].String()] < 5 {
			t.Errorf("checks in a minute: %v", c.checks)
		}
		c.mu.Unlock()
		// Without checks nobody fails them.
		cfg.Health = nil
		if err := b.Configure(cfg); err != nil {
			t.Fatal(err)
		}
		has(0)
		b.Close()
	})
}

// healthDialer answers with one response.
type healthDialer struct {
	response message.Response
	body     []byte
	trailer  message.Header
	interim  bool
	err      error

	got  *message.Request
	sent []byte
	p    upstream.Protocol
}

func (d *healthDialer) Dial(_ context.Context, _ *upstream.Endpoint, p upstream.Protocol) (message.Client, error) {
	d.p = p
	return &healthClient{fakeClient: fakeClient{done: make(chan struct{}), most: 1}, d: d}, d.err
}

type healthClient struct {
	fakeClient
	d *healthDialer
}

func (c *healthClient) Open(_ context.Context, r *message.Request, _ bool) (message.ClientExchange, error) {
	c.d.got = r
	return &healthExchange{d: c.d, rest: c.d.body}, nil
}

type healthExchange struct {
	d    *healthDialer
	rest []byte
}

func (x *healthExchange) Write(p []byte) (int, error) {
	x.d.sent = append(x.d.sent, p...)
	return len(p), nil
}
func (x *healthExchange) Flush() error                    { return nil }
func (x *healthExchange) CloseWrite(message.Header) error { return nil }
func (x *healthExchange) Response(context.Context) (*message.Response, error) {
	if x.d.interim {
		x.d.interim = false
		return &message.Response{Status: 103}, nil
	}
	return &x.d.response, nil
}
func (x *healthExchange) Body() message.Body              { return x }
func (x *healthExchange) Stream() (message.Stream, error) { return nil, io.ErrUnexpectedEOF }
func (x *healthExchange) Close() error                    { return nil }
func (x *healthExchange) Trailer() message.Header         { return x.d.trailer }
func (x *healthExchange) Read(p []byte) (int, error) {
	if len(x.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, x.rest)
	x.rest = x.rest[n:]
	return n, nil
}

func TestHTTPChecker(t *testing.T) {
	e := endpoints(1)[0]
	for _, c := range []struct {
		status, low, high int
		ok                bool
	}{{200, 0, 0, true}, {204, 0, 0, true}, {301, 0, 0, false}, {503, 0, 0, false}, {301, 300, 399, true}} {
		d := &healthDialer{response: message.Response{Status: c.status}, interim: true, body: make([]byte, 1<<20)}
		err := upstream.HTTPChecker{Dialer: d, Path: "/healthz?deep=1", Low: c.low, High: c.high}.Check(t.Context(), &e)
		if (err == nil) != c.ok {
			t.Errorf("status %d from %d to %d: %v", c.status, c.low, c.high, err)
		}
		if d.got.Method != "GET" || d.got.Path != "/healthz" || d.got.Query != "deep=1" || d.got.Authority != "10.0.0.0:8080" {
			t.Errorf("request %+v", d.got)
		}
	}
	d := &healthDialer{err: errClosed}
	if err := (upstream.HTTPChecker{Dialer: d}).Check(t.Context(), &e); !errors.Is(err, errClosed) {
		t.Errorf("error %v", err)
	}
}

func grpcMessage(m string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

func TestGRPCChecker(t *testing.T) {
	e := endpoints(1)[0]
	ok := message.Header{{Name: "grpc-status", Value: "0"}}
	for _, c := range []struct {
		name    string
		status  int
		header  message.Header
		body    []byte
		trailer message.Header
		want    string
	}{
		{"serving", 200, nil, grpcMessage("\x08\x01"), ok, ""},
		{"serving, with a field that is not known", 200, nil, grpcMessage("\x12\x01x\x08\x01"), ok, ""},
		{"not serving", 200, nil, grpcMessage("\x08\x02"), ok, "NOT_SERVING"},
		{"unknown", 200, nil, grpcMessage(""), ok, "UNKNOWN"},
		{"not implemented", 200, message.Header{{Name: "grpc-status", Value: "12"}}, nil, nil, "grpc-status 12"},
		{"no status", 200, nil, grpcMessage("\x08\x01"), nil, "no grpc-status"},
		{"no gRPC", 404, nil, nil, nil, "status 404"},
		{"compressed", 200, nil, append([]byte{1}, grpcMessage("\x08\x01")[1:]...), ok, "compressed"},
		{"too long", 200, nil, make([]byte, 10_000), ok, "more than"},
		{"two messages", 200, nil, append(grpcMessage("\x08\x01"), grpcMessage("\x08\x01")...), ok, "prefix says"},
	} {
		d := &healthDialer{response: message.Response{Status: c.status, Header: c.header}, body: c.body, trailer: c.trailer}
		err := upstream.GRPCChecker{Dialer: d, Service: "shop"}.Check(t.Context(), &e)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if string(d.sent) != "\x00\x00\x00\x00\x06\x0a\x04shop" || d.got.Path != "/grpc.health.v1.Health/Check" || d.p != upstream.HTTP2 {
			t.Errorf("%s: sent %q to %s by %v", c.name, d.sent, d.got.Path, d.p)
		}
	}
	// Every truncation is an error.
	whole := grpcMessage("\x12\x01x\x08\x01")
	for n := range whole {
		d := &healthDialer{response: message.Response{Status: 200}, body: whole[:n], trailer: ok}
		if err := (upstream.GRPCChecker{Dialer: d}).Check(t.Context(), &e); err == nil {
			t.Errorf("%q is taken for a whole answer", whole[:n])
		}
	}
}

func FuzzGRPCHealth(f *testing.F) {
	f.Add(grpcMessage("\x08\x01"))
	f.Add(grpcMessage("\x12\x01x\x08\x01"))
	f.Add([]byte{})
	e := endpoints(1)[0]
	f.Fuzz(func(t *testing.T, body []byte) {
		d := &healthDialer{response: message.Response{Status: 200}, body: body, trailer: message.Header{{Name: "grpc-status", Value: "0"}}}
		err := upstream.GRPCChecker{Dialer: d}.Check(t.Context(), &e)
		if err == nil && (len(body) < 7 || len(body) > 5<<10) {
			t.Errorf("%q passes", body)
		}
	})
}

func TestTCPChecker(t *testing.T) {
	e := endpoints(1)[0]
	closed := make(chan struct{})
	c := upstream.TCPChecker{Connector: connector(func(context.Context, *upstream.Endpoint) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			_, _ = far.Read(make([]byte, 1))
			close(closed)
		}()
		return near, nil
	})}
	if err := c.Check(t.Context(), &e); err != nil {
		t.Error(err)
	}
	<-closed
	c.Connector = connector(func(context.Context, *upstream.Endpoint) (net.Conn, error) { return nil, errClosed })
	if err := c.Check(t.Context(), &e); !errors.Is(err, errClosed) {
		t.Errorf("error %v", err)
	}
}

// connector is a function that connects.
type connector func(context.Context, *upstream.Endpoint) (net.Conn, error)

func (f connector) Connect(ctx context.Context, e *upstream.Endpoint) (net.Conn, error) {
	return f(ctx, e)
}
