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
	done outcome
}

// outcome is the times of changes that all proxies have.
type outcome struct {
	// whole is from before the write to the API to the last proxy, write is the
	// part of the API's answer, and after is from that answer on, zero where the
	// last proxy was quicker.
	whole, write, after []time.Duration
	lost                int
}

type changeKey struct {
	uid   string
	event event
}

// change is one that not all proxies have yet.
type change struct {
	written  time.Time
	answered time.Time // by the API; zero before
	arrived  time.Time // at the last proxy; zero before
	has      []bool    // by proxy
	missing  int
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
		c.arrived = at
		t.finish(key, c)
	}
}

// wrote notes that the API has answered the write.
func (t *tracker) wrote(uid string, e event, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := changeKey{uid, e}
	if c := t.open[key]; c != nil {
		c.answered = at
		t.finish(key, c)
	}
}

func (t *tracker) finish(key changeKey, c *change) {
	if c.answered.IsZero() || c.arrived.IsZero() {
		return
	}
	t.done.whole = append(t.done.whole, c.arrived.Sub(c.written))
	t.done.write = append(t.done.write, c.answered.Sub(c.written))
	t.done.after = append(t.done.after, max(0, c.arrived.Sub(c.answered)))
	delete(t.open, key)
}

// pending counts the changes that are still on their way; those that have been
// for too long are lost.
func (t *tracker) pending(now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, c := range t.open {
		if now.Sub(c.written) > changeTimeout {
			t.done.lost++
			delete(t.open, key)
		}
	}
	return len(t.open)
}

// take returns what came to its end since the last call, sorted.
func (t *tracker) take() outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.done
	t.done = outcome{}
	for _, times := range [][]time.Duration{o.whole, o.write, o.after} {
		slices.Sort(times)
	}
	return o
}

// percentile of sorted times; zero of none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}
