package upstream

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Adaptive bounds the requests under way by what their latency tells: while it is
// near the least that was measured, more are let in; when it grows, requests wait
// somewhere, and fewer are. It is Envoy's gradient controller: from time to time a
// few requests run nearly alone to measure the least latency (minRTT), and between
// these the limit follows minRTT over the latency of a window, plus some headroom.
type Adaptive struct {
	// Percentile of the latencies is compared: 50 when 0.
	Percentile int
	// Window is how often the limit changes: 100 ms when 0.
	Window time.Duration
	// MinRTTInterval is how often minRTT is measured: 60 s when 0; each time from
	// MinRTTRequests, 50 when 0, with the limit at MinConcurrency, 3 when 0.
	MinRTTInterval time.Duration
	MinRTTRequests int
	MinConcurrency int
	// BufferPercent of minRTT is taken for noise: 25 when 0.
	BufferPercent int
	// MaxConcurrency is the most that is ever allowed: 1,000 when 0.
	MaxConcurrency int
}

func (a *Adaptive) validate() error {
	if a == nil {
		return nil
	}
	if a.Percentile < 0 || a.Percentile > 100 || a.Window < 0 || a.MinRTTInterval < 0 || a.MinRTTRequests < 0 ||
		a.MinConcurrency < 0 || a.BufferPercent < 0 || a.MaxConcurrency < 0 {
		return errors.New("adaptive concurrency: a figure is out of range")
	}
	return nil
}

// Priority tells which requests are refused first when an adaptive limit is near.
// The zero value is Normal.
type Priority int8

// The priorities. Of the places that the limit has, Low requests find all taken at
// 3/4 of them, Normal ones at 9/10, High ones at the end, and Critical ones may go a
// tenth above.
const (
	Low Priority = iota - 1
	Normal
	High
	Critical
)

// part is what of the limit a priority may fill, in tenths of a percent.
func (p Priority) part() int64 {
	switch {
	case p <= Low:
		return 750
	case p == Normal:
		return 900
	case p == High:
		return 1000
	}
	return 1100
}

// limiter holds the limit. Its zero value is not usable.
type limiter struct {
	cfg   Adaptive
	gauge gauge

	mu        sync.Mutex
	dueAt     int64     // when the window under way ends
	latencies []float64 // of the window, at most maxSamples, in seconds
	seen      int       // of the window
	minRTT    float64   // in seconds, 0 before the first measurement
	measuring bool
	since     int64 // when that began
	measureAt int64 // when minRTT is measured next
	before    int64 // the limit before it was
}

// maxSamples bounds the latencies of a window that are looked at: a median of 512 is
// within 5 % in rank.
const maxSamples = 512

// minWindow is how many latencies a window needs before the limit changes.
const minWindow = 5

func newLimiter(c Adaptive) *limiter {
	fill := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	fill(&c.Percentile, 50)
	fill(&c.MinRTTRequests, 50)
	fill(&c.MinConcurrency, 3)
	fill(&c.BufferPercent, 25)
	fill(&c.MaxConcurrency, 1000)
	if c.Window == 0 {
		c.Window = 100 * time.Millisecond
	}
	if c.MinRTTInterval == 0 {
		c.MinRTTInterval = time.Minute
	}
	l := &limiter{cfg: c, measuring: true, before: int64(min(c.MaxConcurrency, 100))}
	l.gauge.max.Store(int64(c.MinConcurrency))
	return l
}

// acquire takes a place that the priority may fill. While minRTT is measured, and
// with few places altogether, all are for everybody.
func (l *limiter) acquire(p Priority) bool {
	for {
		n, most := l.gauge.n.Load(), l.gauge.max.Load()
		if most > int64(l.cfg.MinConcurrency) {
			most = max(int64(l.cfg.MinConcurrency), most*p.part()/1000)
		}
		if n >= most {
			return false
		}
		if l.gauge.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// observe counts a latency and, at the end of a window, sets the limit.
func (l *limiter) observe(latency time.Duration, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.measuring && now-int64(latency) < l.since {
		return // it began when there were more beside it
	}
	l.seen++
	if len(l.latencies) < maxSamples {
		l.latencies = append(l.latencies, latency.Seconds())
	}
	if l.measuring {
		if l.seen >= l.cfg.MinRTTRequests {
			l.minRTT = l.quantile()
			l.measuring = false
			// Replicas do not measure all at the same time.
			l.measureAt = now + int64(l.cfg.MinRTTInterval) + rand.Int64N(int64(l.cfg.MinRTTInterval)/8+1)
			l.gauge.max.Store(l.before)
			l.next(now)
		}
		return
	}
	if now < l.dueAt {
		return
	}
	if l.seen >= minWindow {
		l.adjust()
	}
	l.next(now)
	if now >= l.measureAt {
		l.measuring, l.since, l.before = true, now, l.gauge.max.Load()
		l.gauge.max.Store(int64(l.cfg.MinConcurrency))
	}
}

// next begins a window.
func (l *limiter) next(now int64) {
	l.latencies, l.seen = l.latencies[:0], 0
	l.dueAt = now + int64(l.cfg.Window)
}

// adjust sets the limit to gradient × limit + headroom: the gradient is minRTT, with
// what is taken for noise, over the window's latency, between 1/2 and 2; the headroom
// is the square root of the limit, so that it is found out whether more would do.
func (l *limiter) adjust() {
	limit := float64(l.gauge.max.Load())
	buffered := l.minRTT * (1 + float64(l.cfg.BufferPercent)/100)
	gradient := max(0.5, min(2, buffered/max(l.quantile(), 1e-9)))
	next := gradient * limit
	next += math.Sqrt(next)
	l.gauge.max.Store(int64(max(float64(l.cfg.MinConcurrency), min(float64(l.cfg.MaxConcurrency), next))))
}

func (l *limiter) quantile() float64 {
	slices.Sort(l.latencies)
	i := len(l.latencies) * l.cfg.Percentile / 100
	return l.latencies[min(i, len(l.latencies)-1)]
}
