package source

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
)

// Name is the namespace and name of an object; Namespace is empty for kinds
// that live in none.
type Name = types.NamespacedName

// Objects is everything the mesh is made of at one moment. It and all it points
// to are immutable; it is safe for concurrent use. The zero value is an empty
// mesh.
type Objects struct {
	Namespaces             map[Name]*corev1.Namespace
	Nodes                  map[Name]*corev1.Node
	Pods                   map[Name]*corev1.Pod
	Services               map[Name]*corev1.Service
	ServiceAccounts        map[Name]*corev1.ServiceAccount
	EndpointSlices         map[Name]*discoveryv1.EndpointSlice
	AuthorizationPolicies  map[Name]*securityv1.AuthorizationPolicy
	PeerAuthentications    map[Name]*securityv1.PeerAuthentication
	RequestAuthentications map[Name]*securityv1.RequestAuthentication
	ServiceEntries         map[Name]*networkingv1.ServiceEntry
	WorkloadEntries        map[Name]*networkingv1.WorkloadEntry
	Gateways               map[Name]*gatewayv1.Gateway
	GatewayClasses         map[Name]*gatewayv1.GatewayClass
	HTTPRoutes             map[Name]*gatewayv1.HTTPRoute
	GRPCRoutes             map[Name]*gatewayv1.GRPCRoute
	TCPRoutes              map[Name]*gatewayv1.TCPRoute
	TLSRoutes              map[Name]*gatewayv1.TLSRoute
	ReferenceGrants        map[Name]*gatewayv1.ReferenceGrant
	ConfigMaps             map[Name]*corev1.ConfigMap
	DestinationRules       map[Name]*networkingv1.DestinationRule
	VirtualServices        map[Name]*networkingv1.VirtualService
	BackendTLSPolicies     map[Name]*gatewayv1.BackendTLSPolicy
	BackendTrafficPolicies map[Name]*gatewayxv1alpha1.XBackendTrafficPolicy
	FaultPolicies          map[Name]*policyv1alpha1.FaultPolicy
	BackendPolicies        map[Name]*policyv1alpha1.BackendPolicy
	RateLimitPolicies      map[Name]*policyv1alpha1.RateLimitPolicy
	Telemetries            map[Name]*telemetryv1.Telemetry

	placementOnce sync.Once
	placement     placement

	// Of a Store: where this state stands among its states.
	history *history
	serial  uint64
}

// Len counts the objects.
func (o *Objects) Len() int {
	n := 0
	for _, count := range o.Counts() {
		n += count
	}
	return n
}

// Counts returns the number of objects by kind, kinds without any left out.
func (o *Objects) Counts() map[string]int {
	counts := map[string]int{}
	for _, kind := range kindNames {
		if n := o.count(kind); n > 0 {
			counts[kind] = n
		}
	}
	return counts
}

// RunsOnNode reports whether a pod that has not ended runs on node under the
// service account. The certificate authority asks it before it gives a node's
// proxy the certificate of a workload.
func (o *Objects) RunsOnNode(node, namespace, serviceAccount string) bool {
	if o == nil || node == "" {
		return false
	}
	o.placementOnce.Do(func() {
		if o.placement != nil {
			return // a Store brings its own
		}
		o.placement = placement{}
		for _, pod := range o.Pods {
			o.placement.move(nil, pod)
		}
	})
	return o.placement.runs(node, namespace, serviceAccount)
}

// Ended reports whether all of the pod's containers have ended for good.
func Ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// ServiceAccountOf returns the pod's service account, "default" when it names none.
func ServiceAccountOf(pod *corev1.Pod) string {
	return cmp.Or(pod.Spec.ServiceAccountName, "default")
}

// Origin is where an object was read.
type Origin struct {
	// File is the path relative to the source's root; for a cluster it is empty.
	File string
	// Line is the first line of the document, from 1; zero when unknown.
	Line int
}

func (o Origin) String() string {
	if o.Line == 0 {
		return o.File
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// Key names an object in the mesh.
type Key struct {
	Kind string
	Name
}

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name.Name
}

// Builder collects objects into an Objects. It is not safe for concurrent use.
type Builder struct {
	objects *Objects
	origins map[Key]Origin
}

// NewBuilder returns an empty Builder.
func NewBuilder() *Builder {
	return &Builder{objects: newObjects(), origins: map[Key]Origin{}}
}

func newObjects() *Objects {
	return &Objects{
		Namespaces:             map[Name]*corev1.Namespace{},
		Nodes:                  map[Name]*corev1.Node{},
		Pods:                   map[Name]*corev1.Pod{},
		Services:               map[Name]*corev1.Service{},
		ServiceAccounts:        map[Name]*corev1.ServiceAccount{},
		EndpointSlices:         map[Name]*discoveryv1.EndpointSlice{},
		AuthorizationPolicies:  map[Name]*securityv1.AuthorizationPolicy{},
		PeerAuthentications:    map[Name]*securityv1.PeerAuthentication{},
		RequestAuthentications: map[Name]*securityv1.RequestAuthentication{},
		ServiceEntries:         map[Name]*networkingv1.ServiceEntry{},
		WorkloadEntries:        map[Name]*networkingv1.WorkloadEntry{},
		Gateways:               map[Name]*gatewayv1.Gateway{},
		GatewayClasses:         map[Name]*gatewayv1.GatewayClass{},
		HTTPRoutes:             map[Name]*gatewayv1.HTTPRoute{},
		GRPCRoutes:             map[Name]*gatewayv1.GRPCRoute{},
		TCPRoutes:              map[Name]*gatewayv1.TCPRoute{},
		TLSRoutes:              map[Name]*gatewayv1.TLSRoute{},
		ReferenceGrants:        map[Name]*gatewayv1.ReferenceGrant{},
		ConfigMaps:             map[Name]*corev1.ConfigMap{},
		DestinationRules:       map[Name]*networkingv1.DestinationRule{},
		VirtualServices:        map[Name]*networkingv1.VirtualService{},
		BackendTLSPolicies:     map[Name]*gatewayv1.BackendTLSPolicy{},
		BackendTrafficPolicies: map[Name]*gatewayxv1alpha1.XBackendTrafficPolicy{},
		FaultPolicies:          map[Name]*policyv1alpha1.FaultPolicy{},
		BackendPolicies:        map[Name]*policyv1alpha1.BackendPolicy{},
		RateLimitPolicies:      map[Name]*policyv1alpha1.RateLimitPolicy{},
		Telemetries:            map[Name]*telemetryv1.Telemetry{},
	}
}

// KeyOf names obj. It panics for a type that is not part of Objects, which only
// a programmer can cause.
func KeyOf(obj metav1.Object) Key {
	var kind string
	switch obj.(type) {
	case *corev1.Namespace:
		kind = "Namespace"
	case *corev1.Node:
		kind = "Node"
	case *corev1.Pod:
		kind = "Pod"
	case *corev1.Service:
		kind = "Service"
	case *corev1.ServiceAccount:
		kind = "ServiceAccount"
	case *discoveryv1.EndpointSlice:
		kind = "EndpointSlice"
	case *securityv1.AuthorizationPolicy:
		kind = "AuthorizationPolicy"
	case *securityv1.PeerAuthentication:
		kind = "PeerAuthentication"
	case *securityv1.RequestAuthentication:
		kind = "RequestAuthentication"
	case *networkingv1.ServiceEntry:
		kind = "ServiceEntry"
	case *networkingv1.WorkloadEntry:
		kind = "WorkloadEntry"
	case *gatewayv1.Gateway:
		kind = "Gateway"
	case *gatewayv1.GatewayClass:
		kind = "GatewayClass"
	case *gatewayv1.HTTPRoute:
		kind = "HTTPRoute"
	case *gatewayv1.GRPCRoute:
		kind = "GRPCRoute"
	case *gatewayv1.TCPRoute:
		kind = "TCPRoute"
	case *gatewayv1.TLSRoute:
		kind = "TLSRoute"
	case *gatewayv1.ReferenceGrant:
		kind = "ReferenceGrant"
	case *corev1.ConfigMap:
		kind = "ConfigMap"
	case *networkingv1.DestinationRule:
		kind = "DestinationRule"
	case *networkingv1.VirtualService:
		kind = "VirtualService"
	case *gatewayv1.BackendTLSPolicy:
		kind = "BackendTLSPolicy"
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		kind = "XBackendTrafficPolicy"
	case *policyv1alpha1.FaultPolicy:
		kind = "FaultPolicy"
	case *policyv1alpha1.BackendPolicy:
		kind = "BackendPolicy"
	case *policyv1alpha1.RateLimitPolicy:
		kind = "RateLimitPolicy"
	case *telemetryv1.Telemetry:
		kind = "Telemetry"
	default:
		panic(fmt.Sprintf("source: %T is no mesh object", obj))
	}
	return Key{Kind: kind, Name: Name{Namespace: obj.GetNamespace(), Name: obj.GetName()}}
}

// Add puts a checked object in. It returns a Problem, and leaves the object
// out, when one of that kind and name is there already or there are too many.
// The caller must not change obj afterwards.
func (b *Builder) Add(obj metav1.Object, origin Origin) *Problem {
	key := KeyOf(obj)
	if first, ok := b.origins[key]; ok {
		return &Problem{File: origin.File, Line: origin.Line, Object: key.String(), Field: "metadata.name",
			Message: fmt.Sprintf("duplicate: the same object is in %s", first)}
	}
	if len(b.origins) >= MaxObjects {
		return &Problem{File: origin.File, Line: origin.Line, Object: key.String(), Message: fmt.Sprintf("more than %d objects", MaxObjects)}
	}
	b.origins[key] = origin
	b.objects.table(key.Kind).put(key.Name, obj)
	return nil
}

// Build returns what was added. The Builder must not be used afterwards.
func (b *Builder) Build() *Objects {
	o := b.objects
	b.objects = nil
	return o
}

// SortProblems orders problems by file, line, object and field.
func SortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field))
	})
}
