package state

import (
	"net/netip"
	"slices"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/workload"
)

// Snapshot is the mesh at one moment. It is immutable and safe for concurrent
// use; only a Store makes one.
type Snapshot struct {
	version       uint64
	policyVersion uint64
	moves         uint64
	clusterID     string

	workloads *iradix.Tree[*workload.Workload]   // by uid
	addresses *iradix.Tree[[]*workload.Workload] // by addrKey, the preferred one first
	services  *iradix.Tree[*workload.Service]    // by namespace/hostname
	vips      *iradix.Tree[[]*workload.Service]  // single addresses, by addrKey
	ranges    *iradix.Tree[[]*workload.Service]  // by rangeKey
	// endpoints holds the workloads of services by namespace/hostname, also of
	// services that have not arrived yet.
	endpoints *iradix.Tree[Endpoints]
	policies  *iradix.Tree[*authz.Policy] // by namespace/name
	// joined holds when known workloads became reached by tunnels, by uid, for a
	// while.
	joined *iradix.Tree[time.Time]

	// global holds the policies for every workload; namespaces those and the
	// namespace's own, for namespaces that have any. Both are replaced whole.
	global     authz.Policies
	namespaces map[string]authz.Policies

	changed chan struct{}
}

func newSnapshot(clusterID string) *Snapshot {
	return &Snapshot{
		clusterID: clusterID,
		workloads: iradix.New[*workload.Workload](),
		addresses: iradix.New[[]*workload.Workload](),
		services:  iradix.New[*workload.Service](),
		vips:      iradix.New[[]*workload.Service](),
		ranges:    iradix.New[[]*workload.Service](),
		endpoints: iradix.New[Endpoints](),
		policies:  iradix.New[*authz.Policy](),
		joined:    iradix.New[time.Time](),
		changed:   make(chan struct{}),
	}
}

// Version counts the changes that led to the snapshot.
func (s *Snapshot) Version() uint64 { return s.version }

// PolicyVersion counts the changes that can alter an authorization: of policies,
// of the namespace or policy list of a workload, and workloads that come or go.
// Live connections need a new look only when it moved.
func (s *Snapshot) PolicyVersion() uint64 { return s.policyVersion }

// Moves counts the changes by which a workload may not be where, or who, a
// tunnel was made to: its removal, another address, identity or protocol.
func (s *Snapshot) Moves() uint64 { return s.moves }

// Joined returns when this node heard that the workload, which it knew before,
// has become reached by tunnels. It is zero for workloads that were so from the
// first time that they were heard of, that are not, and whose change was longer
// ago than a minute.
func (s *Snapshot) Joined(uid string) time.Time {
	at, _ := s.joined.Get([]byte(uid))
	return at
}

// Changed returns a channel that is closed when a newer snapshot is published.
func (s *Snapshot) Changed() <-chan struct{} { return s.changed }

// WorkloadByUID returns the workload or nil.
func (s *Snapshot) WorkloadByUID(uid string) *workload.Workload {
	w, _ := s.workloads.Get([]byte(uid))
	return w
}

// WorkloadByPod returns the workload of a pod of this node's cluster, or nil.
func (s *Snapshot) WorkloadByPod(namespace, name string) *workload.Workload {
	return s.WorkloadByUID(workload.PodUID(s.clusterID, namespace, name))
}

// WorkloadByAddr returns the workload that has the address in the network, or
// nil. Of several it is the preferred one (workload.Preferred). Workloads on
// their node's network are not found by address.
func (s *Snapshot) WorkloadByAddr(network string, a netip.Addr) *workload.Workload {
	var buf [keyBytes]byte
	list, _ := s.addresses.Get(addrKey(buf[:0], network, a.Unmap().WithZone("")))
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// ServiceByVIP returns the service that owns the address in the network, or
// nil: a single virtual address before a range, a longer range before a shorter
// one. Of several services it is the canonical one, then the first by name.
func (s *Snapshot) ServiceByVIP(network string, a netip.Addr) *workload.Service {
	for _, svc := range s.servicesByVIP(network, a) {
		return svc
	}
	return nil
}

// ServiceByVIPFor is ServiceByVIP as a client in the namespace sees it: services
// that are private to another namespace do not exist.
func (s *Snapshot) ServiceByVIPFor(namespace, network string, a netip.Addr) *workload.Service {
	for _, svc := range s.servicesByVIP(network, a) {
		if !svc.NamespaceOnly || svc.Namespace == namespace {
			return svc
		}
	}
	return nil
}

func (s *Snapshot) servicesByVIP(network string, a netip.Addr) []*workload.Service {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return nil
	}
	var buf [keyBytes]byte
	if list, ok := s.vips.Get(addrKey(buf[:0], network, a)); ok {
		return list
	}
	if s.ranges.Len() == 0 {
		return nil
	}
	full := netip.PrefixFrom(a, a.BitLen())
	_, list, _ := s.ranges.Root().LongestPrefix(rangeKey(buf[:0], network, full))
	return list
}

// ServiceByHost returns the service or nil.
func (s *Snapshot) ServiceByHost(key workload.ServiceKey) *workload.Service {
	svc, _ := s.services.Get([]byte(key.String()))
	return svc
}

// Endpoints returns the workloads of a service, known or not.
func (s *Snapshot) Endpoints(key workload.ServiceKey) Endpoints {
	e, _ := s.endpoints.Get([]byte(key.String()))
	return e
}

// Policy returns the policy "namespace/name" or nil.
func (s *Snapshot) Policy(key string) *authz.Policy {
	p, _ := s.policies.Get([]byte(key))
	return p
}

// Policies returns what applies to the workload: global policies, those of its
// namespace and those that it lists. A listed policy that is not known makes the
// set deny (authz.Denial.Incomplete), since it might be a DENY policy. A nil
// workload gets a set that denies everything.
func (s *Snapshot) Policies(w *workload.Workload) authz.Policies {
	if w == nil {
		return authz.Closed("the workload is not known to this node")
	}
	set := s.namespacePolicies(w.Namespace)
	if len(w.AuthorizationPolicies) == 0 {
		return set
	}
	selected := make([]*authz.Policy, 0, len(w.AuthorizationPolicies))
	missing := ""
	for _, key := range w.AuthorizationPolicies {
		if p := s.Policy(key); p != nil {
			selected = append(selected, p)
		} else if missing == "" {
			missing = key
		}
	}
	set = set.With(selected...)
	if missing != "" {
		set = set.WithMissing(missing)
	}
	return set
}

func (s *Snapshot) namespacePolicies(namespace string) authz.Policies {
	if set, ok := s.namespaces[namespace]; ok {
		return set
	}
	return s.global
}

// Counts is the size of a snapshot.
type Counts struct {
	Workloads, Services, Policies int
}

// Counts returns the size of the snapshot.
func (s *Snapshot) Counts() Counts {
	return Counts{Workloads: s.workloads.Len(), Services: s.services.Len(), Policies: s.policies.Len()}
}

// indexPolicies rebuilds the global and per-namespace sets. Policies are few and
// change seldom; namespaces without policies of their own share the global set.
func (s *Snapshot) indexPolicies() {
	var global []*authz.Policy
	byNamespace := make(map[string][]*authz.Policy)
	s.policies.Root().Walk(func(_ []byte, p *authz.Policy) bool {
		switch p.Scope() {
		case authz.Global:
			global = append(global, p)
		case authz.Namespace:
			byNamespace[p.Namespace()] = append(byNamespace[p.Namespace()], p)
		}
		return false
	})
	s.global = authz.NewPolicies(global...)
	s.namespaces = make(map[string]authz.Policies, len(byNamespace))
	for ns, own := range byNamespace {
		s.namespaces[ns] = authz.NewPolicies(slices.Concat(global, own)...)
	}
}
