// Package backoff spaces out repeated attempts: exponentially growing delays
// with jitter, so that many who fail together do not return together.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Backoff yields the delays between attempts of one operation. It is not safe
// for concurrent use; each operation has its own.
type Backoff struct {
	min, max, next time.Duration
}

// New returns a Backoff whose first delay is around min and which doubles up to
// max. It panics when min is not positive or larger than max.
func New(min, max time.Duration) *Backoff {
	if min <= 0 || max < min {
		panic("backoff: want 0 < min <= max")
	}
	return &Backoff{min: min, max: max, next: min}
}

// Next returns the delay before the next attempt: between half of the current
// step and the whole of it, so that delays keep growing while they scatter.
func (b *Backoff) Next() time.Duration {
	step := b.next
	b.next = min(step*2, b.max)
	half := step / 2
	return half + rand.N(step-half+1)
}

// Reset starts again from the first delay, after a success.
func (b *Backoff) Reset() { b.next = b.min }
