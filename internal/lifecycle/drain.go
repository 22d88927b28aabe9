package lifecycle

import (
	"context"
	"sync"
)

// Drain lets work in progress finish while no new work begins. Holders are
// counted; Begin refuses further ones. It is safe for concurrent use.
type Drain struct {
	begun chan struct{}

	mu      sync.Mutex
	holders int
	empty   chan struct{} // closed when draining and no holder is left
}

// NewDrain returns a Drain that has not begun.
func NewDrain() *Drain {
	return &Drain{begun: make(chan struct{}), empty: make(chan struct{})}
}

// Hold registers work in progress. ok is false once the drain has begun: the
// work must not start then. release may be called more than once.
func (d *Drain) Hold() (release func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isBegun() {
		return func() {}, false
	}
	d.holders++
	return sync.OnceFunc(d.release), true
}

func (d *Drain) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holders--; d.holders == 0 && d.isBegun() {
		close(d.empty)
	}
}

// Begin starts the drain; calling it again does nothing.
func (d *Drain) Begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isBegun() {
		return
	}
	close(d.begun)
	if d.holders == 0 {
		close(d.empty)
	}
}

func (d *Drain) isBegun() bool {
	select {
	case <-d.begun:
		return true
	default:
		return false
	}
}

// Draining is closed when the drain begins.
func (d *Drain) Draining() <-chan struct{} { return d.begun }

// Held tells how much work is in progress.
func (d *Drain) Held() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.holders
}

// Wait begins the drain if need be, blocks until all work has finished or ctx
// ends, and returns how much is left.
func (d *Drain) Wait(ctx context.Context) (left int) {
	d.Begin()
	select {
	case <-d.empty:
		return 0
	case <-ctx.Done():
		return d.Held()
	}
}
