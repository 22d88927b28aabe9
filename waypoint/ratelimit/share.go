package ratelimit

import (
	"sync"
	"sync/atomic"
)

// shareOf is this replica's share of a rule's limits.
type shareOf struct {
	// rest is the share of keys that have none of their own.
	rest atomic.Uint32

	mu  sync.Mutex
	own map[string]uint32
	// asked are the keys with demand since the last report.
	asked []*entry
}

// maxAsked bounds the keys of one rule of which a report tells: those beyond it keep the
// share that all keys have.
const maxAsked = 1024

// tell puts a key into the next report. The caller holds its shard.
func (s *shareOf) tell(e *entry) {
	s.mu.Lock()
	if len(s.asked) < maxAsked {
		s.asked = append(s.asked, e)
		e.reported = true
	}
	s.mu.Unlock()
}

// ofKey returns a key's own share.
func (s *shareOf) ofKey(key string) (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	share, ok := s.own[key]
	return share, ok
}
