package ratelimit

import (
	"maps"
	"sync"
	"sync/atomic"
)

// shareOf is this replica's share of a rule's limits.
type shareOf struct {
	// rest is the share of keys that have none of their own.
	rest atomic.Uint32
	// own are the shares of some keys, by hash. The map is replaced, never changed.
	own atomic.Pointer[map[uint64]uint32]

	// epoch counts the reports.
	epoch atomic.Uint32
	// full tells that asked has no room, so that nobody waits for mu to find out.
	full atomic.Bool

	mu sync.Mutex
	// asked are the keys to tell of: with a share of their own, or near their limit.
	asked []*entry
}

// maxAsked bounds the keys of one rule of which a report tells: those beyond it keep the
// share that all keys have.
const maxAsked = 1024

// tell puts a key into the next report. The caller holds its shard.
func (s *shareOf) tell(e *entry) {
	if s.full.Load() {
		return
	}
	s.mu.Lock()
	if len(s.asked) < maxAsked {
		s.asked = append(s.asked, e)
		e.reported = true
	} else {
		s.full.Store(true)
	}
	s.mu.Unlock()
}

// collect returns the keys to tell of, and begins anew.
func (s *shareOf) collect() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	s.full.Store(false)
	return asked
}

// set replaces the shares of keys of their own.
func (s *shareOf) set(own map[uint64]uint32) {
	if len(own) == 0 {
		s.own.Store(nil)
		return
	}
	next := maps.Clone(own)
	s.own.Store(&next)
}

// of returns the share of a key, and whether it is its own.
func (s *shareOf) of(hash uint64) (uint32, bool) {
	if own := s.own.Load(); own != nil {
		if share, ok := (*own)[hash]; ok {
			return share, true
		}
	}
	return s.rest.Load(), false
}
