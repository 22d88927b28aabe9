package http2

import (
	"context"
	"sync"
	"time"
)

// requestContext is the context of one request. It lies in the exchange, and makes
// nothing until somebody wants to hear of its end: context.WithCancel would allocate
// for each request. It has AfterFunc, so that contexts derived from it need no
// goroutine (see context.AfterFunc).
type requestContext struct {
	parent context.Context // for values alone: its end is the connection's, which ends all requests

	mu    sync.Mutex
	err   error
	done  chan struct{}
	after map[*afterFunc]struct{}
}

type afterFunc struct{ f func() }

// Deadline implements context.Context.
func (r *requestContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context.
func (r *requestContext) Value(key any) any { return r.parent.Value(key) }

// Err implements context.Context.
func (r *requestContext) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Done implements context.Context.
func (r *requestContext) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done = make(chan struct{})
		if r.err != nil {
			close(r.done)
		}
	}
	return r.done
}

// AfterFunc runs f in a goroutine of its own when the context ends; stop prevents it
// and reports whether it did.
func (r *requestContext) AfterFunc(f func()) (stop func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		go f()
		return func() bool { return false }
	}
	a := &afterFunc{f}
	if r.after == nil {
		r.after = map[*afterFunc]struct{}{}
	}
	r.after[a] = struct{}{}
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		_, waiting := r.after[a]
		delete(r.after, a)
		return waiting
	}
}

// cancel ends the context.
func (r *requestContext) cancel() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	r.err = context.Canceled
	if r.done != nil {
		close(r.done)
	}
	for a := range r.after {
		go a.f()
	}
	r.after = nil
}
