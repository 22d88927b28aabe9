package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// ServerConfig configures a Server.
type ServerConfig struct {
	// Handler answers the requests; required.
	Handler hbone.Handler
	// Attach is called once per connection, after its handshake and before its first
	// request. The value that it returns becomes Conn.Value; from expires on no new
	// stream is taken (zero: never). An error closes the connection. Nil attaches nothing.
	Attach func(tls.ConnectionState, hbone.Conn) (value any, expires time.Time, err error)
	// MaxStreams is how many streams a client may have open on one connection;
	// DefaultMaxStreams when zero.
	MaxStreams int
	// MaxConns is how many connections may exist, those in handshake included;
	// DefaultMaxConns when zero.
	MaxConns int
	// Logger tells at debug why connections ended; nil logs nothing.
	Logger *zap.Logger
}

// Server answers CONNECT requests on QUIC connections. One Server may serve
// several sockets. It is safe for concurrent use.
type Server struct {
	cfg ServerConfig

	// conns and handshakes count connections, and those whose handshake is not finished.
	conns, handshakes atomic.Int64

	mu       sync.Mutex
	draining chan struct{} // closed when Drain began
	active   map[*serverConn]struct{}
	// serving counts the calls of Serve.
	serving sync.WaitGroup
}

// NewServer makes a server; Serve starts it.
func NewServer(cfg ServerConfig) *Server {
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = DefaultMaxStreams
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return &Server{
		cfg:      cfg,
		draining: make(chan struct{}),
		active:   map[*serverConn]struct{}{},
	}
}

// Serve serves the connections that come on udp, which it closes before it
// returns. It returns nil after Drain, or when ctx has ended, which breaks all
// connections; both wait for the handlers to return.
//
// tlsConfig must offer ProtocolID, must verify the peer itself, and must have
// session tickets disabled, because a resumed session would skip that.
func (s *Server) Serve(ctx context.Context, udp net.PacketConn, tlsConfig *tls.Config) error {
	defer udp.Close()
	if !slices.Contains(tlsConfig.NextProtos, ProtocolID) {
		return fmt.Errorf("serve QUIC on %v: TLS configuration does not offer %q", udp.LocalAddr(), ProtocolID)
	}
	if !tlsConfig.SessionTicketsDisabled {
		return fmt.Errorf("serve QUIC on %v: TLS configuration allows resumed sessions", udp.LocalAddr())
	}
	s.mu.Lock()
	select {
	case <-s.draining:
		s.mu.Unlock()
		return nil
	default:
	}
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()

	transport := &quic.Transport{
		Conn:                udp,
		VerifySourceAddress: func(net.Addr) bool { return s.handshakes.Load() >= retryHandshakes },
		ConnContext:         s.admit,
	}
	defer transport.Close()
	listener, err := transport.Listen(tlsConfig, &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout / 2, // quic-go allows twice this in all
		MaxIdleTimeout:                 idleTimeout,
		InitialStreamReceiveWindow:     initialStreamWindowBytes,
		MaxStreamReceiveWindow:         maxStreamWindowBytes,
		InitialConnectionReceiveWindow: connWindowBytes,
		MaxConnectionReceiveWindow:     connWindowBytes,
		MaxIncomingStreams:             int64(s.cfg.MaxStreams),
		MaxIncomingUniStreams:          maxUniStreams,
		// A stream counts until its handler is done with it: opening and resetting in a loop gains nothing.
		RequireStreamCreditRelease:       true,
		EnableStreamResetPartialDelivery: true, // see responder.answer
	})
	if err != nil {
		return fmt.Errorf("serve QUIC on %v: %w", udp.LocalAddr(), err)
	}
	accepting, stopAccepting := context.WithCancel(ctx)
	defer stopAccepting()
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-s.draining:
			stopAccepting()
		case <-accepting.Done():
		}
	})
	for {
		var qc *quic.Conn
		if qc, err = listener.Accept(accepting); err != nil {
			break
		}
		wg.Go(func() { s.serveConn(ctx, qc) })
	}
	ended := accepting.Err() != nil
	stopAccepting()
	listener.Close()
	wg.Wait()
	if ended {
		return nil
	}
	return fmt.Errorf("serve QUIC on %v: %w", udp.LocalAddr(), err)
}

// errTooManyConns refuses a connection before its handshake.
var errTooManyConns = errors.New("too many connections")

type handshakeKey struct{}

// admit counts a connection from its first packet on, and its handshake until serveConn has it.
func (s *Server) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if s.conns.Add(1) > int64(s.cfg.MaxConns) {
		s.conns.Add(-1)
		return nil, errTooManyConns
	}
	s.handshakes.Add(1)
	finished := sync.OnceFunc(func() { s.handshakes.Add(-1) })
	context.AfterFunc(ctx, func() {
		finished()
		s.conns.Add(-1)
	})
	return context.WithValue(ctx, handshakeKey{}, finished), nil
}

// serverConn is the server's side of one connection.
type serverConn struct {
	conn
	server  *Server
	info    hbone.Conn
	expires time.Time
	// goodbye is closed when the client has said that it is done.
	goodbye    chan struct{}
	sayGoodbye func()
	// next is the id after that of the newest request taken, guarded by mu.
	next quic.StreamID
}

func (s *Server) serveConn(ctx context.Context, qc *quic.Conn) {
	if finished, ok := qc.Context().Value(handshakeKey{}).(func()); ok {
		finished()
	}
	stop := context.AfterFunc(ctx, func() {
		qc.CloseWithError(quic.ApplicationErrorCode(codeNoError), "")
	})
	defer stop()
	c := &serverConn{server: s, goodbye: make(chan struct{})}
	c.sayGoodbye = sync.OnceFunc(func() { close(c.goodbye) })
	c.conn.init(qc, false, func(uint64) error {
		c.sayGoodbye()
		if c.beginDrain() {
			c.wg.Go(c.closeAfterGoodbye)
		}
		return nil
	})
	log := s.cfg.Logger.With(zap.Stringer("src.addr", qc.RemoteAddr()))
	if err := c.attach(); err != nil {
		log.Debug("QUIC connection refused", zap.Error(err))
		qc.CloseWithError(quic.ApplicationErrorCode(codeRequestRejected), "")
		return
	}
	defer s.forget(c)
	c.wg.Go(c.acceptUni)
	c.acceptStreams()
	<-qc.Context().Done()
	c.wg.Wait()
	log.Debug("QUIC connection ended", zap.Error(c.tunnelError()))
}

// attach prepares the connection for its first request and makes it known to Drain.
func (c *serverConn) attach() error {
	c.info = hbone.Conn{Local: addrPort(c.qc.LocalAddr()), Remote: addrPort(c.qc.RemoteAddr())}
	if attach := c.server.cfg.Attach; attach != nil {
		var err error
		if c.info.Value, c.expires, err = attach(c.qc.ConnectionState().TLS, c.info); err != nil {
			return err
		}
	}
	if err := c.openControl(maxRequestFieldsBytes); err != nil {
		return err
	}
	c.server.remember(c)
	if !c.expires.IsZero() {
		timer := time.AfterFunc(time.Until(c.expires), c.drain)
		context.AfterFunc(c.qc.Context(), func() { timer.Stop() })
	}
	return nil
}

func (s *Server) remember(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[c] = struct{}{}
	select {
	case <-s.draining:
		go c.drain()
	default:
	}
}

func (s *Server) forget(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.active, c)
}

// drain refuses further requests, says so, and closes the connection after the last stream.
func (c *serverConn) drain() {
	if !c.beginDrain() {
		return
	}
	c.mu.Lock()
	next := c.next
	c.mu.Unlock()
	c.sendGoAway(uint64(next))
	c.closeAfterGoodbye()
}

// closeAfterGoodbye waits until all streams are done here and the client has said
// that they are there, and closes the connection.
func (c *serverConn) closeAfterGoodbye() {
	if !c.untilIdle() {
		return
	}
	c.untilEnd(c.goodbye)
	c.close(codeNoError, "")
}

// acceptStreams takes requests until the connection ends.
func (c *serverConn) acceptStreams() {
	for {
		qs, err := c.qc.AcceptStream(context.Background())
		if err != nil {
			return
		}
		s := newStream(&c.conn, qs)
		if !c.take(s) {
			s.reset(codeRequestRejected)
			continue
		}
		c.wg.Go(func() { c.serveStream(s) })
	}
}

// take enters a request, unless the connection drains.
func (c *serverConn) take(s *stream) bool {
	if !c.add(s) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = s.qs.StreamID() + 4
	return true
}

// serveStream reads one request and hands it to the handler.
func (c *serverConn) serveStream(s *stream) {
	s.qs.SetReadDeadline(time.Now().Add(requestTimeout))
	block, err := readFieldSection(s.qs, maxRequestFieldsBytes)
	s.qs.SetReadDeadline(time.Time{})
	r := &responder{s: s}
	var method string
	var request hbone.Request
	if err == nil {
		method, request, err = parseRequest(block)
	}
	switch {
	case errors.Is(err, errFieldsTooLarge):
		r.Refuse(431) // RFC 6585 section 5
		return
	case err != nil:
		s.fail(err)
		s.ended(err)
		return
	}
	c.server.cfg.Handler(c.qc.Context(), &hbone.ServerRequest{
		Request:   request,
		Method:    method,
		Conn:      c.info,
		Responder: r,
	})
	if !r.answered.Load() {
		s.reset(codeInternal)
	}
}

// responder answers one request.
type responder struct {
	s        *stream
	answered atomic.Bool
}

var errAnswered = errors.New("h3: request was answered already")

func (r *responder) answer(status int, baggage string) error {
	if r.answered.Swap(true) {
		return errAnswered
	}
	frame, err := appendResponse(nil, status, baggage)
	if err != nil {
		r.s.reset(codeInternal)
		return err
	}
	if _, err := r.s.qs.Write(frame); err != nil {
		r.s.ended(err)
		return toStreamError(err)
	}
	// The answer shall arrive even when a reset follows at once, as it does in
	// HTTP/2; a QUIC reset otherwise overtakes it.
	r.s.qs.SetReliableBoundary()
	return nil
}

// Accept implements hbone.Responder. A Status other than 200 in resp is ignored.
func (r *responder) Accept(resp hbone.Response) (hbone.Stream, error) {
	if err := r.answer(200, resp.Baggage); err != nil {
		return nil, err
	}
	return r.s, nil
}

// Refuse implements hbone.Responder.
func (r *responder) Refuse(status int) error {
	if err := r.answer(status, ""); err != nil {
		return err
	}
	err := r.s.CloseWrite()
	r.s.Close()
	return err
}

// Drain stops accepting connections and requests on all of them, and waits for
// the open streams to end and for Serve to return. When ctx ends first, it
// breaks what is left and returns context.Cause(ctx).
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	select {
	case <-s.draining:
	default:
		close(s.draining)
	}
	for c := range s.active {
		go c.drain()
	}
	s.mu.Unlock()
	served := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(served)
	}()
	select {
	case <-served:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.active {
		c.close(codeNoError, "drain deadline")
	}
	s.mu.Unlock()
	<-served
	return context.Cause(ctx)
}

// addrPort returns the zero value for what is not UDP.
func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
