package hbone

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/internal/relay"
)

// aLongTimeAgo makes a pending wait on a socket return.
var aLongTimeAgo = time.Unix(1, 0)

// join carries bytes between one stream and one socket. From the socket to the
// stream its own goroutine carries them; the other way the tunnel's reader writes
// to the socket, and an on-demand writer when that is full.
type join struct {
	s    *stream
	sock *net.TCPConn
	sys  syscall.RawConn
	c    *relay.Counters

	// The reader's direct write; only one runs at a time.
	wp      []byte
	wn      int
	werr    error
	onWrite func(fd uintptr) bool

	// The pump's read.
	class  int
	buf    *buffer
	n      int
	rerr   error
	onRead func(fd uintptr) bool

	mu       sync.Mutex
	cause    error
	broken   error       // why the socket takes nothing more, while the pump reads what it had sent
	farewell *time.Timer // bounds that
	recvDone bool        // the peer's half-close reached the socket
	parked   bool        // the pump is done and waits for recvDone
}

// Join implements Stream.
func (s *stream) Join(ctx context.Context, sock *net.TCPConn, c *relay.Counters) error {
	if c == nil {
		c = new(relay.Counters)
	}
	j := &join{s: s, sock: sock, c: c}
	j.onWrite, j.onRead = j.tryWrite, j.tryRead
	sys, err := sock.SyscallConn()
	if err != nil {
		s.Reset(CodeConnect)
		_ = sock.Close()
		return err
	}
	j.sys = sys
	stop := context.AfterFunc(ctx, func() {
		j.fail(context.Cause(ctx))
		s.Reset(CodeCancel)
	})
	defer stop()
	if err := s.attach(j); err != nil {
		j.fail(err)
	} else {
		j.pump()
	}

	j.mu.Lock()
	err = j.cause
	if j.farewell != nil {
		j.farewell.Stop()
	}
	j.mu.Unlock()
	_ = sock.Close()
	_ = s.Close()
	return err
}

// pump carries bytes from the socket to the stream, then waits for the other way.
func (j *join) pump() {
	s := j.s
	for {
		if err := j.sys.Read(j.onRead); err != nil {
			j.socketFailed(err)
			return
		}
		switch {
		case j.rerr != nil:
			j.socketFailed(cmp.Or(j.brokenBy(), j.rerr))
			return
		case j.buf == nil:
			// No credit: wait for it with nothing in hand.
			n, err := s.awaitCredit(1)
			if err != nil {
				j.fail(err)
				return
			}
			s.putBack(n)
			continue
		case j.n == 0:
			j.buf.release()
			if err := j.brokenBy(); err != nil {
				// The end of a connection that was reset, whose error was told to who wrote.
				j.socketFailed(err)
				return
			}
			if err := s.CloseWrite(); err != nil {
				j.fail(err)
				return
			}
			j.park()
			return
		}
		n := j.n
		err := s.t.writeData(s, j.buf.b, n)
		j.buf.release()
		if err != nil {
			j.fail(err)
			return
		}
		j.c.Sent.Add(uint64(n))
	}
}

// tryRead reads what the socket has and flow control allows, behind the room for
// a frame's header. It reports false to wait for readability.
func (j *join) tryRead(fd uintptr) bool {
	j.buf, j.n, j.rerr = nil, 0, nil
	room := min(classSize[j.class], maxPlaintext*16) - frameHeaderLen
	credit := j.s.tryCredit(room)
	if credit == 0 {
		return true
	}
	buf := borrow(j.class)
	for {
		n, err := syscall.Read(int(fd), buf.b[frameHeaderLen:frameHeaderLen+credit])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			j.s.putBack(credit)
			buf.release()
			return false
		case err != nil:
			j.s.putBack(credit)
			buf.release()
			j.rerr = err
			return true
		}
		j.s.putBack(credit - n)
		j.buf, j.n = buf, n
		if n == room {
			j.class = min(j.class+1, classLarge)
		} else if n < classSize[classSmall]/2 {
			j.class = classSmall
		}
		return true
	}
}

// park waits, after the socket's half-close, until the peer's half-close reached
// the socket, and notices a reset of the socket meanwhile.
func (j *join) park() {
	j.mu.Lock()
	done := j.recvDone || j.cause != nil
	j.parked = true
	lost := j.broken
	j.mu.Unlock()
	if done {
		return
	}
	if lost != nil {
		j.socketFailed(lost)
		return
	}
	var broken error
	err := j.sys.Read(func(fd uintptr) bool {
		errno, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
		if err == nil && errno != 0 {
			broken = syscall.Errno(errno)
		}
		return broken != nil
	})
	j.mu.Lock()
	done = j.recvDone
	j.mu.Unlock()
	if done {
		return
	}
	if broken != nil {
		err = broken
	}
	if err != nil {
		j.socketFailed(err)
	}
}

// received tells that everything from the stream reached the socket.
func (j *join) received() {
	err := j.sock.CloseWrite()
	if err != nil && !errors.Is(err, syscall.ENOTCONN) {
		j.writeFailed(err)
		return
	}
	j.mu.Lock()
	j.recvDone = true
	parked := j.parked
	j.mu.Unlock()
	if parked {
		_ = j.sock.SetReadDeadline(aLongTimeAgo)
	}
}

// writeNow writes what the socket takes at once; only the tunnel's reader calls it.
func (j *join) writeNow(p []byte) (int, error) {
	j.wp, j.wn, j.werr = p, 0, nil
	err := j.sys.Write(j.onWrite)
	j.wp = nil
	if err == nil {
		err = j.werr
	}
	j.c.Received.Add(uint64(j.wn))
	return j.wn, err
}

// tryWrite is writeNow's step. It always reports true: RawConn.Write would wait otherwise.
func (j *join) tryWrite(fd uintptr) bool {
	j.wn, j.werr = writeNow(int(fd), j.wp)
	return true
}

// write writes all of p and waits for the socket.
func (j *join) write(p []byte) (int, error) {
	n, err := j.sock.Write(p)
	j.c.Received.Add(uint64(n))
	return n, err
}

// writeFailed notes that the socket takes nothing more. An application that answers
// and closes without reading resets the connection; its answer may still be in the
// socket, so the pump reads on, for farewellTime at most, and fails the join at the end.
func (j *join) writeFailed(err error) {
	j.mu.Lock()
	over := j.parked || j.cause != nil
	if !over && j.broken == nil {
		j.broken = err
		j.farewell = time.AfterFunc(farewellTime, func() { j.socketFailed(err) })
	}
	j.mu.Unlock()
	if over {
		j.socketFailed(err)
	}
}

// brokenBy is why writing to the socket failed, if it did.
func (j *join) brokenBy() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// socketFailed ends both sides because of the socket.
func (j *join) socketFailed(err error) {
	j.fail(err)
	// A broken TCP connection is a CONNECT_ERROR (RFC 9113 section 8.5).
	j.s.Reset(CodeConnect)
}

// fail notes the first cause and resets the socket. It leaves the stream alone, and
// does nothing when both ways have ended in order.
func (j *join) fail(err error) {
	j.mu.Lock()
	if j.cause != nil || j.recvDone && j.parked {
		j.mu.Unlock()
		return
	}
	j.cause = err
	j.mu.Unlock()
	// Linger 0 makes close send a TCP reset.
	_ = j.sock.SetLinger(0)
	_ = j.sock.Close()
}
