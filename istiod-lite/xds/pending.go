package xds

import (
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
)

// update is one publication's change of one type. Whoever was up to date before
// it is sent the same, which is encoded once.
type update struct {
	from, to *snapshot.Set
	deltas   []snapshot.Delta
	removes  bool

	once sync.Once
	body *body
}

func newUpdate(from, to *snapshot.Set, deltas []snapshot.Delta) *update {
	u := &update{from: from, to: to, deltas: deltas}
	for _, d := range deltas {
		u.removes = u.removes || d.New == nil
	}
	return u
}

// encoded returns what brings a client from the one set to the other.
func (u *update) encoded() *body {
	u.once.Do(func() {
		var entries []*snapshot.Entry
		var removed []string
		for _, d := range u.deltas {
			if d.New == nil {
				removed = append(removed, d.Name)
			} else {
				entries = append(entries, d.New)
			}
		}
		u.body = newBody(entries, removed)
	})
	return u.body
}

// pending is what a client must look at: names that may have changed, or, in the
// usual case, one whole update. The zero value is nothing. It holds at most one
// update, so that a client that takes nothing keeps no old sets.
type pending struct {
	update *update
	names  map[string]struct{}
	since  time.Time // when the first of the changes was seen
	queued time.Time // when it was published
}

func (p *pending) empty() bool { return p.update == nil && len(p.names) == 0 }

func (p *pending) count() int {
	if p.update != nil {
		return len(p.update.deltas)
	}
	return len(p.names)
}

// add puts an update behind what is there.
func (p *pending) add(u *update, since, now time.Time) {
	if p.empty() {
		*p = pending{update: u, since: since, queued: now}
		return
	}
	p.spill()
	p.addNames(u)
}

// merge puts all of q behind what is there, and leaves q empty.
func (p *pending) merge(q *pending) {
	switch {
	case q.empty():
	case p.empty():
		*p = *q
	default:
		p.spill()
		q.spill()
		for name := range q.names {
			p.names[name] = struct{}{}
		}
	}
	*q = pending{}
}

// spill turns an update into its names.
func (p *pending) spill() {
	if p.update == nil {
		return
	}
	u := p.update
	p.update, p.names = nil, make(map[string]struct{}, len(u.deltas))
	p.addNames(u)
}

func (p *pending) addNames(u *update) {
	for _, d := range u.deltas {
		p.names[d.Name] = struct{}{}
	}
}
