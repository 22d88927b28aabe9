package upstream

import (
	"math"
	"slices"
)

// set is what requests choose from: immutable, made anew when endpoints, their
// health or an ejection change.
type set struct {
	// settings are those that it was made with.
	settings *settings
	// targets are all, in the order of their names' hashes.
	targets []*Target
	byHash  map[uint64]*Target
	tiers   []tier
	// bounds share requests among tiers, in parts of 1<<32.
	bounds []uint64
	// panicking tells that too few targets were left, so that all take part.
	panicking bool
	// warming tells that a target's slow start is under way.
	warming bool
	// next is when the set has to be made anew, on the backend's clock.
	next int64
}

const never = math.MaxInt64

// tier holds the targets that are equally near.
type tier struct {
	picker  picker
	targets []*Target
	// fit tells which targets take part; nil when all do.
	fit []bool
	// members are all of the tier, with their weights: what hash tables are made of.
	members []*Target
	weights []uint32
}

func (t *tier) fits(i int) bool { return t.fit == nil || t.fit[i] }

// rebuild makes the set from the members and what is known of them. Backend.mu is
// held.
func (b *Backend) rebuild(now int64) {
	old := b.set.Load()
	cfg := b.settings.Load()
	s := &set{settings: cfg, targets: b.targets, byHash: b.byHash, next: never}
	var tiers []tier
	for _, t := range b.targets {
		e := t.Endpoint()
		if e.Weight == 0 || !e.Healthy && !cfg.LoadBalancing.AllowUnhealthy {
			t.serving.Store(false)
			continue
		}
		n, near := tierOf(&cfg.LoadBalancing, cfg.FailoverTo, &cfg.Place, &e.Place)
		if !near {
			t.serving.Store(false)
			continue
		}
		for len(tiers) <= n {
			tiers = append(tiers, tier{})
		}
		tiers[n].members = append(tiers[n].members, t)
		tiers[n].weights = append(tiers[n].weights, e.Weight)
	}
	tiers = slices.DeleteFunc(tiers, func(t tier) bool { return len(t.members) == 0 })
	left, all := make([]int, len(tiers)), make([]int, len(tiers))
	total, fit := 0, 0
	for i := range tiers {
		all[i] = len(tiers[i].members)
		for _, t := range tiers[i].members {
			if t.ejectedUntil != 0 && t.ejectedUntil <= now {
				cfg.outlier.readmit(t)
				b.warm(t, now)
			}
			if t.ejectedUntil != 0 {
				s.next = min(s.next, t.ejectedUntil)
			}
			if t.fit() {
				left[i]++
			}
			if until := t.warmUntil.Load(); until > now {
				s.warming = true
				s.next = min(s.next, until)
			}
		}
		total, fit = total+all[i], fit+left[i]
	}
	s.panicking = fit*100 < total*cfg.PanicPercent
	for i := range tiers {
		if s.panicking {
			left[i] = all[i]
		}
		for _, t := range tiers[i].members {
			t.serving.Store(s.panicking || t.fit())
		}
		var before *tier
		if i < len(old.tiers) && old.settings.Balancer == cfg.Balancer && old.settings.RingSize == cfg.RingSize && old.settings.TableSize == cfg.TableSize {
			before = &old.tiers[i]
		}
		b.arrange(&tiers[i], left[i], before)
	}
	s.tiers, s.bounds = tiers, spread(left, all)
	b.set.Store(s)
}

// fit reports whether the target takes part. Backend.mu is held.
func (t *Target) fit() bool { return t.ejectedUntil == 0 && !t.failing }

// arrange makes the tier's picker for the targets that take part: all of them when
// there are as many as members.
func (b *Backend) arrange(t *tier, left int, before *tier) {
	cfg := b.settings.Load()
	whole := left == len(t.members)
	if cfg.Balancer.hashed() {
		t.targets = t.members
		if !whole {
			t.fit = make([]bool, len(t.members))
			for i, m := range t.members {
				t.fit[i] = m.fit()
			}
		}
		switch {
		case before != nil && slices.Equal(before.members, t.members) && slices.Equal(before.weights, t.weights):
			t.picker = before.picker // only health has changed
		case cfg.Balancer == RingHash:
			t.picker = newRing(t.members, t.weights, cfg.RingSize)
		default:
			t.picker = newMaglev(t.members, t.weights, cfg.TableSize)
		}
		return
	}
	t.targets = t.members
	weights := t.weights
	if !whole {
		t.targets, weights = make([]*Target, 0, left), make([]uint32, 0, left)
		for i, m := range t.members {
			if m.fit() {
				t.targets, weights = append(t.targets, m), append(weights, t.weights[i])
			}
		}
	}
	if len(t.targets) == 0 {
		return
	}
	switch cfg.Balancer {
	case RoundRobin:
		t.picker = newRoundRobin(&b.place, weights)
	case Random:
		t.picker = &randomPicker{uint32(len(weights)), newAlias(weights)}
	default:
		p := &leastPicker{targets: t.targets, alias: newAlias(weights), ewma: cfg.Balancer == PeakEWMA, decay: cfg.decay}
		if p.alias != nil {
			p.weights = weights
		}
		t.picker = p
	}
}
