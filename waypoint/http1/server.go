package http1

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// ServerConfig says how a server treats its clients. The zero value sets no time
// limit.
type ServerConfig struct {
	// Scheme of the requests, "http" or "https"; "" is "http".
	Scheme string
	// HeadTimeout is the time from the first octet of a head to its last, 0 without limit.
	// Who takes longer gets 408.
	HeadTimeout time.Duration
	// IdleTimeout is how long a connection may wait for a request, 0 without limit.
	IdleTimeout time.Duration
	// StallTimeout is how long a client may send nothing of a content, or take nothing
	// of a response, before it is given up; 0 without limit.
	StallTimeout time.Duration
	// OnError, if any, is called with what is wrong with a request that the codec itself
	// refuses. It must not block.
	OnError func(err *message.ProtocolError)
}

// Server serves HTTP/1.1 on any number of connections. Its fields must not be changed
// once it serves; it is safe for concurrent use.
type Server struct {
	Config  ServerConfig
	Handler message.Handler

	mu       sync.Mutex
	conns    map[*serverConn]struct{}
	draining atomic.Bool
	drainBy  time.Time // guarded by mu; set before draining is
}

// Serve serves one connection with a server of its own.
func Serve(ctx context.Context, conn net.Conn, cfg ServerConfig, h message.Handler) error {
	s := &Server{Config: cfg, Handler: h}
	return s.Serve(ctx, conn)
}

// Serve serves conn, which it owns, until its end, ctx's, or, while the server drains,
// until the request under way is answered. It returns nil on an orderly end between
// two requests, a *message.ProtocolError when it refused one, and why else the
// connection was broken off.
func (s *Server) Serve(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &serverConn{server: s, cancel: cancel}
	c.in.conn = conn
	c.in.watch.gone = func(err error) { cancel(broken(err)) }
	c.alarm.ring = c.ring
	c.out.start(conn)
	c.out.alarm, c.out.stall = &c.alarm, s.Config.StallTimeout
	defer c.alarm.stop()
	s.add(c)
	defer s.remove(c)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer c.in.close()
	defer stop()
	return c.serve(ctx)
}

// Drain ends the server's connections without failing a request: each response from
// now on tells its client to close, and connections without a request are closed a
// few seconds later, when a request that was on its way would have come. It does not
// wait.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return
	}
	s.drainBy = time.Now().Add(drainGrace)
	s.draining.Store(true)
	for c := range s.conns {
		c.alarm.hurry(s.drainBy)
	}
}

func (s *Server) add(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[*serverConn]struct{}{}
	}
	s.conns[c] = struct{}{}
}

func (s *Server) remove(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// drainEnd is when connections without a request are closed, zero while the server
// does not drain.
func (s *Server) drainEnd() time.Time {
	if !s.draining.Load() {
		return time.Time{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drainBy
}

// serverConn is one connection of a server. Its goroutine owns it, but for out, which
// the exchange's mutex guards.
type serverConn struct {
	server *Server
	cancel context.CancelCauseFunc
	in     wire
	out    output
	alarm  alarm
	// inHead tells the alarm that a head has begun and not ended.
	inHead atomic.Bool
}

var (
	// errIdle says that a connection ends between two requests.
	errIdle = errors.New("idle")
	// errHeadTime says that a head took too long.
	errHeadTime error = &message.ProtocolError{Status: 408, Reason: "the head took too long"}
)

func (c *serverConn) serve(ctx context.Context) error {
	for {
		// An idle connection has no exchange: most of its memory would be that.
		err := c.awaitRequest()
		if err == errIdle {
			return nil
		}
		x := &exchange{c: c}
		if err == nil {
			err = c.readHead(x)
		}
		if err != nil {
			c.refuse(err)
			return err
		}
		if x.body.done() {
			x.watched = true
			c.watchClient()
		}
		c.server.Handler(ctx, x)
		again, err := x.finish()
		if !again {
			return err
		}
	}
}

// watchClient lets the watch look whether the client is there, unless the next request
// is there already.
func (c *serverConn) watchClient() {
	if len(c.in.buffered()) == 0 {
		c.in.release()
	}
}

// ring ends the connection for a client that takes too long.
func (c *serverConn) ring() {
	if c.inHead.Load() {
		// The connection's goroutine waits for the rest of the head and does not write.
		_, _ = io.WriteString(c.in.conn, statusLines[408]+"content-length: 0\r\nconnection: close\r\n\r\n")
	}
	_ = c.in.conn.Close()
}

// readHead reads the head of the request that has begun into x.
func (c *serverConn) readHead(x *exchange) error {
	limited := false
	for empty := (search{}); ; {
		have := c.in.buffered()
		end, bare := empty.find(have)
		if end > 0 {
			if limited {
				c.inHead.Store(false)
				if !c.alarm.set(alarmRead, time.Time{}) {
					return errHeadTime
				}
			}
			err := x.parse(have[:end])
			c.in.skip(end)
			return err
		}
		// Only what is slow or too large gets here.
		if bare {
			return message.Malformed("bare line feed in the head")
		}
		if len(have) > maxTarget && bytes.IndexByte(have[:maxTarget], '\n') < 0 {
			return &message.ProtocolError{Status: 414, Reason: "too long a request line"}
		}
		if t := c.server.Config.HeadTimeout; t > 0 && !limited {
			limited = true
			c.inHead.Store(true)
			c.alarm.set(alarmRead, time.Now().Add(t))
		}
		room, err := c.in.fill()
		switch {
		case !room:
			return &message.ProtocolError{Status: 431, Reason: "too large a head"}
		case err != nil && c.alarm.hasRung():
			return errHeadTime
		case err != nil:
			return broken(err)
		}
	}
}

// awaitRequest reads the first octets of a request; the error is errIdle when there is
// none. A CRLF before it is skipped, as
// RFC 9112, 2.2 asks for; more are not.
func (c *serverConn) awaitRequest() error {
	skipped, idle := false, false
	for {
		have := c.in.buffered()
		switch {
		case len(have) > 0 && have[0] != '\r':
			if idle && !c.alarm.set(alarmRead, time.Time{}) {
				return errIdle
			}
			return nil
		case len(have) > 1:
			if skipped || have[1] != '\n' {
				return message.Malformed("empty lines before the request line")
			}
			skipped = true
			c.in.skip(2)
			continue
		case len(have) == 0:
			c.in.relax(false)
		}
		if !idle {
			idle = true
			c.setIdle()
		}
		if _, err := c.in.fill(); err != nil {
			if err == io.EOF || c.alarm.hasRung() {
				return errIdle
			}
			return err
		}
	}
}

// setIdle sets the alarm for the wait for a request.
func (c *serverConn) setIdle() {
	var until time.Time
	if idle := c.server.Config.IdleTimeout; idle > 0 {
		until = time.Now().Add(idle)
	}
	c.alarm.setIdle(until)
	// Drain may have looked before.
	if end := c.server.drainEnd(); !end.IsZero() {
		c.alarm.hurry(end)
	}
}

// refuse answers a request that cannot be read, and closes the connection.
func (c *serverConn) refuse(err error) {
	var protocol *message.ProtocolError
	if !errors.As(err, &protocol) {
		return
	}
	if c.server.Config.OnError != nil {
		c.server.Config.OnError(protocol)
	}
	if err == errHeadTime {
		return // answered by the alarm
	}
	l, err := c.out.begin(nil, len(protocol.Reason), 0)
	if err != nil {
		return
	}
	l.b = append(l.b, statusLines[protocol.Status]...)
	l.count++
	l.line("date: ", message.Date(time.Now()))
	l.line("content-type: text/plain")
	l.line("connection: close")
	l.length(int64(len(protocol.Reason)) + 1)
	if c.out.end(&l) == nil {
		_ = c.out.content([]byte(protocol.Reason+"\n"), false)
		_ = c.out.flush()
	}
	c.linger()
}

// linger lets the client read the last response: to close a connection while the client
// still sends would make the system forget what the client has not read yet (RFC 9112,
// 9.6).
func (c *serverConn) linger() {
	half, ok := c.in.conn.(interface{ CloseWrite() error })
	if !ok || c.out.failed != nil || half.CloseWrite() != nil {
		return
	}
	c.alarm.set(alarmRead, time.Now().Add(drainTime))
	scratch := borrow(classMedium)
	defer scratch.release()
	if !c.in.watched {
		c.in.r = c.in.w
	}
	for n := 0; n < maxDrain; {
		got, err := c.in.readInto(scratch.b)
		if n += got; err != nil {
			return
		}
	}
	// It still sends. Who is left waiting reads, who is cut off may not.
	c.alarm.await()
}
