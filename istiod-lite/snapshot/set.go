package snapshot

import (
	"fmt"
	"maps"
	"sync"

	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// Set is the resources of one type. It is immutable and safe for concurrent use.
type Set struct {
	Type    string
	Entries map[string]*Entry
	// Bytes is the sum of the entries' sizes.
	Bytes int
	// Workloads counts the entries that are one.
	Workloads int

	index   sync.Once
	aliases map[string][]*Entry
	members map[string][]*Entry
}

// Lookup finds the entries that key names: the one of that name, or those with
// that alias.
func (s *Set) Lookup(key string) []*Entry {
	if e := s.Entries[key]; e != nil {
		return []*Entry{e}
	}
	s.buildIndex()
	return s.aliases[key]
}

// Members returns the workloads that are endpoints of the service of that name.
func (s *Set) Members(service string) []*Entry {
	s.buildIndex()
	return s.members[service]
}

// buildIndex is put off until the first look-up by alias: subscribers to
// everything never need it.
func (s *Set) buildIndex() {
	s.index.Do(func() {
		s.aliases, s.members = map[string][]*Entry{}, map[string][]*Entry{}
		for _, e := range s.Entries {
			for _, a := range e.Aliases {
				s.aliases[a] = append(s.aliases[a], e)
			}
			for _, name := range e.Services {
				s.members[name] = append(s.members[name], e)
			}
		}
	})
}

// put adds e or replaces the entry of its name, in a set that is being made.
func (s *Set) put(e *Entry) {
	s.remove(e.Name)
	s.Entries[e.Name] = e
	s.count(e, 1)
}

func (s *Set) remove(name string) {
	if e := s.Entries[name]; e != nil {
		delete(s.Entries, name)
		s.count(e, -1)
	}
}

func (s *Set) count(e *Entry, by int) {
	s.Bytes += by * e.Size()
	if e.workload {
		s.Workloads += by
	}
}

// nextSet returns the set after before with its differences, looking at the
// names that may differ only. The set is before itself when nothing does. What
// cannot be packed stays as it was: one object's text must not hold up the mesh.
func nextSet(before *Set, resources map[string]*translate.Resource, names []string) (_ *Set, _ []Delta, failed []error) {
	var deltas []Delta
	for _, name := range names {
		prev, r := before.Entries[name], resources[name]
		switch {
		case prev == nil && r == nil:
		case r == nil:
			deltas = append(deltas, Delta{Name: name, Old: prev})
		case prev != nil && prev.from.Load() == r: // the very same translation
		default:
			e, err := pack(before.Type, r)
			if err != nil {
				failed = append(failed, fmt.Errorf("pack %s %s: %w", before.Type, name, err))
				continue
			}
			if prev != nil && prev.Version == e.Version {
				prev.from.Store(r)
				continue
			}
			deltas = append(deltas, Delta{Name: name, Old: prev, New: e})
		}
	}
	if len(deltas) == 0 {
		return before, nil, failed
	}
	set := &Set{Type: before.Type, Entries: maps.Clone(before.Entries), Bytes: before.Bytes, Workloads: before.Workloads}
	for _, d := range deltas {
		if d.New == nil {
			set.remove(d.Name)
		} else {
			set.put(d.New)
		}
	}
	return set, deltas, failed
}

// differing lists the names of which nextSet must look at each when nobody
// knows more.
func differing(before *Set, resources map[string]*translate.Resource) []string {
	var names []string
	for name, r := range resources {
		if e := before.Entries[name]; e == nil || e.from.Load() != r {
			names = append(names, name)
		}
	}
	for name := range before.Entries {
		if resources[name] == nil {
			names = append(names, name)
		}
	}
	return names
}
