package hbone

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/internal/rawio"
)

// maxPlaintext is the most that one TLS record carries (RFC 8446 section 5.1).
const maxPlaintext = 16 << 10

// link carries a tunnel's plaintext over its connection: through crypto/tls on a
// BufferedConn, which is the fast way, or over any other connection.
type link struct {
	conn net.Conn      // as the owner gave it
	tls  *tls.Conn     // set when conn is TLS on a BufferedConn
	wire *BufferedConn // where written octets are gathered

	// Reading a plain socket.
	class    int
	got      *buffer
	gotN     int
	gotErr   error
	takeFunc func(fd uintptr) bool
}

// newLink takes conn over. It finishes a TLS handshake that has not happened yet,
// within handshakeTimeout.
func newLink(ctx context.Context, conn net.Conn) (*link, error) {
	l := &link{conn: conn}
	l.takeFunc = l.take
	if t, ok := conn.(*tls.Conn); ok {
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS handshake with %v: %w", conn.RemoteAddr(), err)
		}
		if b, ok := t.NetConn().(*BufferedConn); ok {
			l.tls, l.wire = t, b
		}
	}
	if l.wire == nil {
		l.wire = NewBufferedConn(conn)
	}
	l.wire.hold()
	return l, nil
}

// read blocks until there is plaintext and returns it in a borrowed buffer. It
// holds none while it waits, except over connections that are not sockets. Both a
// buffer and an error may come.
func (l *link) read() (*buffer, int, error) {
	switch {
	case l.tls != nil:
		return l.readTLS()
	case l.wire.sys != nil:
		return l.readSocket()
	}
	buf := borrow(classMedium)
	n, err := l.conn.Read(buf.b)
	return buf, n, err
}

// readTLS decrypts all records that are in memory before it returns, so that the
// tunnel hands as much as possible to an application in one write.
func (l *link) readTLS() (*buffer, int, error) {
	if err := l.wire.waitRecord(); err != nil {
		return nil, 0, err
	}
	// Room for a whole record is needed even if a short one comes: what is left inside
	// the tls.Conn would not be seen when waiting for the socket.
	buf := borrowFor(max(maxPlaintext, l.wire.buffered()))
	n := 0
	for {
		m, err := l.tls.Read(buf.b[n:])
		n += m
		if err != nil {
			return buf, n, err
		}
		if len(buf.b)-n < maxPlaintext || !l.wire.readable() {
			return buf, n, nil
		}
	}
}

func (l *link) readSocket() (*buffer, int, error) {
	if err := l.wire.sys.Read(l.takeFunc); err != nil {
		return nil, 0, err
	}
	buf, n, err := l.got, l.gotN, l.gotErr
	l.got = nil
	if n == len(buf.b) {
		l.class = min(l.class+1, classLarge)
	} else if n < classSize[classSmall]/2 {
		l.class = classSmall
	}
	return buf, n, err
}

// take reads the descriptor; it reports false to wait for readability.
func (l *link) take(fd uintptr) bool {
	l.got = borrow(l.class)
	l.gotErr = nil
	n, err := rawio.Read(int(fd), l.got.b)
	switch {
	case err == syscall.EAGAIN:
		l.got.release()
		l.got = nil
		return false
	case err != nil:
		l.gotErr = err
	case n == 0:
		l.gotErr = io.EOF
	}
	l.gotN = n
	return true
}

// write gathers p for the next flush; it does not block on the socket.
func (l *link) write(p []byte) error {
	if l.tls != nil {
		_, err := l.tls.Write(p)
		return err
	}
	_, err := l.wire.Write(p)
	return err
}

// closeWrite tells the peer, after what was gathered, that no more comes, and
// reports whether the connection can be half-closed. The write lock is held.
func (l *link) closeWrite(deadline time.Time) bool {
	_ = l.wire.SetWriteDeadline(deadline)
	if l.tls != nil {
		// CloseWrite sets a write deadline of its own, of five seconds.
		_ = l.tls.CloseWrite()
		_ = l.wire.SetWriteDeadline(deadline)
	}
	if _, err := l.wire.flush(true); err != nil {
		return false
	}
	c, ok := l.wire.Conn.(interface{ CloseWrite() error })
	return ok && c.CloseWrite() == nil
}

// close ends the connection at once.
func (l *link) close() { _ = l.wire.Conn.Close() }
