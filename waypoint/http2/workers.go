package http2

import "time"

// workers are the goroutines of a server's connection that run handlers. One that is done
// waits for another request for a while: a new goroutine begins with a small stack, and
// growing it for a handler took an eighth of the CPU of a request. An idle connection
// has none.
type workers struct {
	// The connection's mu guards all of it.
	idle []*worker // the last to wait is the first to work
	// least is how few were idle at any time since the timer was set: so many are not
	// needed.
	least int
	timer *time.Timer
}

// worker is one goroutine.
type worker struct {
	// next is the request to serve, nil to end. It has room for one, and gets one only
	// from who has taken the worker off the idle ones.
	next chan *serverExchange
}

// start has x's handler run. The connection's background counts x already.
func (c *conn) start(x *serverExchange) {
	w := &c.server.workers
	c.mu.Lock()
	n := len(w.idle)
	if n == 0 {
		c.mu.Unlock()
		go c.work(x)
		return
	}
	k := w.idle[n-1]
	w.idle[n-1] = nil
	w.idle = w.idle[:n-1]
	w.least = min(w.least, n-1)
	c.mu.Unlock()
	c.background.Done() // the worker is counted
	k.next <- x
}

// work runs the handlers of x and of what comes after it.
func (c *conn) work(x *serverExchange) {
	defer c.background.Done()
	var k *worker
	for x != nil {
		if k == nil {
			k = &worker{next: make(chan *serverExchange, 1)}
		}
		x.run()
		if !c.rest(k) {
			return
		}
		x = <-k.next
	}
}

// rest puts a worker to the idle ones, unless there are enough.
func (c *conn) rest(k *worker) bool {
	w := &c.server.workers
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.err != nil || len(w.idle) >= maxIdleWorkers {
		return false
	}
	w.idle = append(w.idle, k)
	if w.timer == nil {
		w.timer = time.AfterFunc(idleWorker, c.dismissIdle)
		w.least = len(w.idle)
	}
	return true
}

// dismissIdle ends the workers that were not needed lately.
func (c *conn) dismissIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.server.workers
	if w.timer == nil {
		return
	}
	n := min(w.least, len(w.idle))
	c.dismiss(n)
	w.least = len(w.idle)
	w.timer = nil
	if len(w.idle) > 0 {
		w.timer = time.AfterFunc(idleWorker, c.dismissIdle)
	}
}

// dismissAll ends the idle workers of a connection that is over; mu is held.
func (c *conn) dismissAll() {
	w := &c.server.workers
	c.dismiss(len(w.idle))
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// dismiss ends the n that wait for the longest; mu is held.
func (c *conn) dismiss(n int) {
	w := &c.server.workers
	for _, k := range w.idle[:n] {
		k.next <- nil
	}
	w.idle = append(w.idle[:0], w.idle[n:]...)
	clear(w.idle[len(w.idle):cap(w.idle)])
}
