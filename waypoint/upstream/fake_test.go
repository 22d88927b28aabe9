package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// endpoints returns n healthy ones of weight 1, 10.0.x.y:8080.
func endpoints(n int) []upstream.Endpoint {
	out := make([]upstream.Endpoint, n)
	for i := range out {
		out[i] = upstream.Endpoint{
			UID:    fmt.Sprintf("Kubernetes//Pod/shop/web-%d", i),
			Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 8080),
			Weight: 1, Healthy: true,
		}
	}
	return out
}

// newBackend returns a backend with these endpoints, closed when the test ends.
func newBackend(t testing.TB, cfg upstream.Config, dialer upstream.Dialer, e []upstream.Endpoint) *upstream.Backend {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "shop/web:80"
	}
	b, err := upstream.New(cfg, dialer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.Update(e); err != nil {
		t.Fatal(err)
	}
	return b
}

func pick(t testing.TB, b *upstream.Backend, o upstream.Options) *upstream.Target {
	t.Helper()
	target, err := b.Pick(o)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// counts picks n times and counts by address.
func counts(t testing.TB, b *upstream.Backend, n int) map[netip.AddrPort]int {
	t.Helper()
	out := map[netip.AddrPort]int{}
	for range n {
		out[pick(t, b, upstream.Options{}).Endpoint().Addr]++
	}
	return out
}

// byAddr returns the target of an endpoint.
func byAddr(t testing.TB, b *upstream.Backend, e upstream.Endpoint) *upstream.Target {
	t.Helper()
	for range 100_000 {
		if target := pick(t, b, upstream.Options{}); target.Endpoint().Addr == e.Addr {
			return target
		}
	}
	t.Fatalf("%v is never picked", e.Addr)
	return nil
}

// answer reports one outcome of a call at the target.
func answer(target *upstream.Target, o upstream.Outcome) {
	call := target.Begin()
	call.Report(o)
	call.End()
}

// fakeDialer makes fakeClients.
type fakeDialer struct {
	mu      sync.Mutex
	clients []*fakeClient
	// before, when set, runs at the start of each Dial.
	before func(ctx context.Context, e *upstream.Endpoint) error
	// streams is what a server allows on an HTTP/2 connection; 0 is no limit.
	streams int
}

func (d *fakeDialer) Dial(ctx context.Context, e *upstream.Endpoint, p upstream.Protocol) (message.Client, error) {
	if d.before != nil {
		if err := d.before(ctx, e); err != nil {
			return nil, err
		}
	}
	c := &fakeClient{addr: e.Addr, done: make(chan struct{}), most: 1}
	if p == upstream.HTTP2 {
		if c.most = d.streams; c.most == 0 {
			c.most = 1 << 30
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clients = append(d.clients, c)
	return c, nil
}

// open returns the connections that are not closed.
func (d *fakeDialer) open() []*fakeClient {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*fakeClient
	for _, c := range d.clients {
		if !c.isClosed() {
			out = append(out, c)
		}
	}
	return out
}

func (d *fakeDialer) dialled() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.clients)
}

var errClosed = errors.New("connection closed")

// fakeClient is a connection that counts what is under way on it and refuses more
// than it can carry.
type fakeClient struct {
	addr netip.AddrPort
	done chan struct{}

	mu       sync.Mutex
	most     int
	active   int
	peak     int
	requests int
	closed   bool
	goingOff bool // the server said that it takes no more
	stale    bool // closed by the server, which is seen only when a request is sent
	broken   bool // an exchange was broken off
	status   int
}

func (c *fakeClient) Open(_ context.Context, _ *message.Request, _ bool) (message.ClientExchange, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.goingOff || c.stale || c.active >= c.most {
		c.broken = c.broken || c.stale
		return nil, &message.UnsentError{Err: errClosed}
	}
	c.active++
	c.requests++
	c.peak = max(c.peak, c.active)
	return &fakeExchange{client: c}, nil
}

func (c *fakeClient) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && !c.goingOff && !c.broken && c.active < c.most
}

func (c *fakeClient) Active() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

func (c *fakeClient) Done() <-chan struct{} { return c.done }

func (c *fakeClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.done)
	}
	return nil
}

func (c *fakeClient) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *fakeClient) set(change func(*fakeClient)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

type fakeExchange struct {
	client *fakeClient
	once   sync.Once
	body   message.Body
}

func (x *fakeExchange) Write(p []byte) (int, error)     { return len(p), nil }
func (x *fakeExchange) Flush() error                    { return nil }
func (x *fakeExchange) CloseWrite(message.Header) error { return nil }
func (x *fakeExchange) Response(context.Context) (*message.Response, error) {
	x.client.mu.Lock()
	defer x.client.mu.Unlock()
	if x.client.closed {
		return nil, errClosed
	}
	return &message.Response{Status: max(x.client.status, 200)}, nil
}

func (x *fakeExchange) Body() message.Body {
	if x.body == nil {
		return message.NoBody
	}
	return x.body
}
func (x *fakeExchange) Stream() (message.Stream, error) { return nil, io.ErrUnexpectedEOF }
func (x *fakeExchange) Close() error {
	x.once.Do(func() { x.client.set(func(c *fakeClient) { c.active-- }) })
	return nil
}

var get = &message.Request{Method: "GET", Scheme: "http", Authority: "web", Path: "/"}
