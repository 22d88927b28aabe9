package hbone

import (
	"sync"
	"sync/atomic"
	"time"
)

// load measures how much a tunnel moves, at no cost until somebody asks.
type load struct {
	octets atomic.Int64

	mu     sync.Mutex
	last   time.Time
	before int64
	result bool
}

// count adds octets that were sent or received.
func (l *load) count(n int) { l.octets.Add(int64(n)) }

// busy compares the rate since the last question with busyRate. Questions within
// 20 ms have the same answer.
func (l *load) busy(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	elapsed := now.Sub(l.last)
	if elapsed < 20*time.Millisecond {
		return l.result
	}
	moved := l.octets.Load() - l.before
	l.result = !l.last.IsZero() && float64(moved) > busyRate*min(elapsed.Seconds(), 1)
	l.last, l.before = now, l.octets.Load()
	return l.result
}
