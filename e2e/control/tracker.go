package main

import (
	"slices"
	"sync"
	"time"
)

// event is what proxies can see of a pod.
type event int

const (
	appeared event = iota // as a healthy workload
	gone
)

// tracker waits for changes to reach every proxy.
type tracker struct {
	proxies int

	mu   sync.Mutex
	open map[changeKey]*change
	done []time.Duration // of changes that all proxies have
	lost int
}

type changeKey struct {
	uid   string
	event event
}

// change is one that not all proxies have yet.
type change struct {
	written time.Time
	has     []bool // by proxy
	missing int
}

func newTracker(proxies int) *tracker {
	return &tracker{proxies: proxies, open: map[changeKey]*change{}}
}

// expect begins to wait, from before the write to the API on.
func (t *tracker) expect(uid string, e event, written time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[changeKey{uid, e}] = &change{written: written, has: make([]bool, t.proxies), missing: t.proxies}
}

// forget takes back what expect began, for a write that failed.
func (t *tracker) forget(uid string, e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, changeKey{uid, e})
}

// saw notes that a proxy has seen an event, as often as it does.
func (t *tracker) saw(proxy int, uid string, e event, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := changeKey{uid, e}
	c := t.open[key]
	if c == nil || c.has[proxy] {
		return
	}
	c.has[proxy] = true
	if c.missing--; c.missing == 0 {
		t.done = append(t.done, at.Sub(c.written))
		delete(t.open, key)
	}
}

// pending counts the changes that are still on their way; those that have been
// for too long are lost.
func (t *tracker) pending(now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, c := range t.open {
		if now.Sub(c.written) > changeTimeout {
			t.lost++
			delete(t.open, key)
		}
	}
	return len(t.open)
}

// take returns the times of the changes that came to their end since the last
// call, sorted, and how many were lost.
func (t *tracker) take() (times []time.Duration, lost int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	times, lost = t.done, t.lost
	t.done, t.lost = nil, 0
	slices.Sort(times)
	return times, lost
}

// percentile of sorted times; zero of none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}
