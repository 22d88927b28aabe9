package hbone

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// ErrServerDraining is returned by ServeConn for a connection that comes after Drain.
var ErrServerDraining = errors.New("server is draining")

// Server accepts tunnels. Its fields are not changed after the first use. It is
// safe for concurrent use.
type Server struct {
	// Handler answers every request; required.
	Handler Handler
	// MaxStreams bounds the streams of one tunnel; zero: 1,000.
	MaxStreams uint32
	// KeepAlive and KeepAliveTimeout are as in ClientConfig.
	KeepAlive, KeepAliveTimeout time.Duration
	// Budget bounds the growth of the receive windows of all tunnels that share it; nil: one per tunnel.
	Budget *Budget

	mu       sync.Mutex
	tunnels  map[*tunnel]struct{}
	draining bool
	idle     chan struct{} // closed when the last tunnel of a draining server ended
}

// serverSide is what only a server's tunnel has.
type serverSide struct {
	srv  *Server
	ctx  context.Context // of ServeConn
	conn Conn
	// running counts requests whose handler has not answered; those count against the
	// limit of streams even after the peer reset them. Guarded by the tunnel's mu.
	running int
}

// ServeConn carries the tunnel on conn until it ends and all its handlers have
// returned, and closes conn. value is passed to the handlers. It returns nil when
// the peer closed the connection in order or the server drained it, else the cause.
// Ending ctx breaks the tunnel.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn, value any) error {
	l, err := newLink(ctx, conn)
	if err != nil {
		_ = conn.Close()
		return err
	}
	maxStreams := s.MaxStreams
	if maxStreams == 0 {
		maxStreams = maxStreamsDefault
	}
	side := &serverSide{srv: s, ctx: ctx, conn: Conn{
		Local: addrPort(conn.LocalAddr()), Remote: addrPort(conn.RemoteAddr()), Value: value,
	}}
	t := newTunnel(l, side, options{
		keepAlive: s.KeepAlive, keepAliveTimeout: s.KeepAliveTimeout,
		maxHeaderList: maxHeaderListServer, maxStreams: maxStreams,
	}, s.Budget)
	if !s.add(t) {
		t.keep.stop()
		_ = conn.Close()
		return ErrServerDraining
	}
	defer s.remove(t)
	stop := context.AfterFunc(ctx, func() { t.close(context.Cause(ctx)) })
	defer stop()
	end := t.run()
	if end.Code == CodeNo {
		return nil
	}
	return end
}

func (s *Server) add(t *tunnel) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	if s.tunnels == nil {
		s.tunnels = map[*tunnel]struct{}{}
	}
	s.tunnels[t] = struct{}{}
	return true
}

func (s *Server) remove(t *tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tunnels, t)
	if s.draining && len(s.tunnels) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// all returns the tunnels of now.
func (s *Server) all() []*tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*tunnel, 0, len(s.tunnels))
	for t := range s.tunnels {
		list = append(list, t)
	}
	return list
}

// Stats describes every tunnel now.
func (s *Server) Stats() []TunnelStats {
	var list []TunnelStats
	for _, t := range s.all() {
		list = append(list, t.stats())
	}
	return list
}

// Drain tells all peers to open no more streams here (GOAWAY) and waits until the
// streams have ended. When ctx ends first it breaks what is left and returns
// context.Cause(ctx). Connections that come later are refused.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	var idle chan struct{}
	if len(s.tunnels) > 0 {
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle = s.idle
	}
	s.mu.Unlock()
	if idle == nil {
		return nil
	}
	for _, t := range s.all() {
		t.announceDrain()
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	for _, t := range s.all() {
		t.close(context.Cause(ctx))
	}
	return context.Cause(ctx)
}

// announceDrain sends a first GOAWAY that still allows what is on its way, and a
// PING whose answer, or drainNotice, brings the second one with the last stream's
// number (RFC 9113 section 6.8).
func (t *tunnel) announceDrain() {
	t.mu.Lock()
	if t.err != nil || t.drainPing || t.goAwaySent {
		t.mu.Unlock()
		return
	}
	t.drainPing = true
	t.queueGoAway(1<<31-1, CodeNo, "")
	_ = t.framer.WritePing(false, [8]byte{'d', 'r', 'a', 'i', 'n'})
	t.mu.Unlock()
	t.kick()
	time.AfterFunc(drainNotice, t.drainAcked)
}

// drainAcked completes what announceDrain began. Streams opened later are refused.
func (t *tunnel) drainAcked() {
	t.mu.Lock()
	if !t.drainPing || t.goAwaySent || t.err != nil {
		t.mu.Unlock()
		return
	}
	t.goAwaySent, t.draining = true, true
	t.queueGoAway(t.lastID, CodeNo, "")
	t.closeIfDrained()
	t.mu.Unlock()
	t.kick()
}

// request starts a stream that the peer opened. noteBrokenHeader has taken its number.
func (r *reader) request(f *http2.MetaHeadersFrame) error {
	t := r.t
	id := f.StreamID
	q, err := parseRequest(f.Fields)
	if err != nil && !f.Truncated {
		return &streamFault{id, CodeProtocol}
	}
	if q.contentLength > 0 && f.StreamEnded() {
		return &streamFault{id, CodeProtocol}
	}
	t.mu.Lock()
	if t.goAwaySent || t.err != nil {
		t.mu.Unlock()
		return nil // beyond the last stream that GOAWAY named
	}
	if uint32(max(len(t.streams), t.server.running)) >= t.opts.maxStreams {
		t.mu.Unlock()
		return &streamFault{id, CodeRefusedStream}
	}
	s := t.newStream(id, false)
	s.connect = q.method == "CONNECT"
	s.handling = true
	s.remoteEnd = f.StreamEnded()
	s.eof = s.remoteEnd
	if !s.connect {
		s.bodyLeft = q.contentLength
	}
	t.streams[id] = s
	t.server.running++
	ctx, cancel := context.WithCancelCause(t.server.ctx)
	s.cancel = cancel
	t.mu.Unlock()
	a := &responder{s: s}
	if f.Truncated {
		cancel(nil)
		a.done()
		return a.Refuse(431)
	}
	req := &ServerRequest{Request: q.Request, Method: q.method, Conn: t.server.conn, Responder: a}
	t.background.Add(1)
	go t.handle(ctx, a, req)
	return nil
}

// handle runs the handler. One that answers nothing, or panics, refuses.
func (t *tunnel) handle(ctx context.Context, a *responder, r *ServerRequest) {
	defer t.background.Done()
	defer func() {
		a.s.cancel(nil)
		a.done()
		if !a.used {
			_ = a.Refuse(503)
		}
	}()
	t.server.srv.Handler(ctx, r)
}

// responder answers one request; the handler's goroutine uses it.
type responder struct {
	s    *stream
	used bool
	over bool
}

var errAnswered = errors.New("request is answered already")

// Accept implements Responder.
func (a *responder) Accept(p Response) (Stream, error) {
	if p.Status == 0 {
		p.Status = 200
	}
	if err := validateFields(p.Baggage); err != nil {
		return nil, err
	}
	if err := a.answer(p, false); err != nil {
		return nil, err
	}
	return a.s, nil
}

// Refuse implements Responder.
func (a *responder) Refuse(status int) error {
	return a.answer(Response{Status: status}, true)
}

func (a *responder) answer(p Response, end bool) error {
	if a.used {
		return errAnswered
	}
	a.used = true
	s, t := a.s, a.s.t
	t.mu.Lock()
	if s.err != nil {
		defer t.mu.Unlock()
		return s.err
	}
	s.answered = true
	err := t.writeResponse(s.id, p, end)
	if end && err == nil {
		s.localEnd = true
		if !s.remoteEnd {
			// The peer need not send the rest (RFC 9113 section 8.1).
			t.queueReset(s.id, CodeNo)
			s.end(&StreamError{Code: CodeNo})
		}
	}
	s.settle()
	t.mu.Unlock()
	t.kick()
	if end {
		s.abort(&StreamError{Code: CodeNo})
	}
	return err
}

// done notes that the handler returned.
func (a *responder) done() {
	if a.over {
		return
	}
	a.over = true
	t := a.s.t
	t.mu.Lock()
	t.server.running--
	a.s.handling = false
	t.mu.Unlock()
}
