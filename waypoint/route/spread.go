package route

import "sync/atomic"

// Spread makes numbers for Rule.Pick and Mirror.Picks that share out more evenly than
// chance does: of any run of requests, each backend's part differs from its weight's
// by a few. The zero value starts at 0; Start anywhere, so that replicas do not go in
// step. It is safe for concurrent use.
//
// They are the multiples of an irrational number modulo 1 (Weyl's sequence), which
// stay evenly spread when only every second or third of them is looked at, as happens
// when requests alternate.
type Spread struct {
	n atomic.Uint64
}

// step is 2^64 divided by the golden ratio, the number that is hardest to come near
// with fractions.
const step = 0x9E3779B97F4A7C15

// Start sets where the numbers go on.
func (s *Spread) Start(u uint64) { s.n.Store(u) }

// Next returns the next number.
func (s *Spread) Next() uint64 { return s.n.Add(step) }
