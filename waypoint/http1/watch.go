package http1

import (
	"errors"
	"sync"
	"time"
)

// What a watch has to look at.
const (
	watchNothing = iota
	watchPeer    // nobody reads: whether the peer goes
	watchCaller  // a client's exchange: whether its context ends
)

// watch looks after what lasts longer than patience: it reads from a connection while
// nobody else does, to notice that the peer has gone, and has a client's context
// followed. A timer finds out what lasts, which runs on while there are requests:
// what is quicker costs two locks of a mutex, no goroutine and no registration.
//
// Its read is never interrupted, because not all connections can read on after that.
// Who wants to read meanwhile waits for the watch's, and uses what it brings.
type watch struct {
	// gone is called when the connection has ended while nobody read, and, for a client,
	// when something came that nobody asked for. It runs on the watch's goroutine.
	gone func(err error)
	// client tells that nothing may come while nobody reads.
	client bool

	mu      sync.Mutex
	quiet   sync.Cond // signals reading; L is mu
	timer   *time.Timer
	ticking bool
	stopped bool
	state   int
	times   uint64 // how often state was set
	seen    uint64 // times, at the last tick
	reading bool
	caller  caller
}

// caller is an exchange of a client.
type caller interface {
	// follow is called when the exchange lasts, with the mutex of the watch.
	follow()
}

// set says what there is to look at from now on. There must be nothing in w's buffer
// for watchPeer. It reports whether the watch reads, so that readers must join it.
func (t *watch) set(w *wire, state int, who caller) (reading bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state, t.caller = state, who
	t.times++
	if state == watchNothing || t.ticking || t.stopped || state == watchPeer && t.reading {
		return t.reading
	}
	t.ticking = true
	if t.timer == nil {
		t.quiet.L = &t.mu
		t.timer = time.AfterFunc(patience, func() { t.tick(w) })
	} else {
		t.timer.Reset(patience)
	}
	return t.reading
}

// join waits for the read that the watch is in. What it has read is in w's buffer, an
// error in w.failed.
func (t *watch) join() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.reading {
		t.quiet.Wait()
	}
}

// stop ends the watch, whose connection is closed.
func (t *watch) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped, t.state, t.caller = true, watchNothing, nil
	if t.timer != nil {
		t.timer.Stop()
	}
	for t.reading {
		t.quiet.Wait()
	}
}

func (t *watch) tick(w *wire) {
	t.mu.Lock()
	switch {
	case t.state == watchNothing || t.stopped || t.state == watchPeer && t.reading:
		t.ticking = false
	case t.times != t.seen:
		t.seen = t.times
		t.timer.Reset(patience)
	case t.state == watchCaller:
		t.ticking = false
		t.caller.follow()
	default:
		t.ticking = false
		t.read(w)
		return
	}
	t.mu.Unlock()
}

// errUnasked says that the peer sent something where it had nothing to say.
var errUnasked = errors.New("octets that nobody asked for")

// read reads once. It is called with the lock, and returns without it.
func (t *watch) read(w *wire) {
	t.reading = true
	if w.buf == nil {
		w.buf = borrow(classIdle)
	}
	w.r, w.w = 0, 0
	t.mu.Unlock()
	n, err := w.read(w.buf.b)
	t.mu.Lock()
	w.w = n
	alone := t.state == watchPeer
	if alone && t.client && n > 0 {
		err = errUnasked
		w.failed = err
	}
	t.reading = false
	t.quiet.Broadcast()
	t.mu.Unlock()
	if err != nil && alone {
		t.gone(err)
	}
}
