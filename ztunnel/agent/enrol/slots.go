package enrol

import (
	"context"
	"fmt"
	"sync"
)

// slots lets one operation at a time work on each pod.
type slots struct {
	mu    sync.Mutex
	byUID map[string]*slot
}

type slot struct {
	taken chan struct{} // holds one value while taken
	users int
}

// acquire waits for the slot of uid until ctx ends.
func (s *slots) acquire(ctx context.Context, uid string) (release func(), err error) {
	sl := s.use(uid)
	select {
	case sl.taken <- struct{}{}:
		return func() { <-sl.taken; s.leave(uid, sl) }, nil
	case <-ctx.Done():
		s.leave(uid, sl)
		return nil, fmt.Errorf("pod %s: another operation on it is not done: %w", uid, context.Cause(ctx))
	}
}

// try takes the slot only when it is free.
func (s *slots) try(uid string) (release func(), ok bool) {
	sl := s.use(uid)
	select {
	case sl.taken <- struct{}{}:
		return func() { <-sl.taken; s.leave(uid, sl) }, true
	default:
		s.leave(uid, sl)
		return nil, false
	}
}

func (s *slots) use(uid string) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUID == nil {
		s.byUID = map[string]*slot{}
	}
	sl := s.byUID[uid]
	if sl == nil {
		sl = &slot{taken: make(chan struct{}, 1)}
		s.byUID[uid] = sl
	}
	sl.users++
	return sl
}

func (s *slots) leave(uid string, sl *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sl.users--; sl.users == 0 {
		delete(s.byUID, uid)
	}
}
