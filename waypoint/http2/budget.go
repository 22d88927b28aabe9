package http2

import "sync/atomic"

// Budget bounds what the receive windows of many streams may grow by together, so
// that peers whose bytes nobody takes cannot make a proxy hold memory without bound.
// It is safe for concurrent use, and several connections may share one.
type Budget struct{ left atomic.Int64 }

// NewBudget returns a budget of the given octets.
func NewBudget(octets int64) *Budget {
	b := &Budget{}
	b.left.Store(octets)
	return b
}

func (b *Budget) take(n int64) bool {
	if b.left.Add(-n) >= 0 {
		return true
	}
	b.left.Add(n)
	return false
}

func (b *Budget) release(n int64) { b.left.Add(n) }
