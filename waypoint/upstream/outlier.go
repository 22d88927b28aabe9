package upstream

import (
	"errors"
	"math"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Outlier says which targets are ejected: left out for a while because of how they
// answered requests. The zero value ejects none; DefaultOutlier has Envoy's figures.
type Outlier struct {
	// Consecutive5xx answers of 500 to 599 in a row eject; 0 does not count them. A
	// gRPC status counts as the HTTP status it stands for.
	Consecutive5xx int
	// ConsecutiveGateway answers of 502, 503 or 504 in a row eject.
	ConsecutiveGateway int
	// ConsecutiveLocal failures in a row that this waypoint saw itself (no connection,
	// a reset, no answer in time) eject, with SplitLocal.
	ConsecutiveLocal int
	// SplitLocal counts those apart; otherwise they count as 503 and 504.
	SplitLocal bool
	// SuccessRate ejects targets far below the others.
	SuccessRate SuccessRate
	// FailurePercent ejects targets with a larger part of failures.
	FailurePercent FailurePercent
	// Interval is how long rates are counted: 10 s when 0. For each interval that a
	// target was not ejected, its next ejection is one step shorter.
	Interval time.Duration
	// BaseEjection times the number of ejections in a row is how long one lasts: 30 s
	// when 0; at most MaxEjection, 300 s when 0.
	BaseEjection, MaxEjection time.Duration
	// MaxEjectedPercent of the targets are ejected at the same time: 10 when 0. One may
	// always be, unless it is the only one.
	MaxEjectedPercent int
}

// SuccessRate ejects targets whose part of successes in an interval is less than the
// mean of all by more than Factor standard deviations. Without Factor it is off.
type SuccessRate struct {
	Factor float64
	// MinTargets with at least MinRequests in the interval must there be: 5 and 100
	// when 0.
	MinTargets, MinRequests int
}

// FailurePercent ejects targets with at least Threshold percent of failures in an
// interval. Without Threshold it is off.
type FailurePercent struct {
	Threshold int
	// MinTargets with at least MinRequests in the interval must there be: 5 and 50
	// when 0.
	MinTargets, MinRequests int
}

// DefaultOutlier ejects on five 5xx or gateway errors in a row.
func DefaultOutlier() *Outlier {
	return &Outlier{Consecutive5xx: 5, ConsecutiveGateway: 5, ConsecutiveLocal: 5}
}

func (o *Outlier) validate() error {
	if o == nil {
		return nil
	}
	if o.Consecutive5xx < 0 || o.ConsecutiveGateway < 0 || o.ConsecutiveLocal < 0 || o.Interval < 0 ||
		o.BaseEjection < 0 || o.MaxEjection < 0 || o.SuccessRate.Factor < 0 || o.SuccessRate.MinRequests < 0 ||
		o.SuccessRate.MinTargets < 0 || o.FailurePercent.MinRequests < 0 || o.FailurePercent.MinTargets < 0 {
		return errors.New("outlier detection: a negative figure")
	}
	if o.MaxEjectedPercent < 0 || o.MaxEjectedPercent > 100 || o.FailurePercent.Threshold < 0 || o.FailurePercent.Threshold > 100 {
		return errors.New("outlier detection: not a percentage")
	}
	return nil
}

// EjectionCause is what a target was ejected for.
type EjectionCause uint8

// The causes.
const (
	EjectedFor5xx EjectionCause = iota
	EjectedForGateway
	EjectedForLocal
	EjectedForSuccessRate
	EjectedForFailurePercent
	ejectionCauses
)

func (c EjectionCause) String() string {
	return [...]string{"consecutive-5xx", "consecutive-gateway", "consecutive-local", "success-rate", "failure-percent"}[c]
}

// outlierCounts are a target's.
type outlierCounts struct {
	serverErrors, gateway, local atomic.Int32 // in a row
	good, bad                    atomic.Uint32
}

type detector struct {
	backend *Backend
	cfg     Outlier
	rates   bool
	sweepAt atomic.Int64
}

func newDetector(b *Backend, cfg Outlier) *detector {
	fill := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	fillTime := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	fill(&cfg.SuccessRate.MinTargets, 5)
	fill(&cfg.SuccessRate.MinRequests, 100)
	fill(&cfg.FailurePercent.MinTargets, 5)
	fill(&cfg.FailurePercent.MinRequests, 50)
	fill(&cfg.MaxEjectedPercent, 10)
	fillTime(&cfg.Interval, 10*time.Second)
	fillTime(&cfg.BaseEjection, 30*time.Second)
	fillTime(&cfg.MaxEjection, max(300*time.Second, cfg.BaseEjection))
	d := &detector{backend: b, cfg: cfg, rates: cfg.SuccessRate.Factor > 0 || cfg.FailurePercent.Threshold > 0}
	d.sweepAt.Store(b.now() + int64(cfg.Interval))
	return d
}

// report counts an outcome and ejects the target when it is one too many.
func (d *detector) report(t *Target, o *Outcome) {
	if d.rates {
		now := d.backend.now()
		if at := d.sweepAt.Load(); now >= at && d.sweepAt.CompareAndSwap(at, now+int64(d.cfg.Interval)) {
			d.sweep(now)
		}
	}
	c := &t.outlier
	if d.cfg.SplitLocal {
		if o.Failure != NoFailure {
			d.count(t, &c.local, d.cfg.ConsecutiveLocal, EjectedForLocal)
			return
		}
		reset(&c.local)
	}
	code := o.code()
	failed := code >= 500
	if d.rates {
		if failed {
			c.bad.Add(1)
		} else {
			c.good.Add(1)
		}
	}
	if !failed {
		reset(&c.serverErrors)
		reset(&c.gateway)
		return
	}
	if code >= 502 && code <= 504 {
		d.count(t, &c.gateway, d.cfg.ConsecutiveGateway, EjectedForGateway)
	} else {
		reset(&c.gateway)
	}
	d.count(t, &c.serverErrors, d.cfg.Consecutive5xx, EjectedFor5xx)
}

// reset writes only where there is something to change: successes are many, and all
// cores read the word.
func reset(n *atomic.Int32) {
	if n.Load() != 0 {
		n.Store(0)
	}
}

func (d *detector) count(t *Target, n *atomic.Int32, limit int, cause EjectionCause) {
	if limit > 0 && int(n.Add(1)) >= limit {
		n.Store(0)
		d.eject(t, cause, d.backend.now())
	}
}

// eject leaves the target out, if there may be one more.
func (d *detector) eject(t *Target, cause EjectionCause, now int64) {
	b := d.backend
	b.mu.Lock()
	ok := d.ejectLocked(t, now)
	until := t.ejectedUntil
	if ok {
		b.rebuild(now)
	}
	b.mu.Unlock()
	if ok {
		d.told(t, cause, until-now)
	}
}

func (d *detector) told(t *Target, cause EjectionCause, nanos int64) {
	b := d.backend
	b.ejections[cause].Add(1)
	b.settings.Load().Log.Info("endpoint ejected", zap.String("backend", b.Name()), zap.Stringer("endpoint", t.Endpoint()),
		zap.Stringer("cause", cause), zap.Duration("for", time.Duration(nanos)))
}

func (d *detector) ejectLocked(t *Target, now int64) bool {
	b := d.backend
	if t.ejectedUntil > now || t.retired {
		return false // already, or its endpoint is gone
	}
	if t.ejectedUntil != 0 {
		d.readmit(t)
	}
	// Those that would take part: ejecting the only ready one of many helps nobody.
	n, ejected := 0, 0
	for _, other := range b.targets {
		if e := other.Endpoint(); e.Weight == 0 || !e.Healthy && !b.settings.Load().LoadBalancing.AllowUnhealthy {
			continue
		}
		n++
		if other.ejectedUntil > now {
			ejected++
		}
	}
	if most := n * d.cfg.MaxEjectedPercent / 100; ejected+1 > most && (ejected > 0 || n < 2) {
		return false
	}
	if t.ejections > 0 {
		t.ejections = max(0, t.ejections-(now-t.backSince)/int64(d.cfg.Interval))
	}
	t.ejections++
	t.ejectedUntil = now + min(int64(d.cfg.BaseEjection)*t.ejections, int64(d.cfg.MaxEjection))
	return true
}

// readmit ends an ejection. Backend.mu is held.
func (d *detector) readmit(t *Target) {
	t.backSince, t.ejectedUntil = t.ejectedUntil, 0
	reset(&t.outlier.serverErrors)
	reset(&t.outlier.gateway)
	reset(&t.outlier.local)
}

// sweep ends an interval: it compares the targets' rates.
func (d *detector) sweep(now int64) {
	b := d.backend
	type ejection struct {
		target *Target
		cause  EjectionCause
		nanos  int64
	}
	var done []ejection
	b.mu.Lock()
	for t, cause := range d.unlikeOthers() {
		if d.ejectLocked(t, now) {
			done = append(done, ejection{t, cause, t.ejectedUntil - now})
		}
	}
	if len(done) > 0 {
		b.rebuild(now)
	}
	b.mu.Unlock()
	for _, e := range done {
		d.told(e.target, e.cause, e.nanos)
	}
}

// unlikeOthers takes the counts of the interval and returns the targets whose rates
// are too bad. Backend.mu is held.
func (d *detector) unlikeOthers() map[*Target]EjectionCause {
	type rate struct {
		target   *Target
		success  float64 // percent
		requests int
	}
	var rates []rate
	for _, t := range d.backend.targets {
		good, bad := t.outlier.good.Swap(0), t.outlier.bad.Swap(0)
		if n := int(good) + int(bad); n > 0 && t.ejectedUntil == 0 {
			rates = append(rates, rate{target: t, success: 100 * float64(good) / float64(n), requests: n})
		}
	}
	out := map[*Target]EjectionCause{}
	if s := d.cfg.SuccessRate; s.Factor > 0 {
		n, sum, squares := 0, 0.0, 0.0
		for _, r := range rates {
			if r.requests >= s.MinRequests {
				n++
				sum += r.success
			}
		}
		if n >= s.MinTargets && n > 0 {
			mean := sum / float64(n)
			for _, r := range rates {
				if r.requests >= s.MinRequests {
					squares += (r.success - mean) * (r.success - mean)
				}
			}
			threshold := mean - s.Factor*math.Sqrt(squares/float64(n))
			for _, r := range rates {
				if r.requests >= s.MinRequests && r.success < threshold {
					out[r.target] = EjectedForSuccessRate
				}
			}
		}
	}
	if f := d.cfg.FailurePercent; f.Threshold > 0 {
		n := 0
		for _, r := range rates {
			if r.requests >= f.MinRequests {
				n++
			}
		}
		if n >= f.MinTargets {
			for _, r := range rates {
				if r.requests >= f.MinRequests && 100-r.success >= float64(f.Threshold) {
					out[r.target] = EjectedForFailurePercent
				}
			}
		}
	}
	return out
}
