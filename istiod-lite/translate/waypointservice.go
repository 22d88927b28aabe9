package translate

import (
	"cmp"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// routeMemo is a route and what it depends on.
type routeMemo struct {
	object   metav1.Object
	parents  []Parent
	backends []string // the namespaces that it refers to
}

// routeIndex finds routes by what they are attached to and by where they lead.
type routeIndex struct {
	memos    map[source.Key]*routeMemo
	parents  map[source.Key]map[source.Key]bool // by service
	backends map[string]map[source.Key]bool     // by namespace
}

func newRouteIndex() routeIndex {
	return routeIndex{memos: map[source.Key]*routeMemo{}, parents: map[source.Key]map[source.Key]bool{}, backends: map[string]map[source.Key]bool{}}
}

// set takes in a route, or its end when obj is nil, and calls touched for the
// services that it was and is attached to.
func (x *routeIndex) set(key source.Key, obj metav1.Object, touched func(source.Key)) {
	if old := x.memos[key]; old != nil {
		for _, p := range old.parents {
			touched(p.Service)
			drop(x.parents, p.Service, key)
		}
		for _, ns := range old.backends {
			drop(x.backends, ns, key)
		}
		delete(x.memos, key)
	}
	if obj == nil {
		return
	}
	memo := &routeMemo{object: obj}
	refs, backends := references(obj)
	memo.parents = Parents(obj.GetNamespace(), refs)
	for _, ref := range backends {
		memo.backends = append(memo.backends, backendKey(obj.GetNamespace(), ref).Namespace)
	}
	slices.Sort(memo.backends)
	memo.backends = slices.Compact(memo.backends)
	x.memos[key] = memo
	for _, p := range memo.parents {
		touched(p.Service)
		put(x.parents, p.Service, key)
	}
	for _, ns := range memo.backends {
		put(x.backends, ns, key)
	}
}

func put[K comparable](m map[K]map[source.Key]bool, at K, key source.Key) {
	if m[at] == nil {
		m[at] = map[source.Key]bool{}
	}
	m[at][key] = true
}

func drop[K comparable](m map[K]map[source.Key]bool, at K, key source.Key) {
	if delete(m[at], key); len(m[at]) == 0 {
		delete(m, at)
	}
}

// references returns the parents of a route and all that it sends anything to.
func references(obj metav1.Object) (parents []gatewayv1.ParentReference, backends []gatewayv1.BackendObjectReference) {
	filters := func(list []gatewayv1.HTTPRouteFilter) {
		for _, f := range list {
			if f.RequestMirror != nil {
				backends = append(backends, f.RequestMirror.BackendRef)
			}
			if f.ExternalAuth != nil {
				backends = append(backends, f.ExternalAuth.BackendRef)
			}
		}
	}
	grpcFilters := func(list []gatewayv1.GRPCRouteFilter) {
		for _, f := range list {
			if f.RequestMirror != nil {
				backends = append(backends, f.RequestMirror.BackendRef)
			}
		}
	}
	switch r := obj.(type) {
	case *gatewayv1.HTTPRoute:
		parents = r.Spec.ParentRefs
		for i := range r.Spec.Rules {
			filters(r.Spec.Rules[i].Filters)
			for _, b := range r.Spec.Rules[i].BackendRefs {
				backends = append(backends, b.BackendObjectReference)
				filters(b.Filters)
			}
		}
	case *gatewayv1.GRPCRoute:
		parents = r.Spec.ParentRefs
		for i := range r.Spec.Rules {
			grpcFilters(r.Spec.Rules[i].Filters)
			for _, b := range r.Spec.Rules[i].BackendRefs {
				backends = append(backends, b.BackendObjectReference)
				grpcFilters(b.Filters)
			}
		}
	case *gatewayv1.TCPRoute:
		parents = r.Spec.ParentRefs
		for _, rule := range r.Spec.Rules {
			for _, b := range rule.BackendRefs {
				backends = append(backends, b.BackendObjectReference)
			}
		}
	case *gatewayv1.TLSRoute:
		parents = r.Spec.ParentRefs
		for _, rule := range r.Spec.Rules {
			for _, b := range rule.BackendRefs {
				backends = append(backends, b.BackendObjectReference)
			}
		}
	}
	return parents, backends
}

// translateServices makes what waypoints do for the services that changed, that a
// changed route is attached to, or whose routes lead to what changed.
func (t *Translator) translateServices(u *update) {
	dirty := map[source.Key]bool{}
	for _, key := range u.routes {
		t.routes.set(key, u.objects.Object(key), func(service source.Key) { dirty[service] = true })
	}
	t.bindLimits(u, dirty)
	if len(t.waypoints.byName) == 0 && len(t.made) == 0 {
		return
	}
	if u.all {
		for _, ns := range t.namespaces {
			for key := range ns.byKey {
				dirty[key] = true
			}
		}
	}
	for key := range t.made {
		if u.all || u.namespaces[key.Namespace] {
			dirty[key] = true
		}
	}
	leadingTo := func(namespace string) {
		for route := range t.routes.backends[namespace] {
			for _, p := range t.routes.memos[route].parents {
				dirty[p.Service] = true
			}
		}
	}
	for name := range u.namespaces {
		if ns := t.namespaces[name]; ns != nil {
			for key := range ns.byKey {
				dirty[key] = true
			}
		}
		leadingTo(name)
	}
	for name := range u.grants {
		leadingTo(name)
	}
	backends := t.backends(u)
	t.steered(u, backends, dirty)
	for key := range dirty {
		t.translateService(u, key, backends)
	}
}

func (t *Translator) translateService(u *update, key source.Key, backends *Backends) {
	was := t.made[key]
	var is madeServices
	for _, s := range t.services(key) {
		if s.waypoint == nil {
			continue
		}
		r, limits := t.waypointService(s, backends)
		t.out.services.set(r.Name, r)
		is.names = append(is.names, r.Name)
		for _, w := range s.waypoints() {
			is.uses = append(is.uses, serviceUse{waypoint: w.name, enforced: s.enforced, unsure: s.unsure, requests: s.requests, limits: limits,
				sends: sentTo(r.Body.(*apiwaypoint.Service))})
		}
		s.idle = len(s.unsure) == 0 && idle(r.Body.(*apiwaypoint.Service))
		t.lead(s)
	}
	for _, name := range was.names {
		if !slices.Contains(is.names, name) && !t.elsewhere(key, name) {
			t.out.services.set(name, nil)
		}
	}
	if !slices.EqualFunc(was.uses, is.uses, serviceUse.equal) {
		for _, use := range is.uses {
			t.count(u, use, 1)
		}
		for _, use := range was.uses {
			t.count(u, use, -1)
		}
	}
	if len(is.names) == 0 {
		delete(t.made, key)
	} else {
		t.made[key] = is
	}
}

// elsewhere reports whether the resource of that name is that of another object by
// now: one host may change its owner.
func (t *Translator) elsewhere(key source.Key, resource string) bool {
	ns := t.namespaces[key.Namespace]
	return ns != nil && slices.ContainsFunc(ns.services, func(s *service) bool {
		return s.key != key && s.waypoint != nil && s.resource.Name == resource
	})
}

// waypointService is what the waypoint of s does with its traffic, and the names of the
// rate limits in it.
func (t *Translator) waypointService(s *service, backends *Backends) (r *Resource, limits []string) {
	out := &apiwaypoint.Service{Namespace: s.proto.GetNamespace(), Hostname: s.proto.GetHostname(), Name: s.proto.GetName(), Policies: s.enforced, Authentications: s.requests,
		TrustedProxies: t.providers.config.TrustedProxies}
	routes := t.attached(s.key)
	for _, port := range s.ports {
		p := &apiwaypoint.Port{Port: port.number, Protocol: protocol(port)}
		// A route of requests that names a port without a protocol, or is attached to a
		// service with no other port, says what the port speaks.
		for _, r := range routes {
			if spoken, ok := r.speaks(); ok && p.Protocol == apiwaypoint.Protocol_UNKNOWN && r.fits(port, len(s.ports) == 1) {
				p.Protocol = spoken
				break
			}
		}
		p.Routes = tables(s, port, p.Protocol, routes, backends)
		backends.virtual(s, port, p)
		backends.injectFaults(s, p)
		out.Ports = append(out.Ports, p)
	}
	limits = t.limit(s, out)
	r = &Resource{Name: s.resource.Name, Body: out}
	for _, w := range s.waypoints() {
		r.Aliases = append(r.Aliases, w.alias())
	}
	slices.Sort(r.Aliases)
	return r, limits
}

// attachment is a route at one of its parents.
type attachment struct {
	object  metav1.Object
	parents []Parent // those that are this service
}

// attached returns the routes of a service: the older first, then by name, then by
// kind.
func (t *Translator) attached(service source.Key) []attachment {
	var out []attachment
	for key := range t.routes.parents[service] {
		memo := t.routes.memos[key]
		a := attachment{object: memo.object}
		for _, p := range memo.parents {
			if p.Service == service {
				a.parents = append(a.parents, p)
			}
		}
		out = append(out, a)
	}
	slices.SortFunc(out, compareAttachments)
	return out
}

func compareAttachments(a, b attachment) int {
	x, y := a.object.GetCreationTimestamp(), b.object.GetCreationTimestamp()
	return cmp.Or(x.Compare(y.Time), cmp.Compare(a.object.GetNamespace(), b.object.GetNamespace()), cmp.Compare(a.object.GetName(), b.object.GetName()),
		cmp.Compare(source.KeyOf(a.object).Kind, source.KeyOf(b.object).Kind))
}

// fits reports whether the route is attached to the port; with explicit it counts
// as named.
func (a attachment) fits(port servicePort, only bool) bool {
	return slices.ContainsFunc(a.parents, func(p Parent) bool {
		fits, itself := p.names(port)
		return fits && (itself || only)
	})
}

// speaks is the protocol that a route takes a port to have.
func (a attachment) speaks() (apiwaypoint.Protocol, bool) {
	switch a.object.(type) {
	case *gatewayv1.HTTPRoute:
		return apiwaypoint.Protocol_HTTP1, true
	case *gatewayv1.GRPCRoute:
		return apiwaypoint.Protocol_GRPC, true
	case *gatewayv1.TLSRoute:
		return apiwaypoint.Protocol_TLS, true
	}
	return apiwaypoint.Protocol_UNKNOWN, false
}

// takes reports whether a route of this kind can decide on what the port speaks.
func (a attachment) takes(p apiwaypoint.Protocol) bool {
	switch a.object.(type) {
	case *gatewayv1.HTTPRoute, *gatewayv1.GRPCRoute:
		return p == apiwaypoint.Protocol_HTTP1 || p == apiwaypoint.Protocol_HTTP2 || p == apiwaypoint.Protocol_GRPC
	case *gatewayv1.TLSRoute:
		return p == apiwaypoint.Protocol_TLS
	case *gatewayv1.TCPRoute:
		return p == apiwaypoint.Protocol_TCP || p == apiwaypoint.Protocol_TLS || p == apiwaypoint.Protocol_UNKNOWN
	}
	return false
}

// tables returns the rules of a port: those of the service's own namespace for all
// clients, and for the clients of other namespaces those of theirs.
func tables(s *service, port servicePort, speaks apiwaypoint.Protocol, routes []attachment, backends *Backends) []*apiwaypoint.RouteTable {
	groups := map[string]*routeCompiler{}
	for _, a := range routes {
		if !a.takes(speaks) || !a.fits(port, true) {
			continue
		}
		client := a.object.GetNamespace()
		if client == s.key.Namespace {
			client = ""
		}
		c := groups[client]
		if c == nil {
			c = &routeCompiler{backends: backends, parent: s.key, table: &apiwaypoint.RouteTable{ClientNamespace: client}}
			groups[client] = c
		}
		c.route(a.object)
	}
	var out []*apiwaypoint.RouteTable
	for _, client := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, groups[client].finish())
	}
	return out
}

func protocol(p servicePort) apiwaypoint.Protocol {
	switch p.protocol {
	case apiworkload.AppProtocol_HTTP11:
		return apiwaypoint.Protocol_HTTP1
	case apiworkload.AppProtocol_HTTP2:
		return apiwaypoint.Protocol_HTTP2
	case apiworkload.AppProtocol_GRPC:
		return apiwaypoint.Protocol_GRPC
	case apiworkload.AppProtocol_TCP:
		return apiwaypoint.Protocol_TCP
	case apiworkload.AppProtocol_TLS:
		return apiwaypoint.Protocol_TLS
	}
	return apiwaypoint.Protocol_UNKNOWN
}
