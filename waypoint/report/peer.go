package report

import (
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/baggage"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/forward"
)

const unknown = "unknown"

// facts are what labels say of one end. Empty ones are unknown.
type facts struct {
	workload, canonical, revision, namespace, principal, cluster string
}

func ofWorkload(w *workload.Workload, id spiffeid.ID) facts {
	f := facts{
		workload: w.WorkloadName, canonical: w.CanonicalName, revision: w.CanonicalRevision,
		namespace: w.Namespace, cluster: w.ClusterID,
	}
	if !id.IsZero() {
		f.principal = id.String()
	}
	return f
}

// side is one end with its labels, the same for all that have the same facts.
type side struct{ facts }

// sides holds them.
type sides struct {
	mu   sync.Mutex
	all  map[facts]*side
	none *side
}

func (s *sides) init() { s.all, s.none = map[facts]*side{}, &side{} }

func (s *sides) of(f facts) *side {
	if f == (facts{}) {
		return s.none
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.all[f]
	if found == nil {
		if len(s.all) >= maxSides {
			// Those that nobody uses are collected; a second one for the same facts only
			// costs a series that is told with the first.
			s.all = map[facts]*side{}
		}
		found = &side{f}
		s.all[f] = found
	}
	return found
}

// memory is what the reporter keeps of a connection.
type memory struct {
	source *side
	// text and object are the fields of access lines that all requests share.
	text, object []byte
	// last are where the connection's last requests counted: most are like one of them,
	// and to see that is cheaper than to look it up.
	last [8]atomic.Pointer[handle]
}

// Remember returns what Report wants to find in the Memo of a client: who it is by the
// mesh's own state, where its address and identity are known there, else by what its
// node proxy told in the baggage.
func (r *Reporter) Remember(c *forward.Client, told baggage.Baggage) any {
	m := &memory{source: r.sides.of(r.sourceOf(c, told))}
	m.text, m.object = r.clientFields(c, m.source, false), r.clientFields(c, m.source, true)
	return m
}

func (r *Reporter) memoryOf(c *forward.Client) *memory {
	if m, ok := c.Memo.(*memory); ok {
		return m
	}
	return r.Remember(c, baggage.Baggage{WorkloadName: c.Workload}).(*memory)
}

func (r *Reporter) sourceOf(c *forward.Client, told baggage.Baggage) facts {
	if r.cfg.Store != nil {
		w := r.cfg.Store.Snapshot().WorkloadByAddr(r.cfg.Network, c.Source.Addr())
		if w != nil && w.Identity() == c.Identity {
			return ofWorkload(w, c.Identity)
		}
	}
	f := facts{
		workload: told.WorkloadName, canonical: told.ServiceName, revision: told.ServiceVersion,
		cluster: told.Cluster, namespace: c.Peer.Namespace(),
	}
	if !c.Identity.IsZero() {
		f.principal = c.Identity.String()
	}
	return f
}

// destinationOf is who answered, or was to.
func (r *Reporter) destinationOf(q *forward.Record) facts {
	if q.Target == nil {
		return facts{}
	}
	e := q.Target.Endpoint()
	if r.cfg.Store != nil && e.UID != "" {
		if w := r.cfg.Store.Snapshot().WorkloadByUID(e.UID); w != nil {
			return ofWorkload(w, e.Identity)
		}
	}
	var f facts
	if !e.Identity.IsZero() {
		f.principal = e.Identity.String()
	}
	f.cluster = e.Place.Cluster
	return f
}
