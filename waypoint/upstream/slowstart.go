package upstream

import (
	"math"
	"math/rand/v2"
	"time"
)

// SlowStart gives a target that is new, or back, its share little by little, so that
// caches fill and code is compiled before the whole of it comes. Hashed balancers do
// not honour it: their keys would move twice. The zero value is off.
type SlowStart struct {
	// Window is how long it takes.
	Window time.Duration
	// Aggression bends the curve: 1, the default, is a straight line, more is quicker at
	// first.
	Aggression float64
	// MinPercent of its share is what a target gets from the beginning: 10 when 0.
	MinPercent int
}

// warm begins a target's slow start. Backend.mu is held.
func (b *Backend) warm(t *Target, now int64) {
	if s := b.settings.Load(); s.SlowStart.Window > 0 && !s.Balancer.hashed() {
		t.warmUntil.Store(now + int64(s.SlowStart.Window))
	}
}

// admit reports whether a target that was drawn gets the request: always when it is
// warm, else as often as its part of the share.
func (b *Backend) admit(t *Target) bool {
	until := t.warmUntil.Load()
	if until == 0 {
		return true
	}
	left := until - b.now()
	if left <= 0 {
		return true
	}
	s := &b.settings.Load().SlowStart
	if s.Window <= 0 {
		return true
	}
	part := max(0, 1-float64(left)/float64(s.Window))
	if s.Aggression != 1 {
		part = math.Pow(part, 1/s.Aggression)
	}
	return rand.Float64() < max(part, float64(s.MinPercent)/100)
}
