package mesh

import (
	"maps"
	"slices"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

// wants are the services and workloads that resources of the waypoint lead to.
type wants struct {
	by map[string][]string // by who leads there
	n  map[string]int      // how many do
}

// want replaces what owner leads to, and asks the control plane for what is new; without
// names it leads nowhere any more. What nobody leads to is given back. The caller holds
// mu.
func (m *Mesh) want(owner string, names ...string) {
	slices.Sort(names)
	names = slices.Compact(names)
	before := m.wanted.by[owner]
	if slices.Equal(before, names) {
		return
	}
	var fresh, idle []string
	for _, name := range names {
		if m.wanted.n[name]++; m.wanted.n[name] == 1 {
			fresh = append(fresh, name)
		}
	}
	for _, name := range before {
		if m.wanted.n[name]--; m.wanted.n[name] == 0 {
			delete(m.wanted.n, name)
			idle = append(idle, name)
		}
	}
	if len(names) == 0 {
		delete(m.wanted.by, owner)
	} else {
		m.wanted.by[owner] = names
	}
	set := maps.Clone(m.wanted.n)
	m.asked.Store(&set)
	if len(fresh) > 0 && m.cfg.Want != nil {
		m.cfg.Want(fresh...)
	}
	if len(idle) > 0 && m.cfg.Drop != nil {
		m.cfg.Drop(idle, m.orphans(idle))
	}
}

// Ask asks the control plane for a service, "namespace/hostname", that the waypoint
// itself has to do with, for good.
func (m *Mesh) Ask(service string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want("the waypoint for "+service, service)
}

// orphans are the resources that are of no use without those names: the services, and
// the workloads that serve nothing else that is wanted.
func (m *Mesh) orphans(names []string) []string {
	out := slices.Clone(names)
	snap := m.cfg.Store.Snapshot()
	for _, name := range names {
		key, ok := workload.ParseServiceKey(name)
		if !ok {
			continue
		}
		endpoints := snap.Endpoints(key)
		for w := range endpoints.All() {
			if !m.wantsWorkload(w) && !slices.Contains(out, w.UID) {
				out = append(out, w.UID)
			}
		}
	}
	return out
}

func (m *Mesh) wantsWorkload(w *workload.Workload) bool {
	asked := *m.asked.Load()
	if asked[w.UID] > 0 || w.Namespace == m.cfg.Namespace && w.Name == m.cfg.Pod {
		return true
	}
	for key := range w.Services {
		if asked[key.String()] > 0 {
			return true
		}
	}
	return false
}

// Wanted hands on to next what is wanted of workloads and services. What was given back
// may still be on its way; without this it would stay, and grow old.
func (m *Mesh) Wanted(next xdsclient.Handler) xdsclient.Handler {
	return xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection {
		var rejections []xdsclient.Rejection
		kept := d.Resources[:0:0]
		for _, r := range d.Resources {
			if m.wantsResource(r) {
				kept = append(kept, r)
			} else {
				rejections = append(rejections, xdsclient.Rejection{Name: r.Name, Err: xdsclient.ErrNotWanted})
			}
		}
		d.Resources = kept
		return append(rejections, next.Apply(d)...)
	})
}

func (m *Mesh) wantsResource(r xdsclient.Resource) bool {
	asked := *m.asked.Load()
	if asked[r.Name] > 0 {
		return true
	}
	var a apiworkload.Address
	if r.Body == nil || r.Body.UnmarshalTo(&a) != nil {
		return true // what is wrong with it says who reads it
	}
	w := a.GetWorkload()
	if w == nil {
		return a.GetService() == nil
	}
	if w.GetNamespace() == m.cfg.Namespace && w.GetName() == m.cfg.Pod {
		return true
	}
	for key := range w.GetServices() {
		if asked[key] > 0 {
			return true
		}
	}
	return false
}
