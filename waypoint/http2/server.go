package http2

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/http2/hpack"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// ServerConfig are the settings of a server. The zero value works.
type ServerConfig struct {
	// MaxStreams bounds the requests under way on a connection; zero: 250.
	MaxStreams uint32
	// HeadTimeout is the time that a client has for its first SETTINGS, and for a head
	// from its first frame to its last, 0 without limit.
	HeadTimeout time.Duration
	// IdleTimeout is the time without any request after which a connection is closed,
	// at the latest when it has passed twice; 0 without limit.
	IdleTimeout time.Duration
	// KeepAlive is the silence after which the client is asked for a sign of life, 0 for
	// never; KeepAliveTimeout is the wait for it, 0 for as long.
	KeepAlive, KeepAliveTimeout time.Duration
	// Budget bounds the growth of the receive windows of all connections that share it;
	// nil: each has one of its own, of 32 MiB.
	Budget *Budget
	// StallTimeout is how long a client may take nothing of a response that waits for
	// it, before its request is given up; 0 without limit.
	StallTimeout time.Duration
	// OnError is told of requests that no handler gets, and of those that break the
	// protocol later; it may be nil. It must not block.
	OnError func(err *message.ProtocolError)
}

// Server serves HTTP/2 on any number of connections. Its fields must not be changed
// once it serves; it is safe for concurrent use.
type Server struct {
	Config  ServerConfig
	Handler message.Handler

	mu       sync.Mutex
	conns    map[*conn]struct{}
	draining bool
}

// serverSide is what only a server's connection has.
type serverSide struct {
	srv        *Server
	ctx        context.Context // of Serve
	maxStreams uint32
	// running counts requests whose handler has not returned; they count against
	// maxStreams even after the client reset them. Guarded by the connection's mu.
	running  int
	workers  workers
	discards discards
}

// Serve serves one connection with a server of its own.
func Serve(ctx context.Context, nc net.Conn, cfg ServerConfig, h message.Handler) error {
	s := &Server{Config: cfg, Handler: h}
	return s.Serve(ctx, nc)
}

// Serve serves nc, which it owns, until its end, ctx's, or, while the server drains,
// until all requests under way are answered. Then all handlers have returned. It
// returns nil when the client closed the connection or it was drained, else a
// *ConnError that says why it was broken off.
func (s *Server) Serve(ctx context.Context, nc net.Conn) error {
	side := &serverSide{srv: s, ctx: ctx, maxStreams: s.Config.MaxStreams}
	if side.maxStreams == 0 {
		side.maxStreams = maxStreamsDefault
	}
	c := &conn{}
	c.init(nc, side, s.Config.Budget)
	c.watch.start(c, timeouts{s.Config.HeadTimeout, s.Config.IdleTimeout, s.Config.KeepAlive, s.Config.KeepAliveTimeout})
	if s.add(c) {
		c.drain()
	}
	defer s.remove(c)
	stop := context.AfterFunc(ctx, func() { c.fail(&ConnError{Cause: context.Cause(ctx)}) })
	defer stop()
	if end := c.run(); end.Code != codeNo {
		return end
	}
	return nil
}

// add notes a connection and reports whether it is to be drained at once.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[*conn]struct{}{}
	}
	s.conns[c] = struct{}{}
	return s.draining
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Drain makes every connection, and those that come, take no more requests (GOAWAY)
// and end when the ones under way are answered. It does not wait.
func (s *Server) Drain() {
	s.mu.Lock()
	s.draining = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.drain()
	}
}

// drain tells the client to send no more requests here. Those on their way when it
// hears of it are still served: a first GOAWAY only gives notice, and the answer to a
// PING, or drainNotice, brings the second one with the last stream's number (RFC 9113,
// 6.8).
func (c *conn) drain() {
	c.mu.Lock()
	if c.err != nil || c.drainPing || c.goAwaySent {
		c.mu.Unlock()
		return
	}
	c.drainPing = true
	c.out.goAway(maxWindow, codeNo)
	c.out.ping(0, drainMark)
	c.kick()
	c.mu.Unlock()
	c.watch.later(drainNotice, c.drainAcked)
}

// drainAcked completes what drain began. Streams opened later are ignored.
func (c *conn) drainAcked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.drainPing || c.goAwaySent || c.err != nil {
		return
	}
	c.goAwaySent, c.draining = true, true
	if len(c.streams) > 0 { // else the end says it
		c.out.goAway(c.lastID, codeNo)
	}
	c.endIfDrained()
	c.kick()
}

// stallTimeout is how long a sender waits for the peer.
func (c *conn) stallTimeout() time.Duration {
	if c.server == nil {
		return 0
	}
	return c.server.srv.Config.StallTimeout
}

// headTimeout is the time for a head of several frames.
func (c *conn) headTimeout() time.Duration {
	if c.server == nil {
		return 0
	}
	return c.server.srv.Config.HeadTimeout
}

// refused tells of a request that no handler gets, or whose content breaks off.
func (s *serverSide) refused(err error) {
	var p *message.ProtocolError
	if f := s.srv.Config.OnError; f != nil && errors.As(err, &p) {
		f(p)
	}
}

var errTooLarge = &refusal{message.ProtocolError{Status: 431, Reason: "head is too large"}}

// request takes the head of a new stream.
func (r *reader) request(id uint32, end bool, fields []hpack.Field, tooLarge bool) error {
	c := r.c
	c.mu.Lock()
	over := c.err != nil || c.goAwaySent
	full := uint32(max(len(c.streams), c.server.running)) >= c.server.maxStreams
	c.mu.Unlock()
	switch {
	case over:
		return nil // beyond the last stream that GOAWAY named
	case full:
		return &streamFault{id, codeRefusedStream, ErrTooManyStreams}
	}
	x := &serverExchange{begun: time.Now()}
	x.ctx.parent = c.server.ctx
	err := error(errTooLarge)
	if !tooLarge {
		err = x.parse(fields, end)
	}
	refused, ok := err.(*refusal)
	if err != nil && !ok {
		return &streamFault{id, codeProtocol, err}
	}
	if refused != nil {
		c.server.refused(&refused.ProtocolError)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil
	}
	x.init(c, id)
	x.x, x.headDone = x, true
	if x.request.Length >= 0 && !x.tunnel {
		x.recvLen = x.request.Length
	}
	x.bare, x.remoteEnd, x.eof = end, end, end
	c.streams[id] = &x.stream
	if refused != nil {
		return r.refuse(x, refused.Status)
	}
	c.server.running++
	c.background.Add(1)
	r.started = append(r.started, x)
	return nil
}

// refuse answers a request without a handler; mu is held. What the answers hold
// counts as the peer's doing.
func (r *reader) refuse(x *serverExchange, status int) error {
	c := r.c
	before := len(c.out.b)
	x.responded = true
	x.head(&message.Response{Status: status}, 0, true)
	c.out.control += max(len(c.out.b)-before, 0)
	if !x.remoteEnd {
		x.rerr, x.recvLen = errDone, -1 // nobody else has the stream yet
		c.discard(&x.stream)
	}
	if c.out.control > maxControlQueue {
		return fault(codeEnhanceCalm, "peer does not read its answers")
	}
	return nil
}
