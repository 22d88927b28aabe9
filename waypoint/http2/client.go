package http2

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// ClientConfig are the settings of a client. The zero value works.
type ClientConfig struct {
	// KeepAlive is the silence after which the server is asked for a sign of life, 0 for
	// never; KeepAliveTimeout is the wait for it, 0 for as long.
	KeepAlive, KeepAliveTimeout time.Duration
	// Budget bounds the growth of the receive windows of all connections that share it;
	// nil: each has one of its own, of 32 MiB.
	Budget *Budget
}

// ClientConn is a connection to a server. It implements message.Client.
type ClientConn struct{ c conn }

var _ message.Client = (*ClientConn)(nil)

// NewClient returns a client on nc, which it owns. Nothing is sent before the first
// Open, so that the preface leaves together with the first request; what the server
// says of its limits is then waited for only where they matter. The error is nil.
func NewClient(nc net.Conn, cfg ClientConfig) (*ClientConn, error) {
	cc := &ClientConn{}
	c := &cc.c
	c.init(nc, nil, cfg.Budget)
	c.watch.start(c, timeouts{keepAlive: cfg.KeepAlive, keepAliveTimeout: cfg.KeepAliveTimeout})
	go c.run()
	return cc, nil
}

var errClosed = errors.New("closed by this end")

// errUnsettled says that the server's SETTINGS must be known first.
var errUnsettled = errors.New("server has not sent its SETTINGS")

// Open implements message.Client. ctx bounds the whole exchange.
func (cc *ClientConn) Open(ctx context.Context, r *message.Request, end bool) (message.ClientExchange, error) {
	q, err := cc.open(ctx, r, end)
	if err != nil {
		return nil, &message.UnsentError{Err: err}
	}
	return q, nil
}

func (cc *ClientConn) open(ctx context.Context, r *message.Request, end bool) (*clientExchange, error) {
	octets, err := checkRequest(r)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	q := &clientExchange{head: r.Method == http.MethodHead, upgrade: r.Protocol != "",
		connect: r.Method == http.MethodConnect || r.Protocol != ""}
	c := &cc.c
	s := &q.stream
	s.c, s.q, s.ctx, s.done = c, q, ctx, ctx.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		// Room first: while that is waited for, the rest may change.
		if err := s.awaitRoom(); err != nil {
			return nil, err
		}
		err := c.mayOpen(q.upgrade)
		if err == nil {
			break
		}
		if err != errUnsettled {
			return nil, err
		}
		if err := c.awaitSettings(ctx); err != nil {
			return nil, err
		}
	}
	s.init(c, c.nextID)
	c.nextID += 2
	c.streams[s.id] = s
	s.headAt = c.out.at()
	start := c.beginHead(octets)
	c.appendRequest(r, end)
	c.endHead(s, start, end)
	s.putOff += octets
	s.sendLeft = r.Length
	if q.connect {
		s.sendLeft = -1
	}
	if end {
		s.sendLeft = 0
		s.sent()
		c.kick()
	}
	return q, nil
}

// mayOpen tells why no request can be sent now; mu is held.
func (c *conn) mayOpen(upgrade bool) error {
	settled := false
	select {
	case <-c.settled:
		settled = true
	default:
	}
	full := uint32(len(c.streams)) >= c.peerMaxStreams
	switch {
	case c.err != nil:
		return c.err
	case c.draining, c.nextID > maxWindow:
		return ErrDraining
	case !settled && (full || upgrade):
		return errUnsettled
	case full:
		return ErrTooManyStreams
	case upgrade && !c.peerConnect:
		return ErrNoUpgrade
	}
	return nil
}

// awaitSettings waits for the server's SETTINGS; mu is held, but free meanwhile.
func (c *conn) awaitSettings(ctx context.Context) error {
	c.kick()
	c.mu.Unlock()
	defer c.mu.Lock()
	limit := time.NewTimer(settingsTimeout)
	defer limit.Stop()
	select {
	case <-c.settled:
	case <-c.finished:
	case <-limit.C:
		return errUnsettled
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// checkRequest returns what a head takes at most, and an error for one that cannot be
// sent.
func checkRequest(r *message.Request) (int, error) {
	octets, err := checkFields(r.Header)
	if err != nil {
		return 0, err
	}
	for _, s := range [...]string{r.Method, r.Scheme, r.Authority, r.Path, r.Query, r.Protocol} {
		for i := range len(s) {
			if s[i] <= ' ' || s[i] >= 0x7f {
				return 0, errBadField
			}
		}
		octets += len(s) + 32
	}
	return octets, nil
}

// appendRequest appends the fields of a request; mu is held.
func (c *conn) appendRequest(r *message.Request, end bool) {
	method := r.Method
	if r.Protocol != "" {
		method = http.MethodConnect // RFC 8441, 4
	}
	c.field(":method", method)
	if method != http.MethodConnect || r.Protocol != "" {
		c.field(":scheme", r.Scheme)
		c.field(":path", r.Target())
	}
	c.field(":authority", r.Authority)
	if r.Protocol != "" {
		c.field(":protocol", r.Protocol)
	}
	for i := range r.Header {
		f := &r.Header[i]
		if r.Protocol != "" && f.Name == "sec-websocket-key" {
			continue // what it proves goes without saying in HTTP/2 (RFC 8441, 5.1)
		}
		c.regularField(f)
	}
	if r.ExpectContinue && !end {
		c.field("expect", "100-continue")
	}
	length := r.Length
	if end {
		length = min(length, 0)
	}
	switch {
	case method == http.MethodConnect || length < 0:
	case length > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		c.out.b = c.enc.AppendInt(c.out.b, "content-length", length)
	}
}

// Usable implements message.Client.
func (cc *ClientConn) Usable() bool {
	c := &cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.mayOpen(false)
	return err == nil || err == errUnsettled
}

// Active implements message.Client.
func (cc *ClientConn) Active() int {
	c := &cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}

// Done implements message.Client.
func (cc *ClientConn) Done() <-chan struct{} { return cc.c.finished }

// Err returns why the connection ended, a *ConnError, and nil while it works.
func (cc *ClientConn) Err() error {
	c := &cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return c.err
}

// Drain makes the connection end after the requests under way. It does not wait.
func (cc *ClientConn) Drain() {
	c := &cc.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.endIfDrained()
}

// Close implements message.Client. It waits until the connection is closed, at most
// about a second.
func (cc *ClientConn) Close() error {
	cc.c.fail(&ConnError{Cause: errClosed})
	<-cc.c.finished
	return nil
}
