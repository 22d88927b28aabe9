package http1

import (
	"io"
	"net"
)

// wire is the reading side of a connection, with a buffer. One goroutine reads at a
// time, which owns all of it but watch. It sets no deadlines: a stream of a tunnel
// may not outlive one.
type wire struct {
	conn net.Conn

	// buf.b[r:w] was read and is not used yet. buf is nil while nothing is held.
	buf  *buffer
	r, w int
	// next is the class of the buffer that is borrowed next, floor the smallest.
	next, floor int

	// failed is the error that reading ended with.
	failed error

	watch watch
	// watched tells that the watch may be reading, so that it must be joined first.
	watched bool
}

// read reads once, past the buffer.
func (w *wire) read(p []byte) (int, error) {
	for empty := 0; w.failed == nil; {
		n, err := w.conn.Read(p)
		if err != nil {
			w.failed = err
		}
		if n > 0 {
			return n, nil
		}
		if empty++; empty > maxEmptyReads && err == nil {
			w.failed = io.ErrNoProgress
		}
	}
	return 0, w.failed
}

// readInto reads once, into p. Nothing may be buffered.
func (w *wire) readInto(p []byte) (int, error) {
	if w.watched {
		w.join()
		if have := w.buffered(); len(have) > 0 {
			n := copy(p, have)
			w.skip(n)
			return n, nil
		}
	}
	return w.read(p)
}

// release lets the watch look whether the peer goes. Nothing may be buffered.
func (w *wire) release() { w.watched = w.watch.set(w, watchPeer, nil) }

// acquire takes reading back.
func (w *wire) acquire(state int, who caller) { w.watched = w.watch.set(w, state, who) }

// join waits for the read that the watch is in.
func (w *wire) join() {
	w.watch.join()
	w.watched = false
}

// buffered returns what was read and is not used yet.
func (w *wire) buffered() []byte {
	if w.buf == nil || w.watched {
		return nil
	}
	return w.buf.b[w.r:w.w]
}

// skip uses n octets of what is buffered.
func (w *wire) skip(n int) { w.r += n }

// fill reads more into the buffer, behind what is there. It returns false when there
// is no room for more.
func (w *wire) fill() (bool, error) {
	if w.watched {
		w.join()
		if w.r != w.w {
			return true, nil
		}
	}
	if !w.makeRoom() {
		return false, nil
	}
	room := w.buf.b[w.w:]
	n, err := w.read(room)
	w.w += n
	switch {
	case n == len(room):
		// There is more: a larger buffer saves system calls.
		w.next = min(w.buf.class+1, classMedium)
	case w.w-w.r <= classSize[w.floor]/2 && n > 0:
		w.next = w.floor
	}
	return true, err
}

// makeRoom sees to it that something fits behind what is buffered.
func (w *wire) makeRoom() bool {
	if w.buf == nil || w.r == w.w {
		w.r, w.w = 0, 0
		if w.buf != nil && w.buf.class != w.next {
			w.buf.release()
			w.buf = nil
		}
		if w.buf == nil {
			w.buf = borrow(w.next)
		}
		return true
	}
	if w.w < len(w.buf.b) {
		return true
	}
	if w.r >= len(w.buf.b)/2 || w.buf.class == classLarge {
		if w.r == 0 {
			return false
		}
		w.w = copy(w.buf.b, w.buf.b[w.r:w.w])
		w.r = 0
		return true
	}
	larger := borrow(w.buf.class + 1)
	w.w = copy(larger.b, w.buf.b[w.r:w.w])
	w.r = 0
	w.buf.release()
	w.buf = larger
	return true
}

// relax gives the buffer back if it is larger than an idle connection may hold, or,
// with all, in any case. It does nothing while something is buffered.
func (w *wire) relax(all bool) {
	if w.watched || w.buf == nil || w.r != w.w {
		return
	}
	w.r, w.w = 0, 0
	if !all {
		w.next = max(w.floor, min(w.next, classSmall))
	}
	if all || w.buf.class > w.next {
		w.buf.release()
		w.buf = nil
	}
}

// close closes the connection and gives the buffer back. Nobody but the watch may be
// reading.
func (w *wire) close() {
	_ = w.conn.Close()
	w.watch.stop()
	w.watched = false
	w.buf.release()
	w.buf, w.r, w.w = nil, 0, 0
	if w.failed == nil {
		w.failed = net.ErrClosed
	}
}

// reset closes the connection so that the peer sees that something is missing.
func reset(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}
