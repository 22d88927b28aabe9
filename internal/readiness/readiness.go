// Package readiness tells whether a process may be given work. Parts of the
// process register what they still wait for; the process is ready when nothing
// is pending, and otherwise names what is.
package readiness

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Ready holds the pending tasks of a process. It is safe for concurrent use.
// The zero value is ready.
type Ready struct {
	mu      sync.Mutex
	pending map[string]int
}

// New returns a Ready with nothing pending.
func New() *Ready { return &Ready{} }

// Pending registers a task that must end before the process is ready and
// returns the function that ends it; calling that again does nothing. Two
// pending tasks may share a name.
func (r *Ready) Pending(task string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		r.pending = map[string]int{}
	}
	r.pending[task]++
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.pending[task]--; r.pending[task] == 0 {
			delete(r.pending, task)
		}
	})
}

// Status tells whether nothing is pending, and the sorted names of what is.
func (r *Ready) Status() (ready bool, pending []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for task := range r.pending {
		pending = append(pending, task)
	}
	slices.Sort(pending)
	return len(pending) == 0, pending
}

// Handler answers 200 and "ready", or 500 and the pending tasks one a line.
func (r *Ready) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		ready, pending := r.Status()
		if !ready {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, "not ready, pending:\n%s\n", strings.Join(pending, "\n"))
			return
		}
		fmt.Fprintln(w, "ready")
	})
}
