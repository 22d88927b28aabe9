package xds

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
)

// watch is one client's subscription to one type. But for what mark touches,
// under the client's mutex, it belongs to the stream's goroutine.
type watch struct {
	url      string
	wildcard bool
	keys     map[string]bool // asked for on demand
	// known is what the client holds: the version by name.
	known map[string]string

	// full is set while everything must be compared, not only dirty names.
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

	// Guarded by the client's mutex.
	dirty      map[string]struct{}
	dirtySince time.Time
	status     WatchStatus
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
		w.known = maps.Clone(req.GetInitialResourceVersions())
		if w.known == nil {
			w.known = map[string]string{}
		}
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

// next builds the response that brings the client from what it knows to set,
// looking at the dirty names only unless everything is due. It returns nil when
// there is nothing to say, and the names left over: with keep those that are
// gone, and the rest when the response is full.
func (w *watch) next(set *snapshot.Set, dirty map[string]struct{}, keep bool) (resp *discovery.DeltaDiscoveryResponse, left map[string]struct{}) {
	left = map[string]struct{}{}
	resp = &discovery.DeltaDiscoveryResponse{TypeUrl: w.url}
	if w.prune {
		maps.DeleteFunc(w.known, func(name, _ string) bool { return !w.wants(set, set.Entries[name]) })
		w.prune = false
	}
	names := w.candidates(set, dirty)
	size := 0
	removed := map[string]bool{}
	for i, name := range names {
		e := set.Entries[name]
		_, has := w.known[name]
		switch {
		case e == nil && has && keep:
			left[name] = struct{}{}
		case e == nil && has:
			delete(w.known, name)
			if !removed[name] {
				removed[name] = true
				resp.RemovedResources = append(resp.RemovedResources, name)
			}
		case e == nil, !has && !w.wants(set, e):
		case w.known[name] != e.Version || w.force[name]:
			if size > 0 && size+e.Size() > maxResponseBytes {
				for _, name := range names[i:] {
					left[name] = struct{}{}
				}
				return w.filled(resp), left
			}
			size += e.Size()
			w.known[name] = e.Version
			delete(w.force, name)
			resp.Resources = append(resp.Resources, &discovery.Resource{Name: name, Version: e.Version, Aliases: e.Aliases, Resource: e.Body})
		}
	}
	for key := range w.absent {
		if len(set.Lookup(key)) == 0 && !removed[key] {
			resp.RemovedResources = append(resp.RemovedResources, key)
		}
	}
	clear(w.absent)
	clear(w.force)
	w.full = false
	if len(resp.Resources)+len(resp.RemovedResources) == 0 && !w.answer {
		return nil, left
	}
	return w.filled(resp), left
}

// filled sorts the removals, for the same change to look the same to all.
func (w *watch) filled(resp *discovery.DeltaDiscoveryResponse) *discovery.DeltaDiscoveryResponse {
	slices.Sort(resp.RemovedResources)
	w.answer = false
	return resp
}

// candidates returns the names that next must look at, sorted.
func (w *watch) candidates(set *snapshot.Set, dirty map[string]struct{}) []string {
	names := make(map[string]struct{}, len(dirty)+len(w.force))
	maps.Copy(names, dirty)
	if w.full && w.wildcard {
		for name := range set.Entries {
			names[name] = struct{}{}
		}
	}
	if w.full {
		for name := range w.known {
			names[name] = struct{}{}
		}
	}
	keys := maps.Keys(w.force)
	if w.full {
		keys = maps.Keys(w.keys)
	}
	if !w.wildcard || len(w.force) > 0 {
		for key := range keys {
			for _, e := range set.Lookup(key) {
				if w.force[key] {
					w.force[e.Name] = true
				}
				names[e.Name] = struct{}{}
				for _, member := range set.Members(e.Name) {
					names[member.Name] = struct{}{}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// shorten bounds a text from a client and keeps it valid.
func shorten(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "�")
}
