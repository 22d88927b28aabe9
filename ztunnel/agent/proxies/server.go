package proxies

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

// Source says what pods there are and hears the answers. Its methods, and the
// functions that it returns, are called from the goroutines of connections and
// must not call the Server.
type Source interface {
	// UIDs lists the pods for a new connection.
	UIDs() []string
	// Request makes the message for one pod, nil when there is nothing to send.
	// answered is called once for each message: with nil when the proxy that gets
	// the pods acknowledged it, with its error when it refused, and with
	// ErrUnanswered when neither can be said.
	Request(uid string) (request zds.Request, answered func(error))
	// Connected tells whether there is a proxy to send pods to. After a false all
	// earlier answers are void.
	Connected(bool)
}

// ErrUnanswered says that a proxy's answer to a message did not come, or came
// from one that is not the newest any more.
var ErrUnanswered = errors.New("no answer from the proxy")

// Config makes a Server.
type Config struct {
	// Socket is the path of the ZDS socket. Whoever makes a Server must know that
	// no other agent serves it.
	Socket string
	// AckTimeout bounds the wait for a proxy's hello and for each ack. Zero means
	// 5 s.
	AckTimeout time.Duration
	// Logger may be nil.
	Logger *zap.Logger
	// Registerer takes the metrics; nil: none are kept.
	Registerer prometheus.Registerer
}

// Server serves ZDS. It is safe for concurrent use.
type Server struct {
	cfg     Config
	log     *zap.Logger
	metrics *metrics
	ln      *zds.Listener
	source  Source // set by Run

	mu sync.Mutex
	// conns are the connections that said hello, oldest first; the last one is
	// the newest.
	conns []*conn
	// waiting counts connections without hello, for maxConnections.
	waiting int
}

// Listen makes a Server and its socket; nothing is accepted before Run.
func Listen(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.AckTimeout == 0 {
		cfg.AckTimeout = ackTimeout
	}
	ln, err := zds.Listen(cfg.Socket)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Logger, ln: ln}
	s.metrics = newMetrics(cfg.Registerer, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.conns))
	})
	return s, nil
}

// Run accepts proxies and serves them from source until ctx ends. It returns
// when all connections are closed. It is called once.
func (s *Server) Run(ctx context.Context, source Source) error {
	s.source = source
	defer s.ln.Close()
	stop := context.AfterFunc(ctx, func() { s.ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := s.ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			// Out of descriptors, most likely. Old connections go on.
			s.log.Warn("cannot accept a proxy", zap.Error(err))
		} else if !s.admit() {
			s.log.Warn("proxy refused: too many are connected", zap.Int("limit", maxConnections))
			c.Close()
		} else {
			wg.Go(func() { s.serve(ctx, c) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(acceptInterval):
		}
	}
}

// Close closes the socket of a Server that does not Run.
func (s *Server) Close() error { return s.ln.Close() }

func (s *Server) admit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting+len(s.conns) >= maxConnections {
		return false
	}
	s.waiting++
	return true
}

// serve runs one connection from its hello to its end.
func (s *Server) serve(ctx context.Context, wire *zds.Conn) {
	defer wire.Close()
	stop := context.AfterFunc(ctx, func() { wire.Close() })
	defer stop()

	wire.SetReadDeadline(time.Now().Add(s.cfg.AckTimeout))
	err := wire.ReceiveHello()
	c := &conn{wire: wire, wake: make(chan struct{}, 1)}
	s.mu.Lock()
	s.waiting--
	if err != nil {
		s.mu.Unlock()
		s.log.Warn("proxy said no proper hello", zap.Error(err))
		return
	}
	s.conns = append(s.conns, c)
	s.mu.Unlock()
	s.metrics.connections.Inc()
	s.source.Connected(true)
	s.log.Info("proxy connected")

	err = c.run(ctx, s)

	s.mu.Lock()
	last := s.conns[len(s.conns)-1] == c
	s.conns = slices.DeleteFunc(s.conns, func(o *conn) bool { return o == c })
	var heir *conn
	if last && len(s.conns) > 0 {
		heir = s.conns[len(s.conns)-1]
	}
	none := len(s.conns) == 0
	s.mu.Unlock()
	c.end()
	if ctx.Err() == nil {
		s.log.Warn("proxy disconnected", zap.Error(err))
	}
	if last {
		s.source.Connected(!none)
	}
	if heir != nil {
		for _, uid := range s.source.UIDs() {
			heir.push(item{uid: uid})
		}
	}
}

// retire takes a pod from the proxies that are older than c, which has
// acknowledged it: both listen in the pod, and new connections are to reach the
// newer one, since the older one is about to end.
func (s *Server) retire(c *conn, uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.conns); n == 0 || s.conns[n-1] != c {
		return
	}
	for _, older := range s.conns[:len(s.conns)-1] {
		older.push(item{uid: uid, gone: true, answer: make(chan error, 1)})
	}
}

// Send asks for the pod to be told to the newest proxy, once more if it was told
// already. It does not wait; the answer goes to the Source. Without a proxy it
// does nothing: the next one gets all pods anyway.
func (s *Server) Send(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.conns); n > 0 {
		s.conns[n-1].push(item{uid: uid})
	}
}

// Delete tells all proxies that the pod left, and waits for their answers or the
// end of their connections, at most until ctx ends. The Source must have
// forgotten the pod before.
func (s *Server) Delete(ctx context.Context, uid string) error {
	s.mu.Lock()
	conns := slices.Clone(s.conns)
	answers := make(chan error, len(conns))
	for _, c := range conns {
		c.push(item{uid: uid, gone: true, answer: answers})
	}
	s.mu.Unlock()
	var errs []error
	for range conns {
		select {
		case err := <-answers:
			errs = append(errs, err)
		case <-ctx.Done():
			return fmt.Errorf("proxy has not answered that pod %s left: %w", uid, context.Cause(ctx))
		}
	}
	return errors.Join(errs...)
}
