package http2

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errSilent   = errors.New("peer did not answer a PING")
	errLateHead = errors.New("peer did not finish a head in time")
	errIdle     = errors.New("connection was idle")
)

// watch has the timers of a connection; those that are not wanted do not exist. None
// costs anything per request: they look at what happened since they ran last.
type watch struct {
	c *conn

	heard atomic.Bool // octets arrived since the keep-alive timer ran

	mu        sync.Mutex
	stopped   bool
	timers    []*time.Timer // those below, to be stopped
	head      *time.Timer
	pulse     *time.Timer
	idle      *time.Timer
	asked     bool   // a PING is out
	idleSince uint32 // the last stream there was when the idle timer ran
}

// timeouts are the settings of a watch; zero is none.
type timeouts struct {
	head, idle, keepAlive, keepAliveTimeout time.Duration
}

// start begins with the time allowed for the first SETTINGS.
func (w *watch) start(c *conn, t timeouts) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.c = c
	if t.head > 0 {
		w.head = w.after(t.head, func() { c.fail(&ConnError{Code: codeEnhanceCalm, Cause: errLateHead}) })
	}
	if t.keepAlive > 0 {
		if t.keepAliveTimeout <= 0 {
			t.keepAliveTimeout = t.keepAlive
		}
		w.pulse = w.after(t.keepAlive, func() { w.beat(t) })
	}
	if t.idle > 0 {
		w.idleSince = 1<<32 - 1
		w.idle = w.after(t.idle, func() { w.rest(t.idle) })
	}
}

// after makes a timer that stop stops; mu is held.
func (w *watch) after(d time.Duration, f func()) *time.Timer {
	t := time.AfterFunc(d, f)
	w.timers = append(w.timers, t)
	return t
}

// stop ends the timers. One that runs just now finds nothing to do.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	for _, t := range w.timers {
		t.Stop()
	}
}

// alive notes that octets arrived.
func (w *watch) alive() {
	if !w.heard.Load() {
		w.heard.Store(true)
	}
}

// headBegun starts the time for the rest of a head, and headDone ends it. The reader
// calls them.
func (w *watch) headBegun(d time.Duration) {
	if w.head != nil {
		w.head.Reset(d)
	}
}

func (w *watch) headDone() {
	if w.head != nil {
		w.head.Stop()
	}
}

// again sets a timer anew, unless all is over.
func (w *watch) again(t *time.Timer, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		t.Reset(d)
	}
}

// beat asks for a sign of life after a silence, and ends the connection without one.
func (w *watch) beat(t timeouts) {
	c := w.c
	switch {
	case w.heard.Swap(false):
		w.asked = false
		w.again(w.pulse, t.keepAlive)
	case w.asked:
		c.fail(&ConnError{Code: codeInternal, Cause: errSilent})
	default:
		w.asked = true
		c.mu.Lock()
		if c.err == nil {
			c.out.ping(0, aliveMark)
			c.kick()
		}
		c.mu.Unlock()
		w.again(w.pulse, t.keepAliveTimeout)
	}
}

// rest drains a connection on which no request was under way between two runs.
func (w *watch) rest(d time.Duration) {
	c := w.c
	c.mu.Lock()
	idle := len(c.streams) == 0 && c.lastID == w.idleSince
	w.idleSince = c.lastID
	c.mu.Unlock()
	if idle {
		c.drain()
		return
	}
	w.again(w.idle, d)
}

// later runs f once after d, unless all is over by then.
func (w *watch) later(d time.Duration, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.after(d, f)
	}
}

// linger bounds the time that the peer has to hear the goodbye.
func (w *watch) linger() {
	w.later(lingerTimeout, func() { _ = w.c.nc.Close() })
}
