// Package lifecycle owns how the parts of a process start and end: a Group runs
// goroutines that stop together, and a Drain lets work in progress finish up to
// a deadline.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// errStopped is the cause of a Stop without a cause of its own.
var errStopped = errors.New("stopped")

// Group runs named goroutines that belong together: the first that returns an
// error ends the context of all. It is safe for concurrent use.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	err error
}

// NewGroup returns a Group whose goroutines end when ctx does.
func NewGroup(ctx context.Context) *Group {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{ctx: ctx, cancel: cancel}
}

// Context is the context that the goroutines of the group get.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts f. An error that f returns stops the group and is wrapped with
// name, unless the group was being stopped already: then what a goroutine says
// on its way out is no news.
func (g *Group) Go(name string, f func(ctx context.Context) error) {
	g.wg.Go(func() {
		if err := f(g.ctx); err != nil && g.ctx.Err() == nil {
			g.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
}

func (g *Group) fail(err error) {
	g.mu.Lock()
	if g.err == nil {
		g.err = err
	}
	g.mu.Unlock()
	g.cancel(err)
}

// Stop ends the context of all goroutines; it does not wait. cause may be nil.
func (g *Group) Stop(cause error) {
	if cause == nil {
		cause = errStopped
	}
	g.cancel(cause)
}

// Wait blocks until every goroutine has returned, and returns the error that
// ended the group, nil when it was stopped or all returned nil.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel(errStopped)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}
