package upstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// ErrNoEndpoints is returned when no endpoint could take a request: there is none,
// or all are unready, without weight, too far or left out for now.
var ErrNoEndpoints = errors.New("no endpoint can take requests")

// NoEndpointsError says why a backend has nobody to send a request to. It is an
// ErrNoEndpoints.
type NoEndpointsError struct {
	Backend string
	// Endpoints is how many there are; Unready, Ejected and Failing of them are not
	// ready, ejected, and failing active checks.
	Endpoints, Unready, Ejected, Failing int
}

func (e *NoEndpointsError) Error() string {
	if e.Endpoints == 0 {
		return e.Backend + ": there are no endpoints"
	}
	return fmt.Sprintf("%s: no endpoint can take requests: %d not ready, %d ejected, %d failing checks, of %d",
		e.Backend, e.Unready, e.Ejected, e.Failing, e.Endpoints)
}

func (e *NoEndpointsError) Is(err error) bool { return err == ErrNoEndpoints }

// Options of one choice. The zero value is right for a first attempt.
type Options struct {
	// Hash is the key that hashed balancers choose by; without Hashed they choose at
	// random.
	Hash   uint64
	Hashed bool
	// Session is the token of the target that the client is bound to; it gets it for
	// as long as it takes part. 0 is none.
	Session uint64
	// Avoid lists targets that were tried; one of them is chosen only when there is no
	// other.
	Avoid []*Target
	// Farther looks among endpoints that are not as near as those to avoid first.
	Farther bool
}

// Pick chooses a target. It takes no lock and allocates nothing but its error.
func (b *Backend) Pick(o Options) (*Target, error) {
	s := b.current()
	if o.Session != 0 {
		if t := s.session(o.Session); t != nil && !slices.Contains(o.Avoid, t) {
			return t, nil
		}
	}
	hash := o.Hash
	if len(s.tiers) == 0 {
		return nil, b.nobody()
	}
	if !o.Hashed && (s.settings.Balancer.hashed() || len(s.tiers) > 1) {
		hash = rand.Uint64()
	}
	if t := s.pick(b, hash, o); t != nil {
		return t, nil
	}
	return nil, b.nobody()
}

// current is the set, made anew if the time for that has come.
func (b *Backend) current() *set {
	s := b.set.Load()
	if s.next != never {
		if now := b.now(); now >= s.next {
			s = b.refresh(now)
		}
	}
	return s
}

// session returns the target of a token if it takes part: what is ejected or
// failing would only answer errors.
func (s *set) session(token uint64) *Target {
	if t := s.byHash[token]; t != nil && t.serving.Load() {
		return t
	}
	return nil
}

func (s *set) pick(b *Backend, hash uint64, o Options) *Target {
	avoid, at := o.Avoid, 0
	if len(s.tiers) > 1 {
		// Mixed, so that the keys of a tier do not all lie in one part of its table.
		r := mix(hash) >> 32
		for at < len(s.bounds)-1 && r >= s.bounds[at] {
			at++
		}
	}
	if o.Farther && len(avoid) > 0 {
		at = s.farther(at, avoid)
	}
	t := &s.tiers[at]
	if t.picker == nil || s.bounds[len(s.bounds)-1] == 0 {
		return nil
	}
	var second *Target // was tried, or is not warm
	for try := range redraws {
		i := t.picker.pick(hash, try)
		if !t.fits(i) {
			continue
		}
		found := t.targets[i]
		if len(avoid) > 0 && slices.Contains(avoid, found) {
			if second == nil {
				second = found
			}
			continue
		}
		if s.warming && !b.admit(found) {
			second = found
			continue
		}
		return found
	}
	if second != nil && len(avoid) == 0 {
		return second
	}
	// The balancer found nobody new: look at all, this tier first, from a place that
	// depends on the request.
	for k := range s.tiers {
		t := &s.tiers[(at+k)%len(s.tiers)]
		n := len(t.targets)
		if n == 0 {
			continue
		}
		from := int(mix(hash^rand.Uint64()) % uint64(n))
		if s.settings.Balancer.hashed() {
			from = int(mix(hash) % uint64(n)) // equal keys still go to the same target
		}
		for j := range n {
			i := (from + j) % n
			if !t.fits(i) {
				continue
			}
			if !slices.Contains(avoid, t.targets[i]) {
				return t.targets[i]
			}
			if second == nil {
				second = t.targets[i]
			}
		}
	}
	return second
}

// farther returns the first tier with somebody to choose that has none of those that
// were tried, at when there is none.
func (s *set) farther(at int, tried []*Target) int {
	for i := range s.tiers {
		t := &s.tiers[i]
		if t.picker == nil || !slices.ContainsFunc(t.targets, func(c *Target) bool { return c.serving.Load() }) {
			continue
		}
		if !slices.ContainsFunc(tried, func(c *Target) bool { return slices.Contains(t.targets, c) }) {
			return i
		}
	}
	return at
}

// refresh makes the set anew because the time has come for it.
func (b *Backend) refresh(now int64) *set {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.set.Load().next <= now {
		b.rebuild(now)
	}
	return b.set.Load()
}

// nobody says why there is no target.
func (b *Backend) nobody() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := &NoEndpointsError{Backend: b.Name(), Endpoints: len(b.targets)}
	for _, t := range b.targets {
		switch {
		case !t.Endpoint().Healthy:
			e.Unready++
		case t.ejectedUntil != 0:
			e.Ejected++
		case t.failing:
			e.Failing++
		}
	}
	return e
}
