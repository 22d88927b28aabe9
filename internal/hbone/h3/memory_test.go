package h3_test

import (
	"net"
	"os"
	"sync"
	"time"
)

// memoryConn is one end of a network in memory with two hosts, for tests in
// virtual time. A packet that finds the receiver's queue full is lost.
type memoryConn struct {
	local  *net.UDPAddr
	in     chan []byte
	peer   *memoryConn
	closed chan struct{}
	close  func()

	mu   sync.Mutex
	late chan struct{} // closed by a read deadline that has passed
}

func memoryConns() (a, b *memoryConn) {
	a, b = newMemoryConn(1), newMemoryConn(2)
	a.peer, b.peer = b, a
	return a, b
}

func newMemoryConn(host byte) *memoryConn {
	c := &memoryConn{
		local: &net.UDPAddr{IP: net.IPv4(10, 0, 0, host), Port: 15008}, in: make(chan []byte, 1000),
		closed: make(chan struct{}), late: make(chan struct{}),
	}
	c.close = sync.OnceFunc(func() { close(c.closed) })
	return c
}

func (c *memoryConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	late := c.late
	c.mu.Unlock()
	select {
	case p := <-c.in:
		return copy(b, p), c.peer.local, nil
	case <-late:
		return 0, nil, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *memoryConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case c.peer.in <- append([]byte(nil), b...):
	default:
	}
	return len(b), nil
}

func (c *memoryConn) Close() error {
	c.close()
	return nil
}

func (c *memoryConn) LocalAddr() net.Addr { return c.local }

// SetReadDeadline knows the two deadlines that QUIC sets: none, and now.
func (c *memoryConn) SetReadDeadline(d time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.IsZero() {
		c.late = make(chan struct{})
	} else {
		close(c.late)
	}
	return nil
}

func (c *memoryConn) SetDeadline(d time.Time) error    { return c.SetReadDeadline(d) }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }
