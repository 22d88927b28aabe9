package tunnel

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// Conn is a stream of a tunnel as a net.Conn. A deadline that expires breaks the
// stream for good, both ways: it is for timeouts after which nobody goes on.
type Conn struct {
	hbone.Stream
	local, remote net.Addr

	mu          sync.Mutex
	read, write *time.Timer
	expired     bool
	abort       bool
	// writing counts the Writes under way.
	writing atomic.Int32
}

// NewConn returns stream as a connection between the two addresses, which it tells
// when asked; the bytes take whatever way the tunnel has.
func NewConn(stream hbone.Stream, local, remote netip.AddrPort) *Conn {
	return &Conn{Stream: stream, local: net.TCPAddrFromAddrPort(local), remote: net.TCPAddrFromAddrPort(remote)}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	return n, c.explain(err)
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Add(1)
	n, err := c.Stream.Write(p)
	c.writing.Add(-1)
	return n, c.explain(err)
}

// explain says of an error after the deadline that the deadline caused it.
func (c *Conn) explain(err error) error {
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expired {
		return os.ErrDeadlineExceeded
	}
	return err
}

// Close implements net.Conn. What the peer still sends is refused by a reset, and what is
// being written is broken off by one: the peer must not take it for the whole.
func (c *Conn) Close() error {
	_ = c.SetDeadline(time.Time{})
	c.mu.Lock()
	abort := c.abort || c.writing.Load() > 0
	c.mu.Unlock()
	if abort {
		c.Reset(hbone.CodeCancel)
	} else {
		_ = c.CloseWrite() // an end, as TCP's Close sends it, and no reset
	}
	return c.Stream.Close()
}

// SetLinger with 0 makes Close reset the stream, as it makes that of TCP reset a
// connection.
func (c *Conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abort = sec == 0
	return nil
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(&c.read, t)
	c.set(&c.write, t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(&c.read, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(&c.write, t)
	return nil
}

// set arms the timer for t, or stops it for the zero time; the caller holds mu.
func (c *Conn) set(timer **time.Timer, t time.Time) {
	if *timer != nil {
		(*timer).Stop()
	}
	if t.IsZero() {
		*timer = nil
		return
	}
	var armed *time.Timer
	armed = time.AfterFunc(time.Until(t), func() {
		c.mu.Lock()
		current := *timer == armed
		c.expired = c.expired || current
		c.mu.Unlock()
		if current {
			c.Reset(hbone.CodeCancel)
		}
	})
	*timer = armed
}
