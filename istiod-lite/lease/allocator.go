package lease

import (
	"maps"
	"slices"
	"strings"
	"time"

	api "github.com/tulle-mesh/tulle/api/lease"
)

// Allocator decides on shares. It is not safe for concurrent use.
type Allocator struct {
	replicas map[string]*replica
	rules    map[string]*rule
	// started is when the first replica came. Where one then held shares already, which
	// it tells, others may that are not back yet, until retention later.
	started   time.Time
	inherited bool
	// aged is when demands that nobody tells of were halved.
	aged time.Time
}

// NewAllocator returns one that knows nobody.
func NewAllocator() *Allocator {
	return &Allocator{replicas: map[string]*replica{}, rules: map[string]*rule{}}
}

// replica is one that counts.
type replica struct {
	rules  map[string]bool
	serial uint64 // of the last grant
	// gone is when its stream ended, zero while it stands.
	gone time.Time
}

// rule is one limit that is shared.
type rule struct {
	rest map[string]*holding // by replica
	keys map[uint64]*key
}

// key is one with shares of its own.
type key struct {
	by   map[string]*holding
	seen time.Time // of the last demand
}

// holding is one replica's share.
type holding struct {
	granted uint32
	// most is what the replica may still go by: the greatest that it has not
	// acknowledged to be without.
	most uint32
	// serial is the grant that said granted.
	serial uint64
	// fresh tells that the replica has never had any; told that it knows of granted.
	fresh, told bool
	demand      float64
	reported    bool
}

// Join takes in a replica, or one that comes again.
func (a *Allocator) Join(name string, now time.Time) {
	if a.started.IsZero() {
		a.started = now
	}
	r := a.replicas[name]
	if r == nil {
		r = &replica{rules: map[string]bool{}}
		a.replicas[name] = r
	}
	r.gone, r.serial = time.Time{}, 0
	// It does not know of the last stream's grants.
	a.each(name, func(h *holding) {
		h.most, h.serial, h.told = max(h.most, h.granted), 0, false
	})
}

// known counts the replicas "account/…" and all, with those that left a moment ago, and
// reports whether name is one.
func (a *Allocator) known(account, name string) (of, all int, here bool) {
	prefix := account + "/"
	for other := range a.replicas {
		if strings.HasPrefix(other, prefix) {
			of++
		}
	}
	return of, len(a.replicas), a.replicas[name] != nil
}

func (a *Allocator) each(replica string, f func(*holding)) {
	for _, r := range a.rules {
		if h := r.rest[replica]; h != nil {
			f(h)
		}
		for _, k := range r.keys {
			if h := k.by[replica]; h != nil {
				f(h)
			}
		}
	}
}

// Leave notes that a replica's stream has ended; for good when it is done counting.
func (a *Allocator) Leave(name string, done bool, now time.Time) {
	r := a.replicas[name]
	if r == nil {
		return
	}
	r.gone = now
	if done {
		a.drop(name)
	}
}

func (a *Allocator) drop(name string) {
	for rule := range a.replicas[name].rules {
		a.release(name, rule)
	}
	delete(a.replicas, name)
}

// release takes a replica out of a rule.
func (a *Allocator) release(name, ruleName string) {
	r := a.rules[ruleName]
	if r == nil {
		return
	}
	delete(r.rest, name)
	for _, k := range r.keys {
		delete(k.by, name)
	}
	if len(r.rest) == 0 {
		delete(a.rules, ruleName)
	}
}

// Report takes in what a replica says. permitted tells which rules are its to count.
func (a *Allocator) Report(name string, report *api.Report, permitted func(rule string) bool, now time.Time) {
	m := a.replicas[name]
	if m == nil {
		return
	}
	if report.GetHasRules() {
		a.setRules(name, m, report.GetRules(), permitted)
	}
	for _, s := range report.GetHeld() {
		a.inherited = true
		a.hold(name, s)
	}
	if serial := report.GetSerial(); serial > 0 {
		a.each(name, func(h *holding) {
			if h.told && h.serial != 0 && h.serial <= serial {
				h.most = h.granted
			}
		})
	}
	for i, d := range report.GetDemands() {
		if i == maxDemands {
			break
		}
		a.demand(name, d, now)
	}
}

func (a *Allocator) setRules(name string, m *replica, rules []string, permitted func(string) bool) {
	is := map[string]bool{}
	for _, rule := range rules {
		if len(is) < maxRules && permitted(rule) {
			is[rule] = true
		}
	}
	for rule := range m.rules {
		if !is[rule] {
			a.release(name, rule)
		}
	}
	m.rules = is
	for ruleName := range is {
		r := a.rules[ruleName]
		if r == nil {
			r = &rule{rest: map[string]*holding{}, keys: map[uint64]*key{}}
			a.rules[ruleName] = r
		}
		if r.rest[name] == nil {
			r.rest[name] = &holding{fresh: true}
			for _, k := range r.keys {
				k.by[name] = &holding{fresh: true}
			}
		}
	}
}

// hold takes in a share that a replica says it goes by.
func (a *Allocator) hold(name string, s *api.Share) {
	r := a.rules[s.GetRule()]
	if r == nil || r.rest[name] == nil {
		return
	}
	h := r.rest[name]
	if s.GetKey() != 0 {
		k := r.key(s.GetKey())
		if k == nil {
			return
		}
		h = k.by[name]
	}
	share := min(s.GetShare(), Full)
	if h.fresh {
		h.granted = share
	}
	h.fresh, h.most, h.told = false, max(h.most, share), share == h.granted
}

// key returns the key, a new one with the shares that all keys have; nil when there are
// too many.
func (r *rule) key(hash uint64) *key {
	k := r.keys[hash]
	if k == nil {
		if len(r.keys) >= maxKeys {
			return nil
		}
		k = &key{by: map[string]*holding{}}
		for name, rest := range r.rest {
			k.by[name] = &holding{granted: rest.granted, most: rest.most, fresh: rest.fresh}
		}
		r.keys[hash] = k
	}
	return k
}

func (a *Allocator) demand(name string, d *api.Demand, now time.Time) {
	r := a.rules[d.GetRule()]
	if r == nil || r.rest[name] == nil || d.GetKey() == 0 || !(d.GetRate() >= 0 && d.GetRate() < 1e18) {
		return
	}
	k := r.key(d.GetKey())
	if k == nil {
		return
	}
	h := k.by[name]
	if h.demand == 0 {
		h.demand = d.GetRate()
	} else {
		h.demand = (h.demand + d.GetRate()) / 2
	}
	h.reported = true
	if d.GetRate() > 0 {
		k.seen = now
	}
}

// Tick thinks all shares over, and returns what is to be told, by replica.
func (a *Allocator) Tick(now time.Time) map[string]*api.Grant {
	for name, m := range a.replicas {
		if !m.gone.IsZero() && now.Sub(m.gone) >= retention {
			a.drop(name)
		}
	}
	cautious, age := a.inherited && now.Sub(a.started) < retention, now.Sub(a.aged) >= Interval
	if age {
		a.aged = now
	}
	grants := map[string]*api.Grant{}
	tell := func(name string, s *api.Share, h *holding) {
		m := a.replicas[name]
		if !m.gone.IsZero() {
			return
		}
		g := grants[name]
		if g == nil {
			m.serial++
			g = &api.Grant{Serial: m.serial}
			grants[name] = g
		}
		g.Shares = append(g.Shares, s)
		if h != nil {
			h.serial, h.told = g.Serial, true
		}
	}
	for _, ruleName := range slices.Sorted(maps.Keys(a.rules)) {
		r := a.rules[ruleName]
		even := map[string]uint32{}
		n := uint32(len(r.rest))
		for name := range r.rest {
			even[name] = Full / n
		}
		move(r.rest, even, cautious)
		for name, h := range r.rest {
			if !h.told {
				tell(name, &api.Share{Rule: ruleName, Share: h.granted}, h)
			}
		}
		for hash, k := range r.keys {
			if now.Sub(k.seen) >= forgotten {
				if a.forget(r, k, even) {
					for name := range k.by {
						tell(name, &api.Share{Rule: ruleName, Key: hash, Dropped: true}, nil)
					}
					delete(r.keys, hash)
					continue
				}
			} else {
				move(k.by, byDemand(k.by), cautious)
			}
			for name, h := range k.by {
				if !h.told {
					tell(name, &api.Share{Rule: ruleName, Key: hash, Share: h.granted}, h)
				}
				if age && !h.reported {
					h.demand /= 2
				}
				h.reported = h.reported && !age
			}
		}
	}
	return grants
}

// forget takes a key's shares back to those of all, and reports whether they are.
func (a *Allocator) forget(r *rule, k *key, even map[string]uint32) bool {
	move(k.by, even, false)
	for name, h := range k.by {
		rest := r.rest[name]
		if rest == nil || h.granted != rest.granted || h.most != h.granted {
			return false
		}
	}
	return true
}

// byDemand gives each its part of the floor, and of the rest by what it is asked for.
func byDemand(by map[string]*holding) map[string]uint32 {
	total := 0.0
	for _, h := range by {
		total += h.demand
	}
	out := make(map[string]uint32, len(by))
	n := float64(len(by))
	for name, h := range by {
		if total == 0 {
			out[name] = uint32(Full / n)
			continue
		}
		out[name] = uint32(floorParts/n + (Full-floorParts)*h.demand/total)
	}
	return out
}

// move brings shares towards their targets. Who has too much is told at once; who has
// too little gets what nobody can still be going by. Cautious gives only to those who
// have had none yet.
func move(by map[string]*holding, target map[string]uint32, cautious bool) {
	names := slices.Sorted(maps.Keys(by))
	taken, wanted := uint32(0), uint64(0)
	for _, name := range names {
		h := by[name]
		if to := target[name]; to < h.granted && (h.granted-to >= slack || to < h.granted/2 || len(by) > Full/slack || settle(by, target)) {
			h.granted, h.told = to, false
		}
		if h.granted >= h.most {
			h.most = h.granted
		}
		taken += min(h.most, Full)
		if to := target[name]; to > h.granted {
			wanted += uint64(to - h.granted)
		}
	}
	if taken >= Full || wanted == 0 {
		return
	}
	left := uint64(Full - taken)
	for _, name := range names {
		h, to := by[name], target[name]
		if to <= h.granted || cautious && !h.fresh {
			continue
		}
		more := uint64(to - h.granted)
		if wanted > left {
			more = more * left / wanted
		}
		if more == 0 || more < slack && uint64(h.granted)+more < uint64(to) && h.granted > 0 {
			continue
		}
		h.granted += uint32(more)
		h.most, h.told, h.fresh = max(h.most, h.granted), false, false
	}
}

// settle reports whether some wait for much more than they have: then small parts are
// worth taking.
func settle(by map[string]*holding, target map[string]uint32) bool {
	for name, h := range by {
		if to := target[name]; to > h.granted && to-h.granted >= slack {
			return true
		}
	}
	return false
}
