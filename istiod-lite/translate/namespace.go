package translate

import (
	"cmp"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// namespace is what the workloads of one namespace depend on, made ready for
// many look-ups. A namespace whose objects have not changed keeps its pointer.
type namespace struct {
	name   string
	object *corev1.Namespace // nil when there is none of that name

	services   []*service // by name
	byName     map[string]*service
	selectors  selectors[*service] // of services that no EndpointSlice describes
	policies   selectors[string]   // names of selector-scoped policies, root's included
	strictness strictness
	converted  []*Resource // policies made from PeerAuthentications
	endpoints  []*Resource // workloads that ServiceEntries define
	warnings   []Warning
	bindings   bindings
	byKey      map[source.Key][]*service
	// What can apply to its workloads at their own waypoints.
	waypoints     *Waypoints
	atWaypoints   servicePolicies
	tokenPolicies serviceRequests
	// allowing are the policies with a selector that allow something, and allows is
	// set where one of all workloads does: whom none allows is kept out.
	allowing map[string]bool
	allows   bool
}

// namespace returns the namespace of that name, an empty one when no object of
// it exists but pods.
func (t *Translator) namespace(name string) *namespace {
	ns := t.namespaces[name]
	if ns == nil {
		ns = t.build(name, group{}, t.root)
		t.namespaces[name] = ns
	}
	return ns
}

// group is the objects of one namespace that shape its workloads.
type group struct {
	object   *corev1.Namespace
	services []*corev1.Service
	entries  []*networkingv1.ServiceEntry
	policies []*securityv1.AuthorizationPolicy
	peers    []*securityv1.PeerAuthentication
	requests []*securityv1.RequestAuthentication
}

// updateNamespaces builds the namespaces anew of which something changed.
func (t *Translator) updateNamespaces(u *update) {
	if u.rebind || u.all {
		next := bind(u.objects, enforced, t.waypoints.standing)
		atWaypoints := bind(u.objects, func(*securityv1.AuthorizationPolicy) bool { return true }, func(source.Name) bool { return false })
		if !t.bindings.sameGateways(next) || !t.atWaypoints.sameGateways(atWaypoints) {
			u.all = true
		}
		t.bindings, t.atWaypoints = next, atWaypoints
		t.requestBindings = bindRequests(u.objects)
	}
	if !u.all && len(u.namespaces) == 0 {
		return
	}
	groups := t.collect(u)
	if u.all {
		t.root = group{}
		if g := groups[t.options.RootNamespace]; g != nil {
			t.root = *g
		}
		for name := range t.namespaces {
			u.namespaces[name] = true
		}
		for name := range groups {
			u.namespaces[name] = true
		}
	}
	for name := range u.namespaces {
		old := t.namespaces[name]
		if g := groups[name]; g != nil {
			t.namespaces[name] = t.build(name, *g, t.root)
		} else {
			delete(t.namespaces, name) // what is left of it finds an empty one
		}
		t.publishNamespace(old, t.namespaces[name])
	}
}

// publishNamespace puts what the namespace itself defines in the place of what
// it defined before; either may be nil.
func (t *Translator) publishNamespace(old, ns *namespace) {
	addresses, authorizations := ns.resources()
	had, hadAuthorizations := old.resources()
	for name, r := range addresses {
		t.setAddress(name, r)
	}
	for name := range had {
		if addresses[name] == nil {
			t.setAddress(name, nil)
		}
	}
	for name, r := range authorizations {
		t.out.authorizations.set(name, r)
	}
	for name := range hadAuthorizations {
		if authorizations[name] == nil {
			t.out.authorizations.set(name, nil)
		}
	}
	if (old != nil && len(old.warnings) > 0) || (ns != nil && len(ns.warnings) > 0) {
		t.out.warned = true
	}
}

func (ns *namespace) resources() (addresses, authorizations map[string]*Resource) {
	if ns == nil {
		return nil, nil
	}
	addresses, authorizations = map[string]*Resource{}, map[string]*Resource{}
	for _, svc := range ns.services {
		addresses[svc.resource.Name] = svc.resource
	}
	for _, r := range ns.endpoints {
		addresses[r.Name] = r
	}
	for _, r := range ns.converted {
		authorizations[r.Name] = r
	}
	return addresses, authorizations
}

// collect gathers the objects of the namespaces to build.
func (t *Translator) collect(u *update) map[string]*group {
	groups := map[string]*group{}
	at := func(name string) *group {
		if !u.all && !u.namespaces[name] {
			return nil
		}
		g := groups[name]
		if g == nil {
			g = &group{}
			groups[name] = g
		}
		return g
	}
	objects := u.objects
	collect(objects.Namespaces, func(n source.Name) string { return n.Name }, at, func(g *group, o *corev1.Namespace) { g.object = o })
	inNamespace := func(n source.Name) string { return n.Namespace }
	collect(objects.Services, inNamespace, at, func(g *group, o *corev1.Service) { g.services = append(g.services, o) })
	collect(objects.ServiceEntries, inNamespace, at, func(g *group, o *networkingv1.ServiceEntry) { g.entries = append(g.entries, o) })
	collect(objects.AuthorizationPolicies, inNamespace, at, func(g *group, o *securityv1.AuthorizationPolicy) { g.policies = append(g.policies, o) })
	collect(objects.PeerAuthentications, inNamespace, at, func(g *group, o *securityv1.PeerAuthentication) { g.peers = append(g.peers, o) })
	collect(objects.RequestAuthentications, inNamespace, at, func(g *group, o *securityv1.RequestAuthentication) { g.requests = append(g.requests, o) })
	for _, g := range groups {
		sortByName(g.services)
		slices.SortFunc(g.entries, func(a, b *networkingv1.ServiceEntry) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
		sortByName(g.policies)
		slices.SortFunc(g.peers, func(a, b *securityv1.PeerAuthentication) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
	}
	return groups
}

func (t *Translator) build(name string, g, root group) *namespace {
	ns := &namespace{name: name, object: g.object, byName: map[string]*service{}, byKey: map[source.Key][]*service{}, allowing: map[string]bool{}, bindings: t.bindings, waypoints: t.waypoints}
	if g.object != nil {
		asked, _ := t.waypoints.bind(nil, name, g.object, forService)
		if carried, ok := t.waypoints.bind(nil, name, g.object, forWorkload); ok && (carried.Bound || asked.Reason == UnsupportedTrafficType) {
			asked = carried // for its workloads alone
		}
		ns.warnWaypoint("Namespace "+name, g.object.Labels, asked)
	}
	policies := servicePolicies{bound: t.atWaypoints, own: g.policies, root: root.policies}
	requests := serviceRequests{bound: t.requestBindings, own: g.requests, root: root.requests}
	if name == t.options.RootNamespace {
		policies.root, requests.root = nil, nil
	}
	ns.atWaypoints, ns.tokenPolicies = policies, requests
	for _, svc := range g.services {
		if s := kubernetesService(t.options, svc, g.object); s != nil {
			t.add(ns, s, svc, forService, policies, requests)
			if t.options.Kubernetes || t.slices.services[source.Name{Namespace: name, Name: svc.Name}] == 0 {
				ns.selectors.add(len(ns.services), s.selector, s)
			}
			ns.byName[svc.Name] = s
		}
	}
	taken := map[string]string{}
	for _, s := range ns.services {
		taken[s.resource.Name] = "Service " + name + "/" + s.proto.GetName()
	}
	var entries []serviceEntry
	for _, se := range g.entries {
		for _, s := range entryServices(t.options, se, g.object) {
			object := "ServiceEntry " + name + "/" + se.Name
			if first, ok := taken[s.resource.Name]; ok {
				ns.warnings = append(ns.warnings, Warning{Object: object, Message: "host " + s.proto.GetHostname() + " is already that of " + first + ", which stays in effect"})
				continue
			}
			taken[s.resource.Name] = object
			kind := forService
			if !carried(se) {
				kind = forNobody
			}
			t.add(ns, s, se, kind, policies, requests)
			ns.selectors.add(len(ns.services), s.selector, s)
			if n := len(entries); n > 0 && entries[n-1].object == se {
				entries[n-1].services = append(entries[n-1].services, s)
			} else {
				entries = append(entries, serviceEntry{object: se, services: []*service{s}})
			}
		}
	}
	order := 0
	addPolicies := func(policies []*securityv1.AuthorizationPolicy) {
		for _, p := range policies {
			if len(p.Spec.GetSelector().GetMatchLabels()) > 0 && enforced(p) {
				order++
				ns.policies.add(order, p.Spec.GetSelector().GetMatchLabels(), p.Namespace+"/"+p.Name)
			}
			switch {
			case !allowed(p) || bound(p):
			case len(p.Spec.GetSelector().GetMatchLabels()) > 0:
				ns.allowing[p.Namespace+"/"+p.Name] = true
			default:
				ns.allows = true
			}
		}
	}
	if name != t.options.RootNamespace {
		addPolicies(root.policies)
	}
	addPolicies(g.policies)
	ns.strictness, ns.converted = resolveStrictness(t.options, name, g.peers, root.peers)
	for _, e := range entries {
		ns.endpoints = append(ns.endpoints, serviceEntryEndpoints(t.options, e, ns)...)
	}
	return ns
}

// add takes in the service that obj defines.
func (t *Translator) add(ns *namespace, s *service, obj metav1.Object, kind asker, policies servicePolicies, requests serviceRequests) {
	s.key = source.KeyOf(obj)
	ns.services = append(ns.services, s)
	ns.byKey[s.key] = append(ns.byKey[s.key], s)
	s.policies = slices.Concat(ns.bindings.services[s.key], ns.gatewayPolicies(obj.GetLabels(), ns.name))
	s.bound = slices.Concat(policies.bound.services[s.key], policies.bound.atGateway(obj.GetLabels(), ns.name, ns.object))
	if s.key.Kind == "Service" && t.waypoints.own(s.key.Name) {
		return // waypoints have none
	}
	asked, ok := t.waypoints.bind(obj.GetLabels(), ns.name, ns.object, kind)
	ns.warnWaypoint(s.key.String(), obj.GetLabels(), asked)
	if !ok || asked.waypoint == nil {
		return
	}
	s.waypoint = asked.waypoint
	second := t.waypoints.canaryOf(obj, ns.object, s.waypoint.name)
	s.canary, s.maySkip = second.waypoint, maySkip(ns.object)
	s.enforced, s.unsure = policies.of(s)
	s.requests = requests.of(s)
	if asked.Bound {
		s.proto.Waypoint = s.waypoint.address(t.options)
		second.divide(t.options, s.proto)
		s.proto.IngressUseWaypoint = throughIngress(obj.GetLabels(), ns.object)
		s.resource = serviceResource(s.proto)
	}
}

// applied returns the names of the selector-scoped policies that hold for a
// workload with these labels, with those that are bound to its services:
// authorization first, then what lets its waypoints in, then what its
// PeerAuthentication became.
func (ns *namespace) applied(labels map[string]string, bound []string, services []*service) []string {
	names := append(ns.policies.find(labels), bound...)
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.Concat(names, ns.admitted(services, names), ns.strictness.policies(labels))
}

func collect[V any](objects map[source.Name]V, namespaceOf func(source.Name) string, at func(string) *group, put func(*group, V)) {
	for name, o := range objects {
		if g := at(namespaceOf(name)); g != nil {
			put(g, o)
		}
	}
}

func sortByName[V interface{ GetName() string }](list []V) {
	slices.SortFunc(list, func(a, b V) int { return cmp.Compare(a.GetName(), b.GetName()) })
}
