package app

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc/peer"
)

// connections knows the open connections by their remote address, so that one
// whose client takes nothing can be closed: gRPC lets a handler end its stream,
// but keeps what is buffered for it until the connection ends. It also bounds
// their number.
type connections struct {
	slots chan struct{}

	mu   sync.Mutex
	open map[string]net.Conn
}

func newConnections(limit int) *connections {
	return &connections{slots: make(chan struct{}, limit), open: map[string]net.Conn{}}
}

func (c *connections) wrap(ln net.Listener) net.Listener { return &countingListener{ln, c} }

// disconnect closes the connection that a stream's context belongs to.
func (c *connections) disconnect(ctx context.Context) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return
	}
	c.mu.Lock()
	conn := c.open[p.Addr.String()]
	c.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

type countingListener struct {
	net.Listener
	conns *connections
}

// Accept turns away connections beyond the limit rather than let them wait in
// the kernel, where they would look established to their clients.
func (l *countingListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.conns.slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		c := &countedConn{Conn: conn, conns: l.conns}
		l.conns.mu.Lock()
		l.conns.open[conn.RemoteAddr().String()] = c
		l.conns.mu.Unlock()
		return c, nil
	}
}

type countedConn struct {
	net.Conn
	conns *connections
	once  sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() {
		c.conns.mu.Lock()
		if key := c.RemoteAddr().String(); c.conns.open[key] == c {
			delete(c.conns.open, key)
		}
		c.conns.mu.Unlock()
		<-c.conns.slots
	})
	return c.Conn.Close()
}
