package upstream

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrBudget says that there were too many retries lately: the backend is in trouble,
// and more of them would make it worse.
var ErrBudget = errors.New("the retry budget is spent")

// BudgetConfig bounds retries to a part of the requests. The zero value is the
// default: 20 % of the requests of the last ten seconds, and ten a second besides, as
// in Gateway API's XBackendTrafficPolicy.
type BudgetConfig struct {
	// Off sets no bound.
	Off bool
	// Percent of the requests of the last Interval may be retries: 20 when 0, none
	// when negative. Interval is 10 s when 0.
	Percent  int
	Interval time.Duration
	// MinCount retries in MinInterval are allowed besides: 10 in 1 s when 0; none when
	// negative.
	MinCount    int
	MinInterval time.Duration
}

func (c *BudgetConfig) validate() error {
	if c.Percent > 100 || c.Interval < 0 || c.MinInterval < 0 {
		return errors.New("retry budget: more than 100 %, or a negative interval")
	}
	return nil
}

// slots is how many parts an interval is counted in: the sum is exact to a tenth of
// it.
const slots = 10

type budget struct {
	off      bool
	percent  int64
	minCount int64
	slot     int64 // nanoseconds of one part of Interval
	minSlot  int64 // of MinInterval
	requests [slots]slotCount

	mu         sync.Mutex
	retries    window // that the percentage had room for
	minRetries window // that it had not
}

// slotCount counts the requests of one slot of time.
type slotCount struct {
	slot atomic.Int64
	n    atomic.Int64
}

// window counts what happened in the last slots; under budget.mu.
type window struct {
	slot [slots]int64
	n    [slots]int64
}

func (w *window) sum(slot int64) int64 {
	var sum int64
	for i := range w.n {
		if w.slot[i] > slot-slots {
			sum += w.n[i]
		}
	}
	return sum
}

func (w *window) add(slot int64) {
	i := slot % slots
	if w.slot[i] != slot {
		w.slot[i], w.n[i] = slot, 0
	}
	w.n[i]++
}

func newBudget(c BudgetConfig) *budget {
	if c.Percent == 0 {
		c.Percent = 20
	}
	if c.Interval == 0 {
		c.Interval = 10 * time.Second
	}
	if c.MinCount == 0 {
		c.MinCount = 10
	}
	if c.MinInterval == 0 {
		c.MinInterval = time.Second
	}
	return &budget{
		off: c.Off, percent: int64(max(0, c.Percent)), minCount: int64(max(0, c.MinCount)),
		slot: max(1, int64(c.Interval)/slots), minSlot: max(1, int64(c.MinInterval)/slots),
	}
}

// request counts one, without a lock.
func (b *budget) request(now int64) {
	if b.off {
		return
	}
	slot := now / b.slot
	c := &b.requests[slot%slots]
	if s := c.slot.Load(); s != slot {
		// Whoever is first begins the slot anew; who counts between the two is lost,
		// once in a slot at most a handful.
		if s < slot && c.slot.CompareAndSwap(s, slot) {
			c.n.Store(0)
		}
	}
	c.n.Add(1)
}

// retry counts one if there is room.
func (b *budget) retry(now int64) bool {
	if b.off {
		return true
	}
	slot, minSlot := now/b.slot, now/b.minSlot
	var requests int64
	for i := range b.requests {
		if b.requests[i].slot.Load() > slot-slots {
			requests += b.requests[i].n.Load()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// What the percentage has no room for may still be one of the few that are always
	// allowed; these do not count against the percentage.
	switch {
	case (b.retries.sum(slot)+1)*100 <= requests*b.percent:
		b.retries.add(slot)
	case b.minRetries.sum(minSlot) < b.minCount:
		b.minRetries.add(minSlot)
	default:
		return false
	}
	return true
}
