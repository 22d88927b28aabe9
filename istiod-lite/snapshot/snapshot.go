package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// The resource types that proxies subscribe to.
const (
	AddressType       = "type.googleapis.com/istio.workload.Address"
	AuthorizationType = "type.googleapis.com/istio.security.Authorization"
)

// Types lists them.
func Types() []string { return []string{AddressType, AuthorizationType} }

// Entry is one resource at one version. It is immutable.
type Entry struct {
	Name string
	// Version is the hash of the content, in hexadecimal.
	Version string
	// Aliases and Services are those of translate.Resource.
	Aliases  []string
	Services []string
	// Body is the packed resource.
	Body *anypb.Any

	from *translate.Resource
}

// Size is about how many bytes the entry takes in a response.
func (e *Entry) Size() int {
	n := len(e.Name) + len(e.Version) + len(e.Body.GetValue()) + len(e.Body.GetTypeUrl()) + 16
	for _, a := range e.Aliases {
		n += len(a) + 2
	}
	return n
}

// Set is the resources of one type. It is immutable and safe for concurrent use.
type Set struct {
	Type    string
	Entries map[string]*Entry
	// Bytes is the sum of the entries' sizes.
	Bytes int

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

// Snapshot is the whole mesh at one moment. It is immutable.
type Snapshot struct {
	// Serial counts snapshots from 1; it starts again with the process.
	Serial uint64
	// Sets holds one Set for each of Types.
	Sets map[string]*Set
}

// Change is the difference between a snapshot and the one before it.
type Change struct {
	// Deltas by type; a type without differences is left out.
	Deltas map[string][]Delta
}

// Empty reports whether nothing differs.
func (c Change) Empty() bool { return len(c.Deltas) == 0 }

// Delta is one resource that differs. Old is nil for a new one, New for one
// that is gone.
type Delta struct {
	Name     string
	Old, New *Entry
}

// Next packs mesh and compares it with prev, which is nil for the first. When
// nothing differs the Change is empty and the Serial stays. It fails only on a
// body that cannot be packed, and then returns prev.
func Next(prev *Snapshot, mesh *translate.Mesh) (*Snapshot, Change, error) {
	change := Change{Deltas: map[string][]Delta{}}
	next := &Snapshot{Serial: 1, Sets: map[string]*Set{}}
	if prev != nil {
		next.Serial = prev.Serial + 1
	}
	for url, resources := range map[string]map[string]*translate.Resource{
		AddressType:       mesh.Addresses,
		AuthorizationType: mesh.Authorizations,
	} {
		var before *Set
		if prev != nil {
			before = prev.Sets[url]
		}
		set, deltas, err := nextSet(before, url, resources)
		if err != nil {
			return prev, Change{}, err
		}
		next.Sets[url] = set
		if len(deltas) > 0 {
			change.Deltas[url] = deltas
		}
	}
	if prev != nil && change.Empty() {
		next.Serial = prev.Serial // the same content, held by newer objects
	}
	return next, change, nil
}

func nextSet(before *Set, url string, resources map[string]*translate.Resource) (*Set, []Delta, error) {
	set := &Set{Type: url, Entries: make(map[string]*Entry, len(resources))}
	var old map[string]*Entry
	if before != nil {
		old = before.Entries
	}
	var deltas []Delta
	for name, r := range resources {
		prev := old[name]
		if prev != nil && prev.from == r {
			set.Entries[name] = prev
			set.Bytes += prev.Size()
			continue // the very same translation: nothing to pack
		}
		e, err := pack(url, r)
		if err != nil {
			return nil, nil, fmt.Errorf("pack %s %s: %w", url, name, err)
		}
		set.Entries[name] = e
		set.Bytes += e.Size()
		if prev == nil || prev.Version != e.Version {
			deltas = append(deltas, Delta{Name: name, Old: prev, New: e})
		}
	}
	for name, prev := range old {
		if set.Entries[name] == nil {
			deltas = append(deltas, Delta{Name: name, Old: prev})
		}
	}
	return set, deltas, nil
}

func pack(url string, r *translate.Resource) (*Entry, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Body)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	h.Write(value)
	for _, a := range r.Aliases {
		io.WriteString(h, "\x00"+a)
	}
	return &Entry{
		Name:     r.Name,
		Version:  hex.EncodeToString(h.Sum(nil)[:16]),
		Aliases:  r.Aliases,
		Services: r.Services,
		Body:     &anypb.Any{TypeUrl: url, Value: value},
		from:     r,
	}, nil
}

// IsWorkload reports whether the entry is a workload, as opposed to a service or
// a policy.
func (e *Entry) IsWorkload() bool {
	a, ok := e.from.Body.(*apiworkload.Address)
	return ok && a.GetWorkload() != nil
}
