package ratelimit

import (
	"sync/atomic"
	"time"
)

// health is how a backend outside of the process did when it was asked last. The zero
// value has no complaint. It is safe for concurrent use.
type health struct {
	last atomic.Pointer[failure]
}

// failure is an answer that did not come, or was none.
type failure struct {
	at  time.Time
	err error
}

// note keeps what became of a question; nil is an answer.
func (h *health) note(err error) {
	switch {
	case err != nil:
		h.last.Store(&failure{at: time.Now(), err: err})
	case h.last.Load() != nil: // a load costs less than a store that all processors see
		h.last.Store(nil)
	}
}

// trouble returns why the last question was not answered, and when; nil when it was.
func (h *health) trouble() *failure { return h.last.Load() }
