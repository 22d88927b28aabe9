package xds

import (
	"fmt"
	"slices"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
)

// watch is one client's subscription to one type. But for marked and status,
// which the client's mutex guards, it belongs to the stream's goroutine.
type watch struct {
	url      string
	wildcard bool
	keys     map[string]bool // asked for on demand
	known    known
	todo     pending // what marked has told of

	// full is set while everything must be compared, not only pending names.
	full bool
	// force holds names to send again although the client has them, and absent
	// keys to answer as removed if they name nothing: both were just asked for.
	force  map[string]bool
	absent map[string]bool
	// answer is set while a response is owed even if it is empty.
	answer bool
	// prune is set when keys were given up: what only they asked for is the
	// client's to forget, and no longer known.
	prune bool

	nonce string // of the response under way, empty when none is
	since time.Time
	sent  time.Time

	marked pending
	status WatchStatus
}

func newWatch(url string) *watch {
	return &watch{url: url, keys: map[string]bool{}, force: map[string]bool{}, absent: map[string]bool{}}
}

// subscribe takes the changes of one request. first is set for the first request
// of the type on the stream.
func (w *watch) subscribe(req *discovery.DeltaDiscoveryRequest, first bool) error {
	add, drop := req.GetResourceNamesSubscribe(), req.GetResourceNamesUnsubscribe()
	for _, name := range slices.Concat(add, drop) {
		if name == "" || len(name) > maxNameBytes {
			return fmt.Errorf("a resource name of %d bytes", len(name))
		}
	}
	if first {
		if len(req.GetInitialResourceVersions()) > maxKnown {
			return fmt.Errorf("%d initial versions, at most %d are taken", len(req.GetInitialResourceVersions()), maxKnown)
		}
		w.known = known{off: req.GetInitialResourceVersions()}
		// The protocol's first form: asking for nothing by name asks for all.
		w.wildcard = len(add) == 0
		w.full, w.answer = true, true
	}
	for _, name := range add {
		switch {
		case name == "*":
			w.full = w.full || !w.wildcard
			w.wildcard, w.answer = true, true
		default:
			if len(w.keys) >= maxSubscriptions && !w.keys[name] {
				return fmt.Errorf("more than %d subscriptions", maxSubscriptions)
			}
			w.keys[name] = true
			w.force[name] = true
			w.absent[name] = true
		}
	}
	for _, name := range drop {
		w.prune = true
		if name == "*" {
			w.wildcard = false
			continue
		}
		delete(w.keys, name)
		delete(w.force, name)
		delete(w.absent, name)
	}
	return nil
}

// due reports whether there is something to look at or to answer.
func (w *watch) due() bool { return w != nil && (!w.todo.empty() || w.owes()) }

// owes reports whether a response is due for another reason than a change.
func (w *watch) owes() bool {
	return w.full || w.answer || w.prune || len(w.force) > 0 || len(w.absent) > 0
}

// wants reports whether the client subscribes to an entry, by its name or an
// alias or through a service that it is an endpoint of.
func (w *watch) wants(set *snapshot.Set, e *snapshot.Entry) bool {
	if w.wildcard {
		return true
	}
	if e == nil || len(w.keys) == 0 {
		return false
	}
	if w.asked(e) {
		return true
	}
	return slices.ContainsFunc(e.Services, func(name string) bool {
		if w.keys[name] {
			return true
		}
		service := set.Entries[name]
		return service != nil && w.asked(service)
	})
}

func (w *watch) asked(e *snapshot.Entry) bool {
	return w.keys[e.Name] || slices.ContainsFunc(e.Aliases, func(a string) bool { return w.keys[a] })
}

// next returns what brings the client from what it knows to set, looking at
// what is pending only unless everything is due: nil when there is nothing to
// say. It leaves in todo what must be said later: with keep the names that are
// gone, and the rest when the response is full.
func (w *watch) next(set *snapshot.Set, keep bool, whole func(*snapshot.Set) *body) *body {
	if w.prune {
		w.known.keep(func(name string) bool { return w.wants(set, set.Entries[name]) })
		w.prune = false
	}
	if b := w.shared(set, keep, whole); b != nil {
		w.known, w.todo = known{base: set}, pending{}
		w.full, w.answer = false, false
		return b
	}
	w.todo.spill()
	names := w.candidates(set)
	left := map[string]struct{}{}
	var entries []*snapshot.Entry
	var removed []string
	gone := map[string]bool{}
	size, done := 0, true
	for i, name := range names {
		e := set.Entries[name]
		version, has := w.known.version(name)
		switch {
		case e == nil && has && keep:
			left[name] = struct{}{}
			continue
		case e != nil && has && snapshot.Scoped(w.url) && !w.wants(set, e):
			// It is another's by now, and no more of this client's business.
			if keep {
				left[name] = struct{}{}
				continue
			}
			w.known.drop(name)
			gone[name] = true
			removed = append(removed, name)
			continue
		case e == nil && has:
			w.known.drop(name)
			gone[name] = true
			removed = append(removed, name)
			continue
		case e == nil, !has && !w.wants(set, e), has && version == e.Version && !w.force[name]:
			continue
		}
		if size > 0 && size+e.Size() > maxResponseBytes {
			for _, name := range names[i:] {
				left[name] = struct{}{}
			}
			done = false
			break
		}
		size += e.Size()
		w.known.set(name, e.Version)
		delete(w.force, name)
		entries = append(entries, e)
	}
	w.todo.names = left
	if len(left) == 0 {
		w.todo = pending{}
	}
	if done {
		for key := range w.absent {
			if len(set.Lookup(key)) == 0 && !gone[key] {
				removed = append(removed, key)
			}
		}
		clear(w.absent)
		clear(w.force)
		w.full = false
		if w.wildcard && len(left) == 0 {
			w.known = known{base: set}
		}
		if len(entries)+len(removed) == 0 && !w.answer {
			return nil
		}
	}
	w.answer = false
	return newBody(entries, removed)
}

// shared returns the body that other clients in the same position are sent too:
// that of the one update which is pending, or everything to who has nothing. It
// returns nil when the client's position is its own.
func (w *watch) shared(set *snapshot.Set, keep bool, whole func(*snapshot.Set) *body) *body {
	if !w.wildcard || len(w.force)+len(w.absent) > 0 {
		return nil
	}
	if w.full {
		if w.known.empty() && set.Bytes <= maxResponseBytes {
			return whole(set)
		}
		return nil
	}
	u := w.todo.update
	if u == nil || u.to != set || !w.known.is(u.from) || keep && u.removes {
		return nil
	}
	if b := u.encoded(); b.bytes <= maxResponseBytes {
		return b
	}
	return nil
}

// candidates returns the names that next must look at, sorted.
func (w *watch) candidates(set *snapshot.Set) []string {
	if w.full && w.wildcard && len(w.force) == 0 {
		return w.differing(set)
	}
	names := make(map[string]struct{}, len(w.todo.names)+len(w.force))
	add := func(name string) { names[name] = struct{}{} }
	for name := range w.todo.names {
		add(name)
	}
	if w.full {
		if w.wildcard {
			for name := range set.Entries {
				add(name)
			}
		}
		w.known.names(add)
	}
	keys := w.force
	if w.full {
		keys = w.keys
	}
	if !w.wildcard || len(w.force) > 0 {
		for key := range keys {
			for _, e := range set.Lookup(key) {
				if w.force[key] {
					w.force[e.Name] = true
				}
				add(e.Name)
				for _, member := range set.Members(e.Name) {
					add(member.Name)
				}
			}
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	return sorted
}

// differing returns the names of which the client does not hold what set has,
// sorted. It is what candidates comes down to for a proxy that comes again, of
// which a restart brings many at once: nearly all that it holds is right, and
// need not be listed.
func (w *watch) differing(set *snapshot.Set) []string {
	var names []string
	for name, e := range set.Entries {
		if version, has := w.known.version(name); !has || version != e.Version {
			names = append(names, name)
		}
	}
	w.known.names(func(name string) {
		if set.Entries[name] == nil {
			names = append(names, name)
		}
	})
	slices.Sort(names)
	return names
}

// shorten bounds a text from a client and keeps it valid.
func shorten(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "�")
}
