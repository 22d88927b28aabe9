package translate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

const networkingGroup = "networking.istio.io"

// Fault says why a part of a route cannot do what its author wrote.
type Fault struct {
	// Reason is a reason of a route's conditions in the Gateway API.
	Reason gatewayv1.RouteConditionReason
	// Message is a clause for people.
	Message string
}

// Backends looks the backends of routes up in one state of a mesh.
type Backends struct {
	options Options
	objects *source.Objects
	once    sync.Once
	grants  map[string][]*gatewayv1.ReferenceGrant // by their namespace, once needed
	found   sync.Once
	written *traffic // once needed

	routes   sync.Once
	attached map[source.Key]bool // services with routes, once needed
}

// traffic returns what operators write of traffic beside routes.
func (b *Backends) traffic() *traffic {
	b.found.Do(func() {
		if b.written == nil {
			b.written = trafficOf(b.objects, b.options)
		}
	})
	return b.written
}

// NewBackends returns a Backends of objects. It is safe for concurrent use.
func NewBackends(objects *source.Objects, options Options) *Backends {
	return &Backends{options: options.withDefaults(), objects: objects}
}

// Referrer is what refers to a backend.
type Referrer struct {
	// Kind and Namespace are those of the route, or of what else refers; Group is empty
	// for routes.
	Group, Kind, Namespace string
	// Parent is the service whose traffic it is. A route of another namespace needs no
	// ReferenceGrant to send it where its clients sent it themselves.
	Parent source.Key
}

// Resolve returns the service that a route's backend is, as namespace/hostname,
// and its port, or why it is none.
func (b *Backends) Resolve(from Referrer, ref gatewayv1.BackendObjectReference) (service string, port uint32, fault *Fault) {
	refuse := func(reason gatewayv1.RouteConditionReason, format string, args ...any) (string, uint32, *Fault) {
		return "", 0, &Fault{Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	key := backendKey(from.Namespace, ref)
	group := groupOf(ref)
	if !isService(group, key.Kind) {
		return refuse(gatewayv1.RouteReasonInvalidKind, "a backend of kind %s in group %q is not supported", key.Kind, group)
	}
	if key.Namespace != from.Namespace && key != from.Parent && !b.granted(from, group, key) {
		return refuse(gatewayv1.RouteReasonRefNotPermitted, "no ReferenceGrant in namespace %s lets a %s of namespace %s refer to %s", key.Namespace, from.Kind, from.Namespace, key)
	}
	if ref.Port == nil {
		return refuse(gatewayv1.RouteReasonUnsupportedValue, "the backend %s is named without a port", key)
	}
	port = uint32(*ref.Port)
	var ports []servicePort
	switch obj := b.objects.Object(key).(type) {
	case *corev1.Service:
		if obj.Spec.Type == corev1.ServiceTypeExternalName {
			return refuse(gatewayv1.RouteReasonInvalidKind, "%s stands for a foreign name and has no endpoints", key)
		}
		service, ports = serviceName(key.Namespace, b.options.hostname(key.Name)), kubernetesPorts(obj)
	case *networkingv1.ServiceEntry:
		if !carried(obj) || len(obj.Spec.Hosts) == 0 {
			return refuse(gatewayv1.RouteReasonInvalidKind, "%s has wildcard hosts or the resolution NONE: it says not where to go", key)
		}
		service, ports = serviceName(key.Namespace, obj.Spec.Hosts[0]), entryPorts(obj)
	default:
		return refuse(gatewayv1.RouteReasonBackendNotFound, "%s does not exist", key)
	}
	if !slices.ContainsFunc(ports, func(p servicePort) bool { return p.number == port }) {
		return refuse(gatewayv1.RouteReasonBackendNotFound, "%s has no TCP port %d", key, port)
	}
	return service, port, nil
}

// backendKey names what a reference of a route in namespace is to.
func backendKey(namespace string, ref gatewayv1.BackendObjectReference) source.Key {
	key := source.Key{Kind: "Service", Name: source.Name{Namespace: namespace, Name: string(ref.Name)}}
	if ref.Kind != nil {
		key.Kind = string(*ref.Kind)
	}
	if ref.Namespace != nil {
		key.Namespace = string(*ref.Namespace)
	}
	return key
}

func groupOf(ref gatewayv1.BackendObjectReference) string {
	if ref.Group != nil {
		return string(*ref.Group)
	}
	return ""
}

// isService reports whether the kind is one of services.
func isService(group, kind string) bool {
	return kind == "Service" && group == "" || kind == "ServiceEntry" && group == networkingGroup
}

func (b *Backends) granted(from Referrer, group string, to source.Key) bool {
	b.once.Do(func() {
		b.grants = map[string][]*gatewayv1.ReferenceGrant{}
		for name, g := range b.objects.ReferenceGrants {
			b.grants[name.Namespace] = append(b.grants[name.Namespace], g)
		}
	})
	return slices.ContainsFunc(b.grants[to.Namespace], func(g *gatewayv1.ReferenceGrant) bool {
		return slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Group) == cmp.Or(from.Group, gatewayv1.GroupName) && string(f.Kind) == from.Kind && string(f.Namespace) == from.Namespace
		}) && slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return string(t.Group) == group && string(t.Kind) == to.Kind && (t.Name == nil || string(*t.Name) == to.Name.Name)
		})
	})
}

// Check returns why backends of a route are none, and, by the index of its rule,
// why rules cannot do what they say. A rule without backends is none of them, though
// it answers 500. total is how many rules there are.
func (b *Backends) Check(route metav1.Object) (backends []Fault, rules map[int]string, total int) {
	c := &routeCompiler{backends: b, table: &apiwaypoint.RouteTable{}}
	c.route(route)
	kind := source.KeyOf(route).Kind
	parentRefs, refs := references(route)
	parents := Parents(route.GetNamespace(), parentRefs)
	if len(parents) == 0 {
		parents = []Parent{{}}
	}
	for _, ref := range refs {
		for _, parent := range parents {
			from := Referrer{Kind: kind, Namespace: route.GetNamespace(), Parent: parent.Service}
			if _, _, fault := b.Resolve(from, ref); fault != nil && !slices.Contains(backends, *fault) {
				backends = append(backends, *fault)
			}
		}
	}
	rules = map[int]string{}
	for i, r := range c.table.Rules {
		if fault := c.faults[r]; fault != "" {
			rules[i] = fault
		}
	}
	return backends, rules, len(c.table.Rules)
}

// HasPort reports whether a parent names a port that the service obj has, or none.
func (p Parent) HasPort(obj metav1.Object) bool {
	var ports []servicePort
	switch o := obj.(type) {
	case *corev1.Service:
		ports = kubernetesPorts(o)
	case *networkingv1.ServiceEntry:
		ports = entryPorts(o)
	}
	return p.Ref.Port == nil && p.Ref.SectionName == nil || slices.ContainsFunc(ports, func(port servicePort) bool {
		fits, _ := p.names(port)
		return fits
	})
}

// Parent is one service that a route says to be attached to.
type Parent struct {
	Ref gatewayv1.ParentReference
	// Service is the parent: a Service or ServiceEntry.
	Service source.Key
}

// Parents returns the services that a route of a namespace names as its parents.
func Parents(namespace string, refs []gatewayv1.ParentReference) []Parent {
	var out []Parent
	for _, ref := range refs {
		group, kind := gatewayv1.GroupName, "Gateway"
		if ref.Group != nil {
			group = string(*ref.Group)
		}
		if ref.Kind != nil {
			kind = string(*ref.Kind)
		}
		if !isService(group, kind) {
			continue
		}
		key := source.Key{Kind: kind, Name: source.Name{Namespace: namespace, Name: string(ref.Name)}}
		if ref.Namespace != nil {
			key.Namespace = string(*ref.Namespace)
		}
		out = append(out, Parent{Ref: ref, Service: key})
	}
	return out
}

// names reports whether a parent is this port of its service, and whether it says
// so itself instead of meaning all ports.
func (p Parent) names(port servicePort) (fits, itself bool) {
	ref := p.Ref
	fits = (ref.Port == nil || uint32(*ref.Port) == port.number) && (ref.SectionName == nil || strings.EqualFold(string(*ref.SectionName), port.name))
	return fits, fits && (ref.Port != nil || ref.SectionName != nil)
}
