package ratelimit

import (
	"hash/maphash"
	"sync"
	"time"
)

// Keys are the buckets of all rules that a waypoint counts itself, one for each value
// of a rule's key. They are safe for concurrent use.
//
// There are at most maxKeys. A key all of whose buckets are full says nothing that an
// absent one does not: those make place first. When a shard has none, the one of some
// that will be full the soonest makes place, and the time at which it will be is kept
// in a slot that its hash chooses. A key that comes (again) begins with what its slot
// says. A slot may hold more than the key took, for another one shares it, and never
// less: so a busy key that was taken out finds its bucket no fuller than it left it.
type Keys struct {
	seed   maphash.Seed
	limit  int // keys of one shard
	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex
	byKey map[string]*entry
	ring  []*entry // the same, in no order
	hand  int
	spill []int64 // when what made place will be full; nil while nothing had to
	spilt uint64
	_     [40]byte // shards do not share lines of a cache
}

// entry is one key of a rule.
type entry struct {
	rule  *Counter
	key   string // with the rule's number before it
	cells []cell
	place int // in the ring
	// admitted and refused count requests.
	admitted, refused uint64
	// share that cells are measured by, owned that it is this key's alone, and hash the
	// key's name in leases.
	share uint32
	owned bool
	hash  uint64
	// demand is the cost of what was asked for since the report epoch; reported tells that
	// the key is in the list for the next.
	demand   uint64
	epoch    uint32
	reported bool
}

// NewKeys returns an empty set of at most limit keys, maxKeys when it is 0.
func NewKeys(limit int) *Keys {
	if limit <= 0 {
		limit = maxKeys
	}
	k := &Keys{seed: maphash.MakeSeed(), limit: max(limit/shards, 1)}
	for i := range k.shards {
		k.shards[i].byKey = map[string]*entry{}
	}
	return k
}

// Counter is what keys of one rule have in common.
type Counter struct {
	name    string // "namespace/policy/rule"
	number  uint32 // of no other counter of the process
	prefix  []byte // number, as keys begin with it
	parts   []part
	amounts []amount
	// leased counters take shares, and tell of demand.
	leased bool
	share  shareOf
}

// Outcome is what taking came to.
type Outcome struct {
	Allowed bool
	// Remaining of the limit that is the nearest to its end, which has Limit requests
	// per Window; Reset is when it will be full.
	Remaining, Limit uint64
	Window, Reset    time.Duration
	// RetryAfter is when the request would be allowed; of one that costs more than the
	// limit can ever hold, when it will be full.
	RetryAfter time.Duration
}

// take takes cost of every bucket of the key, or of none, and fills out. least is what
// must be there: the cost, or something when the cost is not known yet. key begins with
// the counter's number.
func (k *Keys) take(now int64, c *Counter, key []byte, least, cost uint64, out *Outcome) bool {
	h := maphash.Bytes(k.seed, key)
	s := &k.shards[h>>(64-6)]
	s.mu.Lock()
	e := s.byKey[string(key)]
	if e == nil {
		e = k.insert(s, now, c, string(key), h)
	}
	share := uint32(fullShare)
	if c.leased {
		share = e.adjust(now)
		e.ask(least)
	}
	var debts [maxAmounts]uint64
	ok := true
	out.RetryAfter = 0
	for i := range c.amounts {
		a := &c.amounts[i]
		debt := a.debt(e.cells[i], a.at(now), share)
		debts[i] = debt
		need, possible := a.need(least)
		if possible && a.fits(debt, need, share) {
			continue
		}
		ok = false
		wait := a.wait(debt, share)
		if capacity := scaled(a.capacity, share); possible && debt+need > capacity && need <= capacity {
			wait = a.wait(debt+need-capacity, share)
		}
		if wait >= out.RetryAfter {
			out.RetryAfter = wait
			a.tell(debt, share, out)
		}
	}
	if ok {
		e.admitted++
		for i := range c.amounts {
			a := &c.amounts[i]
			need, _ := a.need(cost)
			e.cells[i] = cell{last: a.at(now), debt: debts[i] + need}
			a.tellNearest(i, e.cells[i].debt, share, out)
		}
	} else {
		e.refused++
	}
	if c.leased && !e.reported && (e.owned || !ok || e.pressed(share)) {
		c.share.tell(e)
	}
	out.Allowed = ok
	s.mu.Unlock()
	return ok
}

// tell fills out with the state of the bucket.
func (a *amount) tell(debt uint64, share uint32, out *Outcome) {
	out.Remaining, out.Limit, out.Window, out.Reset = 0, a.requests, a.per, a.wait(debt, share)
	if capacity := scaled(a.capacity, share); debt < capacity {
		out.Remaining = (capacity - debt) / a.unit
	}
}

// tellNearest does so if it is the first, or nearer to its end than the one before.
func (a *amount) tellNearest(i int, debt uint64, share uint32, out *Outcome) {
	left := uint64(0)
	if capacity := scaled(a.capacity, share); debt < capacity {
		left = (capacity - debt) / a.unit
	}
	if i == 0 || left < out.Remaining {
		a.tell(debt, share, out)
	}
}

// give returns what was taken for a request that was refused elsewhere.
func (k *Keys) give(c *Counter, key []byte, cost uint64) {
	s := &k.shards[maphash.Bytes(k.seed, key)>>(64-6)]
	s.mu.Lock()
	if e := s.byKey[string(key)]; e != nil {
		e.admitted -= min(e.admitted, 1) // it may have made place, and come again, in between
		for i := range c.amounts {
			need, _ := c.amounts[i].need(cost)
			e.cells[i].debt -= min(need, e.cells[i].debt)
		}
	}
	s.mu.Unlock()
}

// charge takes cost whether it is there or not: the request has been served.
func (k *Keys) charge(now int64, c *Counter, key []byte, cost uint64) {
	h := maphash.Bytes(k.seed, key)
	s := &k.shards[h>>(64-6)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[string(key)]
	if e == nil {
		e = k.insert(s, now, c, string(key), h)
	}
	share := uint32(fullShare)
	if c.leased {
		share = e.adjust(now)
		e.ask(cost)
		defer func() {
			if !e.reported && (e.owned || e.pressed(share)) {
				c.share.tell(e)
			}
		}()
	}
	for i := range c.amounts {
		a := &c.amounts[i]
		debt, most := a.debt(e.cells[i], a.at(now), share), uint64(maxUnits)
		if a.capacity < maxUnits/maxOverdraft {
			most = a.capacity * maxOverdraft
		}
		need := most
		if cost <= most/a.unit {
			need = cost * a.unit
		}
		e.cells[i] = cell{last: a.at(now), debt: min(debt+need, most)}
	}
}

// ask notes that cost was asked for.
func (e *entry) ask(cost uint64) {
	if epoch := e.rule.share.epoch.Load(); epoch != e.epoch {
		e.epoch, e.demand = epoch, 0
	}
	e.demand += cost
}

// pressed reports whether more than half of a bucket is taken.
func (e *entry) pressed(share uint32) bool {
	for i := range e.cells {
		if e.cells[i].debt > scaled(e.rule.amounts[i].capacity, share)/2 {
			return true
		}
	}
	return false
}

// adjust brings the cells in step with the share that holds now, and returns it.
func (e *entry) adjust(now int64) uint32 {
	share, owned := e.rule.share.of(e.hash)
	e.owned = owned
	if share != e.share {
		for i := range e.cells {
			a := &e.rule.amounts[i]
			t := a.at(now)
			e.cells[i] = cell{last: t, debt: a.cutTo(a.debt(e.cells[i], t, e.share), e.share, share)}
		}
		e.share = share
	}
	return share
}

// full reports whether no bucket has anything taken, else when all will be full.
func (e *entry) full(now int64) (full bool, at int64) {
	at = now
	for i := range e.cells {
		a := &e.rule.amounts[i]
		if debt := a.debt(e.cells[i], a.at(now), e.share); debt > 0 {
			at = max(at, now+int64(min(a.wait(debt, e.share), 1<<61)))
		}
	}
	return at == now, at
}

// insert adds a key; the caller holds s.mu.
func (k *Keys) insert(s *shard, now int64, c *Counter, key string, h uint64) *entry {
	e := &entry{rule: c, key: key, cells: make([]cell, len(c.amounts)), share: fullShare}
	if c.leased {
		e.hash = c.hashOf(key)
		e.share, e.owned = c.share.of(e.hash)
	}
	for i := range e.cells {
		a := &c.amounts[i]
		e.cells[i].last = a.at(now)
		if s.spill == nil {
			continue
		}
		if at := s.spill[spillSlot(h, i)]; at > now {
			ticks := uint64(at-now+int64(a.tick)-1) / uint64(a.tick)
			units := a.capacity
			if ticks < a.capacity/a.refill {
				units = ticks * a.refill
			}
			e.cells[i].debt = min(scaled(units, e.share), a.capacity)
		}
	}
	// Two of the others are looked at with each that comes, so that keys that are full
	// again do not stay for ever.
	for range 2 {
		if len(s.ring) == 0 {
			break
		}
		s.hand = (s.hand + 1) % len(s.ring)
		if full, _ := s.ring[s.hand].full(now); full {
			s.remove(s.ring[s.hand])
		}
	}
	if len(s.ring) >= k.limit {
		k.evict(s, now)
	}
	e.place = len(s.ring)
	s.ring = append(s.ring, e)
	s.byKey[key] = e
	return e
}

func spillSlot(h uint64, i int) int { return int((h + uint64(i)*0x9e3779b97f4a7c15) >> 8 % spillSlots) }

// evict takes out the key of some that will be full the soonest.
func (k *Keys) evict(s *shard, now int64) {
	var victim *entry
	var soonest int64
	for range victims {
		s.hand = (s.hand + 1) % len(s.ring)
		e := s.ring[s.hand]
		full, at := e.full(now)
		if victim == nil || at < soonest {
			victim, soonest = e, at
		}
		if full {
			break
		}
	}
	if soonest > now {
		if s.spill == nil {
			s.spill = make([]int64, spillSlots)
		}
		s.spilt++
		h := maphash.String(k.seed, victim.key)
		for i := range victim.cells {
			a := &victim.rule.amounts[i]
			debt := a.debt(victim.cells[i], a.at(now), victim.share)
			slot := &s.spill[spillSlot(h, i)]
			*slot = max(*slot, now+int64(min(a.wait(debt, victim.share), 1<<61)))
		}
	}
	s.remove(victim)
}

// shardOf returns where a key is.
func (k *Keys) shardOf(key string) *shard {
	return &k.shards[maphash.String(k.seed, key)>>(64-6)]
}

// remove takes an entry out; the caller holds mu.
func (s *shard) remove(e *entry) {
	last := s.ring[len(s.ring)-1]
	s.ring[e.place], last.place = last, e.place
	s.ring[len(s.ring)-1] = nil
	s.ring = s.ring[:len(s.ring)-1]
	delete(s.byKey, e.key)
}

// forget takes out all keys of a counter.
func (k *Keys) forget(c *Counter) {
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		for j := len(s.ring) - 1; j >= 0; j-- {
			if s.ring[j].rule == c {
				s.remove(s.ring[j])
			}
		}
		s.mu.Unlock()
	}
}

// Len counts the keys.
func (k *Keys) Len() int {
	n := 0
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		n += len(s.ring)
		s.mu.Unlock()
	}
	return n
}
