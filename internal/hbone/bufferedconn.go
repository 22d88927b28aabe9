package hbone

import (
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/tulle-mesh/tulle/internal/rawio"
)

const (
	recordHeaderLen = 5
	// maxRecord is the largest TLS record in octets: header, 2^14, and what TLS 1.2
	// allows for expansion (RFC 5246 section 6.2.3; TLS 1.3 allows less).
	maxRecord = recordHeaderLen + 16<<10 + 2048
	// maxHeldOutput is what a held conn gathers before it writes by itself.
	maxHeldOutput = 512 << 10
)

// BufferedConn is the connection to put under a tls.Conn whose plaintext a tunnel
// carries. It reads in large blocks but hands out whole TLS records only, so that
// nothing decryptable sits inside the tls.Conn while a tunnel waits for the
// socket, and it keeps no buffer while it waits. Until a tunnel takes it over,
// writes go straight to the socket; afterwards the records of one burst are
// gathered and leave in one system call. A write error sticks.
//
// One goroutine may read while others write. Deadlines are those of the socket.
type BufferedConn struct {
	net.Conn
	sys syscall.RawConn // nil when the connection is not a socket

	// Reading; only the reader touches these.
	in         *buffer
	r, w       int // in.b[r:w] was read and not handed out
	recordLeft int // octets of the current record not handed out yet
	opaque     bool
	inClass    int
	inErr      error
	fillFunc   func(fd uintptr) bool

	// Writing.
	omu    sync.Mutex
	held   bool
	out    *buffer
	outN   int
	spill  []byte // what does not fit in out
	outErr error

	// The state of one flush; only one runs at a time.
	flushing  []byte
	flushN    int
	flushErr  error
	flushFunc func(fd uintptr) bool
}

// NewBufferedConn wraps conn, which it owns from then on.
func NewBufferedConn(conn net.Conn) *BufferedConn {
	c := &BufferedConn{Conn: conn, inClass: classSmall}
	c.sys = rawConn(conn)
	c.fillFunc = c.fillReady
	c.flushFunc = c.flushReady
	return c
}

// WrapConn is NewBufferedConn for callers that want a net.Conn.
func WrapConn(conn net.Conn) net.Conn { return NewBufferedConn(conn) }

// NetConn returns the wrapped connection.
func (c *BufferedConn) NetConn() net.Conn { return c.Conn }

// rawConn returns the descriptor of sockets, nil for other connections.
func rawConn(conn net.Conn) syscall.RawConn {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return rc
}

// Read hands out octets of one TLS record, never of two. It blocks until the
// whole record arrived. Input that is not TLS passes unchanged, so that crypto/tls
// can say what is wrong with it.
func (c *BufferedConn) Read(p []byte) (int, error) {
	if err := c.waitRecord(); err != nil {
		return 0, err
	}
	n := min(len(p), c.recordLeft)
	if c.opaque {
		n = min(len(p), c.w-c.r)
	}
	copy(p, c.in.b[c.r:c.r+n])
	c.r += n
	if !c.opaque {
		c.recordLeft -= n
	}
	if c.r == c.w {
		c.in.release()
		c.in, c.r, c.w = nil, 0, 0
	}
	return n, nil
}

// waitRecord blocks until Read has something to hand out, holding a buffer only
// when part of a record is there already.
func (c *BufferedConn) waitRecord() error {
	for !c.readable() {
		if c.inErr != nil {
			if c.w > c.r {
				// The peer ended inside a record: let crypto/tls see how far it came.
				c.opaque = true
				continue
			}
			return c.inErr
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
	return nil
}

// readable tells whether Read returns without waiting for the socket.
func (c *BufferedConn) readable() bool {
	if c.recordLeft > 0 {
		return true
	}
	avail := c.w - c.r
	if c.opaque {
		return avail > 0
	}
	if avail < recordHeaderLen {
		return false
	}
	n := recordLen(c.in.b[c.r:])
	if n == 0 {
		c.opaque = true
		return true
	}
	if avail < n {
		return false
	}
	c.recordLeft = n
	return true
}

// recordLen returns the length of the TLS record that b begins with, header
// included, or 0 when it cannot be one.
func recordLen(b []byte) int {
	if b[0] < 20 || b[0] > 24 || b[1] != 3 {
		return 0
	}
	n := recordHeaderLen + int(b[3])<<8 + int(b[4])
	if n > maxRecord {
		return 0
	}
	return n
}

// buffered returns the octets read from the socket and not handed out.
func (c *BufferedConn) buffered() int { return c.w - c.r }

// fill reads once from the socket, blocking. Errors of the stream itself are kept
// in inErr until what was read before is consumed; a deadline is returned at once.
func (c *BufferedConn) fill() error {
	if c.sys != nil {
		return c.sys.Read(c.fillFunc)
	}
	c.makeRoom()
	n, err := c.Conn.Read(c.in.b[c.w:])
	c.took(n)
	if err != nil && n == 0 && c.in == nil {
		return err
	}
	if err == io.EOF {
		c.inErr = err
		err = nil
	}
	if n > 0 {
		return nil
	}
	return err
}

// fillReady is fill's step on the descriptor; it reports false to wait for readability.
func (c *BufferedConn) fillReady(fd uintptr) bool {
	c.makeRoom()
	n, err := rawio.Read(int(fd), c.in.b[c.w:])
	c.took(n)
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		c.inErr = err
	case n == 0:
		c.inErr = io.EOF
	}
	return true
}

// makeRoom provides a buffer with room for at least the rest of one record.
func (c *BufferedConn) makeRoom() {
	if c.in == nil {
		c.in = borrow(c.inClass)
		return
	}
	if c.inClass == classSmall {
		c.inClass = classMedium
	}
	if c.in.class < c.inClass {
		bigger := borrow(c.inClass)
		c.w = copy(bigger.b, c.in.b[c.r:c.w])
		c.r = 0
		c.in.release()
		c.in = bigger
	} else if c.r > 0 {
		c.w = copy(c.in.b, c.in.b[c.r:c.w])
		c.r = 0
	}
}

// took accounts for n octets read; it gives an unused buffer back and chooses the
// next one's class after what this read brought.
func (c *BufferedConn) took(n int) {
	c.w += n
	switch {
	case c.w == c.r:
		c.in.release()
		c.in, c.r, c.w = nil, 0, 0
	case c.w == len(c.in.b):
		c.inClass = min(c.in.class+1, classLarge)
	case c.w < classSize[classSmall]/2:
		c.inClass = classSmall
	}
}

// Write sends p, or gathers it when a tunnel holds the connection.
func (c *BufferedConn) Write(p []byte) (int, error) {
	c.omu.Lock()
	defer c.omu.Unlock()
	if c.outErr != nil {
		return 0, c.outErr
	}
	if c.held {
		c.gather(p)
		return len(p), nil
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		c.outErr = err
	}
	return n, err
}

// gather appends p to the output.
func (c *BufferedConn) gather(p []byte) {
	if c.out == nil {
		c.out = borrowFor(len(p))
	}
	if len(c.spill) == 0 {
		if c.outN+len(p) > len(c.out.b) && c.out.class < classLarge {
			bigger := borrowFor(c.outN + len(p))
			copy(bigger.b, c.out.b[:c.outN])
			c.out.release()
			c.out = bigger
		}
		n := copy(c.out.b[c.outN:], p)
		c.outN += n
		p = p[n:]
	}
	if len(p) > 0 {
		c.spill = append(c.spill, p...)
	}
}

// hold makes Write gather until flush, for the tunnel that takes the connection over.
func (c *BufferedConn) hold() {
	c.omu.Lock()
	c.held = true
	c.omu.Unlock()
}

// pendingOut returns the octets gathered and not yet flushed.
func (c *BufferedConn) pendingOut() int {
	c.omu.Lock()
	defer c.omu.Unlock()
	return c.outN + len(c.spill)
}

// flush writes what was gathered. With wait it blocks until all is written;
// without, it writes what the socket takes at once and reports whether nothing is
// left. Only one flush may run at a time; Write may run beside it.
func (c *BufferedConn) flush(wait bool) (done bool, err error) {
	c.omu.Lock()
	if c.outErr != nil {
		err := c.outErr
		c.omu.Unlock()
		return true, err
	}
	if c.outN == 0 {
		c.omu.Unlock()
		return true, nil
	}
	if !wait && c.sys == nil {
		c.omu.Unlock()
		return false, nil
	}
	buf, n, spill := c.out, c.outN, c.spill
	c.out, c.outN, c.spill = nil, 0, nil
	c.omu.Unlock()

	left, err := c.send(buf.b[:n], wait)
	if err == nil && len(left) == 0 && len(spill) > 0 {
		left, err = c.send(spill, wait)
		spill = nil
	}
	if err != nil {
		buf.release()
		c.omu.Lock()
		c.outErr = err
		c.omu.Unlock()
		return true, err
	}
	if len(left) == 0 && len(spill) == 0 {
		buf.release()
		return c.pendingOut() == 0, nil
	}

	// Put the rest back in front of what was gathered meanwhile.
	rest := append(append([]byte(nil), left...), spill...)
	buf.release()
	c.omu.Lock()
	defer c.omu.Unlock()
	later := append(rest, c.takeOut()...)
	c.gather(later)
	return false, nil
}

// takeOut removes and returns what was gathered; omu is held.
func (c *BufferedConn) takeOut() []byte {
	if c.out == nil {
		return nil
	}
	all := append(append([]byte(nil), c.out.b[:c.outN]...), c.spill...)
	c.out.release()
	c.out, c.outN, c.spill = nil, 0, nil
	return all
}

// send writes p and returns what is left of it, which is nothing when wait is set.
func (c *BufferedConn) send(p []byte, wait bool) ([]byte, error) {
	if c.sys != nil {
		c.flushing, c.flushN, c.flushErr = p, 0, nil
		err := c.sys.Write(c.flushFunc)
		if err == nil {
			err = c.flushErr
		}
		c.flushing = nil
		if p = p[c.flushN:]; len(p) == 0 || err != nil || !wait {
			return p, err
		}
	}
	_, err := c.Conn.Write(p)
	return nil, err
}

// flushReady writes once without waiting. A short write means a full socket; asking again
// would only cost a call.
func (c *BufferedConn) flushReady(fd uintptr) bool {
	n, err := rawio.Write(int(fd), c.flushing)
	if c.flushN = n; err != syscall.EAGAIN {
		c.flushErr = err
	}
	return true
}

// writeNow writes what the descriptor takes at once.
func writeNow(fd int, p []byte) (int, error) {
	for done := 0; ; {
		n, err := syscall.Write(fd, p[done:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return done, nil
		case err != nil:
			return done, err
		}
		// A short write means a full socket; asking again would only cost a call.
		return done + n, nil
	}
}
