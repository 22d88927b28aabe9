package source

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Store holds objects that change one by one and makes an Objects of them at any
// moment, at the cost of copying the maps of the kinds that changed since the
// last one. What it makes knows what changed in between: see Objects.Changes.
// It is not safe for concurrent use; what it makes is.
type Store struct {
	objects *Objects // being edited; sealed marks when the maps may not be
	sealed  bool
	// owned are the kinds whose maps nobody else holds yet.
	owned     map[string]bool
	ownedNode map[string]bool
	serial    uint64
}

// NewStore returns an empty Store.
func NewStore() *Store {
	o := newObjects()
	o.placement, o.history = placement{}, &history{}
	return &Store{objects: o, owned: map[string]bool{}, ownedNode: map[string]bool{}}
}

// Put adds obj or replaces the one of that kind and name. The caller must not
// change obj afterwards.
func (s *Store) Put(obj metav1.Object) { s.change(KeyOf(obj), obj) }

// Delete removes the object, if it is there.
func (s *Store) Delete(key Key) {
	if s.objects.Object(key) != nil {
		s.change(key, nil)
	}
}

// Object returns the object of that kind and name, nil when there is none.
func (s *Store) Object(key Key) metav1.Object { return s.objects.Object(key) }

// Objects returns the state as it is now: the same one as before when nothing
// has changed.
func (s *Store) Objects() *Objects {
	s.sealed = true
	return s.objects
}

// RunsOnNode is that of the state as it is now.
func (s *Store) RunsOnNode(node, namespace, serviceAccount string) bool {
	return s.objects.placement.runs(node, namespace, serviceAccount)
}

func (s *Store) change(key Key, obj metav1.Object) {
	if s.sealed {
		s.objects = s.objects.successor()
		s.sealed = false
		clear(s.owned)
		clear(s.ownedNode)
	}
	if key.Kind == "Pod" {
		pod, _ := obj.(*corev1.Pod)
		s.place(s.objects.Pods[key.Name], pod)
	}
	table := s.objects.table(key.Kind)
	if !s.owned[key.Kind] {
		table.copy()
		s.owned[key.Kind] = true
	}
	table.put(key.Name, obj)
	s.objects.history.add(s.objects.serial, key)
}

func (s *Store) place(was, is *corev1.Pod) {
	if !s.owned["placement"] {
		s.objects.placement = maps.Clone(s.objects.placement)
		s.owned["placement"] = true
	}
	for _, c := range []struct {
		pod *corev1.Pod
		by  int
	}{{was, -1}, {is, 1}} {
		if node, _, ok := place(c.pod); ok {
			s.objects.placement.count(c.pod, c.by, !s.ownedNode[node])
			s.ownedNode[node] = true
		}
	}
}

// successor is a state that shares all maps with o.
func (o *Objects) successor() *Objects {
	return &Objects{
		Namespaces: o.Namespaces, Nodes: o.Nodes, Pods: o.Pods, Services: o.Services, ServiceAccounts: o.ServiceAccounts,
		EndpointSlices: o.EndpointSlices, AuthorizationPolicies: o.AuthorizationPolicies, PeerAuthentications: o.PeerAuthentications,
		RequestAuthentications: o.RequestAuthentications,
		ServiceEntries:         o.ServiceEntries, WorkloadEntries: o.WorkloadEntries, Gateways: o.Gateways, GatewayClasses: o.GatewayClasses,
		HTTPRoutes: o.HTTPRoutes, GRPCRoutes: o.GRPCRoutes, TCPRoutes: o.TCPRoutes, TLSRoutes: o.TLSRoutes, ReferenceGrants: o.ReferenceGrants,
		ConfigMaps: o.ConfigMaps, DestinationRules: o.DestinationRules, VirtualServices: o.VirtualServices, BackendTLSPolicies: o.BackendTLSPolicies, BackendTrafficPolicies: o.BackendTrafficPolicies, FaultPolicies: o.FaultPolicies, BackendPolicies: o.BackendPolicies,
		RateLimitPolicies: o.RateLimitPolicies, Telemetries: o.Telemetries,
		placement: o.placement, history: o.history, serial: o.serial + 1,
	}
}

// Count returns the number of objects of the kind.
func (s *Store) Count(kind string) int { return s.objects.count(kind) }

// Keys returns the keys of all objects of the kind, in no order.
func (s *Store) Keys(kind string) []Key { return s.objects.Keys(kind) }

// Counts returns the number of objects by kind, kinds without any left out.
func (s *Store) Counts() map[string]int { return s.objects.Counts() }
