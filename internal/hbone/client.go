package hbone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/http2"
)

// ClientConfig are the settings of a client's tunnel. The zero value works.
type ClientConfig struct {
	// ExpiresAt is the moment from which no new stream is opened; zero: never.
	ExpiresAt time.Time
	// KeepAlive is the silence after which the peer is asked for a sign of life, and
	// KeepAliveTimeout the wait for it; zero: 20 s and 10 s; a negative KeepAlive turns it off.
	KeepAlive, KeepAliveTimeout time.Duration
	// Budget bounds the growth of the receive windows of all tunnels that share it; nil: one of its own.
	Budget *Budget
}

// ClientConn is the client's side of an HTTP/2 tunnel. It implements Tunnel.
type ClientConn struct{ t *tunnel }

var _ Tunnel = (*ClientConn)(nil)

// NewClient starts a tunnel on conn, which it owns from then on, also when it
// fails: a tls.Conn on a BufferedConn for speed, or any other connection. A TLS
// handshake that has not happened yet is done here. It does not wait for the peer's
// SETTINGS: a first Open may follow at once.
func NewClient(conn net.Conn, cfg ClientConfig) (*ClientConn, error) {
	l, err := newLink(context.Background(), conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	t := newTunnel(l, nil, options{
		keepAlive: cfg.KeepAlive, keepAliveTimeout: cfg.KeepAliveTimeout,
		maxHeaderList: maxHeaderListClient, expiresAt: cfg.ExpiresAt,
	}, cfg.Budget)
	go t.run()
	return &ClientConn{t: t}, nil
}

// Open implements Tunnel. Ending ctx cancels the request.
func (c *ClientConn) Open(ctx context.Context, q Request) (Stream, Response, error) {
	if err := q.Validate(); err != nil {
		return nil, Response{}, err
	}
	if err := ctx.Err(); err != nil {
		return nil, Response{}, context.Cause(ctx)
	}
	s, answer, err := c.t.openStream(q)
	if err == errUnsettled {
		// More streams at once than any peer is sure to take: ask how many it does.
		select {
		case <-c.t.settled:
		case <-c.t.finished:
		case <-ctx.Done():
			return nil, Response{}, context.Cause(ctx)
		}
		s, answer, err = c.t.openStream(q)
	}
	if err != nil {
		return nil, Response{}, err
	}
	select {
	case <-answer:
	case <-ctx.Done():
		s.Reset(CodeCancel)
		return nil, Response{}, context.Cause(ctx)
	}
	return c.t.opened(s)
}

// openStream sends the request.
func (t *tunnel) openStream(q Request) (*stream, <-chan struct{}, error) {
	t.mu.Lock()
	if err := t.mayOpen(); err != nil {
		t.mu.Unlock()
		return nil, nil, err
	}
	id := t.nextID
	t.nextID += 2
	s := t.newStream(id, true)
	answer := make(chan struct{})
	s.answer = answer
	t.streams[id] = s
	err := t.writeRequest(id, q)
	t.mu.Unlock()
	if err != nil {
		s.Reset(CodeInternal)
		return nil, nil, err
	}
	t.kick()
	return s, answer, nil
}

// mayOpen tells why no stream can be opened now; mu is held.
func (t *tunnel) mayOpen() error {
	switch {
	case t.err != nil:
		return t.err
	case t.broken != nil:
		return t.broken
	case t.draining, t.nextID > 1<<31-1, t.expired():
		return ErrDraining
	case uint32(len(t.streams)) < t.peerMaxStreams:
		return nil
	}
	select {
	case <-t.settled:
		return ErrTooManyStreams
	default:
		return errUnsettled
	}
}

// errUnsettled says that the peer's limit of streams must be known first.
var errUnsettled = errors.New("peer has not sent its SETTINGS")

func (t *tunnel) expired() bool {
	return !t.opts.expiresAt.IsZero() && !time.Now().Before(t.opts.expiresAt)
}

// opened judges the answer.
func (t *tunnel) opened(s *stream) (Stream, Response, error) {
	t.mu.Lock()
	response, err, answered := s.response, s.err, s.answered
	t.mu.Unlock()
	switch {
	case answered && response.Status == 200:
		return s, response, nil
	case answered:
		return nil, response, &StatusError{Status: response.Status}
	}
	var se *StreamError
	if errors.As(err, &se) && se.Remote && se.Code == CodeRefusedStream {
		// The peer did not look at it (RFC 9113 section 8.7).
		return nil, Response{}, fmt.Errorf("%w: %w", ErrTooManyStreams, err)
	}
	return nil, Response{}, err
}

// answer takes the header block that answers a request of ours.
func (r *reader) answer(s *stream, f *http2.MetaHeadersFrame) error {
	p, err := parseResponse(f.Fields)
	if err != nil || f.Truncated {
		return &streamFault{s.id, CodeProtocol}
	}
	if p.Status < 200 {
		if f.StreamEnded() {
			return &streamFault{s.id, CodeProtocol}
		}
		return r.countControl() // informational; the answer is still to come
	}
	t := r.t
	t.mu.Lock()
	s.response, s.answered = p, true
	if p.Status == 200 {
		s.signalAnswer()
	}
	t.mu.Unlock()
	if f.StreamEnded() {
		_ = r.endStream(s)
	}
	if p.Status != 200 {
		s.Reset(CodeCancel) // ends our half too, and wakes Open
	}
	return nil
}

// Streams implements Tunnel.
func (c *ClientConn) Streams() int {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	return len(c.t.streams)
}

// Usable implements Tunnel.
func (c *ClientConn) Usable() bool {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	err := c.t.mayOpen()
	return err == nil || err == errUnsettled
}

// ExpiresAt implements Tunnel.
func (c *ClientConn) ExpiresAt() time.Time { return c.t.opts.expiresAt }

// Done implements Tunnel.
func (c *ClientConn) Done() <-chan struct{} { return c.t.finished }

// Err implements Tunnel. It is nil while the tunnel works.
func (c *ClientConn) Err() error {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if c.t.err == nil {
		return nil
	}
	return c.t.err
}

// Drain implements Tunnel.
func (c *ClientConn) Drain() {
	c.t.mu.Lock()
	c.t.draining = true
	c.t.closeIfDrained()
	c.t.mu.Unlock()
}

// errClosed is the cause of a tunnel's end by Close.
var errClosed = errors.New("tunnel closed")

// Close implements Tunnel. It waits until the connection is closed, at most about
// two seconds.
func (c *ClientConn) Close() error {
	c.t.close(errClosed)
	<-c.t.finished
	return nil
}

// busyRate is the number of octets a second, both ways together, from which one
// reader is likely the limit: about a third of what one core carries.
const busyRate = 150 << 20

// Busy tells whether the tunnel moved more than busyRate since it was asked last,
// or in the last second when that is longer ago.
func (c *ClientConn) Busy() bool { return c.t.load.busy(time.Now()) }

// Stats describes the tunnel now.
func (c *ClientConn) Stats() TunnelStats { return c.t.stats() }

// TunnelStats describes one tunnel at one moment.
type TunnelStats struct {
	Local, Remote netip.AddrPort
	// Streams is the number of open streams.
	Streams int
	// BufferedBytes were received and wait for readers that do not take them.
	BufferedBytes int
	// Draining tells that no new streams are opened.
	Draining bool
}

// addrPort returns the address of a TCP connection, the zero value for others.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
