package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Join carries bytes between a and b both ways until both directions have
// ended, and closes both. A half-close of one side is passed on as a half-close
// of the other, a reset as a reset. Bytes from a to b count as Sent, the others
// as Received, while they move.
//
// It returns nil when both directions ended in order, else the first cause,
// which names the side ("first" is a) and the operation. Ending ctx resets both
// sides and returns context.Cause(ctx). Nothing else may use a or b meanwhile.
func Join(ctx context.Context, a, b *net.TCPConn, c *Counters) error {
	j := joint{}
	defer j.stop()
	rawA, errA := a.SyscallConn()
	rawB, errB := b.SyscallConn()
	if err := errors.Join(errA, errB); err != nil {
		_, _ = a.Close(), b.Close()
		return err
	}
	stop := context.AfterFunc(ctx, func() { j.abort(context.Cause(ctx), a, b) })
	defer stop()

	back := make(chan struct{})
	go func() {
		defer close(back)
		j.run(&direction{from: rawB, to: rawA, fromName: "second", toName: "first", count: &c.Received}, b, a)
	}()
	j.run(&direction{from: rawA, to: rawB, fromName: "first", toName: "second", count: &c.Sent}, a, b)
	<-back
	_, _ = a.Close(), b.Close()
	if err := j.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Reset closes c so that its peer sees a reset and not an orderly end.
func Reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// joint is what the two directions share.
type joint struct {
	err  atomic.Pointer[error] // the first cause
	done atomic.Int32          // directions that ended in order

	broken   atomic.Pointer[error]      // why one side takes nothing more
	farewell atomic.Pointer[time.Timer] // bounds what the other direction may go on for
}

// breaks notes that writing to one side failed. Whoever answers and closes without
// reading resets the connection, and the answer may still be in the socket: the other
// direction brings it, for farewellTime at most, and aborts at its end.
func (j *joint) breaks(err error, a, b *net.TCPConn) {
	if !j.broken.CompareAndSwap(nil, &err) || j.done.Load() > 0 {
		j.abort(*j.broken.Load(), a, b) // there is no other direction any more
		return
	}
	j.farewell.Store(time.AfterFunc(farewellTime, func() { j.abort(err, a, b) }))
}

// stop ends the timer of breaks.
func (j *joint) stop() {
	if t := j.farewell.Load(); t != nil {
		t.Stop()
	}
}

// abort records err unless another came first, and resets both sides, which
// also wakes whoever waits on them.
func (j *joint) abort(err error, a, b *net.TCPConn) {
	if j.err.CompareAndSwap(nil, &err) {
		Reset(a)
		Reset(b)
	}
}

// run carries one direction to its end, and then watches from for a reset until
// the other direction has ended as well.
func (j *joint) run(d *direction, from, to *net.TCPConn) {
	err := d.carry()
	if broken := j.broken.Load(); broken != nil {
		j.abort(*broken, from, to)
		return
	}
	if _, writing := err.(*writeError); writing {
		j.breaks(err, from, to)
		return
	}
	if err != nil {
		j.abort(err, from, to)
		return
	}
	if err := to.CloseWrite(); err != nil {
		// The destination reset the connection already; the other direction may
		// have been waiting for that without a byte to tell.
		j.abort(fmt.Errorf("close writing to %s side: %w", d.toName, cause(err)), from, to)
		return
	}
	if j.done.Add(1) == 1 {
		if broken := j.broken.Load(); broken != nil {
			j.abort(*broken, from, to)
			return
		}
	} else {
		// Both ended in order: wake the other direction's watch.
		_, _ = from.Close(), to.Close()
		return
	}
	if err := watch(d.from); err != nil && j.done.Load() < 2 {
		j.abort(fmt.Errorf("read from %s side: %w", d.fromName, err), from, to)
	}
}

// direction is one half of the connection.
type direction struct {
	from, to         syscall.RawConn
	fromName, toName string
	count            *atomic.Uint64

	// What the callbacks of fill and drain work on; here, so that a step allocates nothing.
	pipe pipe
	n    int // bytes in pipe
	err  error
}

// carry moves bytes until the source's end, for which it returns nil.
func (d *direction) carry() error {
	fill, drain := d.fill, d.drain
	for {
		// Wait until the source has bytes and move some into a borrowed pipe.
		if err := d.from.Read(fill); err != nil {
			d.err = err
		}
		switch {
		case d.err == errNoSplice:
			return d.copy()
		case d.err == io.EOF:
			return nil
		case d.err != nil:
			return fmt.Errorf("read from %s side: %w", d.fromName, cause(d.err))
		}
		if err := d.to.Write(drain); err != nil {
			d.err = err
		}
		if d.err != nil {
			d.pipe.close() // bytes are left in it
			return &writeError{d.toName, cause(d.err)}
		}
		d.pipe.putBack()
	}
}

// writeError is why a side takes nothing more.
type writeError struct {
	side string
	err  error
}

func (e *writeError) Error() string { return "write to " + e.side + " side: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// errNoSplice means that the kernel does not splice from this socket.
var errNoSplice = errors.New("splice is not supported")

// fill moves bytes from the source into a borrowed pipe; nothing is borrowed
// while it waits.
func (d *direction) fill(fd uintptr) (done bool) {
	if d.pipe, d.err = borrowPipe(); d.err != nil {
		return true
	}
	d.n, d.err = splice(int(fd), d.pipe.w, pipeBytes)
	switch {
	case d.err == nil && d.n > 0:
		return true
	case d.err == nil:
		d.err = io.EOF
	case d.err == syscall.EAGAIN:
		d.err = nil
		d.pipe.putBack()
		return false
	case d.err == syscall.EINVAL || d.err == syscall.ENOSYS:
		d.err = errNoSplice
	}
	d.pipe.putBack()
	return true
}

// drain moves all bytes of the pipe to the destination.
func (d *direction) drain(fd uintptr) (done bool) {
	for d.n > 0 {
		moved, err := splice(d.pipe.r, int(fd), d.n)
		if err == syscall.EAGAIN {
			return false
		}
		if d.err = err; err != nil {
			return true
		}
		d.n -= moved
		d.count.Add(uint64(moved))
	}
	return true
}

// copy is carry for kernels (gVisor, some sandboxes) that refuse to splice.
func (d *direction) copy() error {
	buf := make([]byte, 32<<10)
	for {
		var n int
		var err error
		if waitErr := d.from.Read(func(fd uintptr) bool {
			n, err = syscall.Read(int(fd), buf)
			return err != syscall.EAGAIN
		}); waitErr != nil {
			err = waitErr
		}
		if err != nil {
			return fmt.Errorf("read from %s side: %w", d.fromName, cause(err))
		}
		if n == 0 {
			return nil
		}
		for rest := buf[:n]; len(rest) > 0; {
			var m int
			if waitErr := d.to.Write(func(fd uintptr) bool {
				m, err = syscall.Write(int(fd), rest)
				return err != syscall.EAGAIN
			}); waitErr != nil {
				err = waitErr
			}
			if err != nil {
				return &writeError{d.toName, cause(err)}
			}
			rest = rest[m:]
			d.count.Add(uint64(m))
		}
	}
}

// watch waits, after the source's half-close, until the source resets the
// connection (returns why) or our side is closed (returns nil).
func watch(source syscall.RawConn) error {
	var why error
	err := source.Read(func(fd uintptr) bool {
		code, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
		switch {
		case err != nil:
			why = err
		case code != 0:
			why = syscall.Errno(code)
		}
		return why != nil
	})
	if err != nil {
		return nil // closed by our side
	}
	return why
}

// cause strips the operation and addresses that package net puts around an
// errno: the access log has them in fields of their own.
func cause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}
