package ratelimit

import "sync"

// leases are the counters whose limits are shared among replicas.
type leases struct {
	mu       sync.Mutex
	counters map[*Counter]bool
}

func (l *leases) init() { l.counters = map[*Counter]bool{} }

func (l *leases) add(c *Counter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counters[c] = true
}

func (l *leases) remove(c *Counter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.counters, c)
}
