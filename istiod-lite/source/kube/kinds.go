package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// kind is one kind that is watched.
type kind struct {
	name string
	// crd is the name of the CustomResourceDefinition, empty for kinds that every
	// cluster has.
	crd string
	// version is that of the definition in which the kind is read.
	version string
	guards  guard
	list    func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch   func(context.Context, metav1.ListOptions) (watch.Interface, error)
	// expected is an empty object of what list and watch yield.
	expected runtime.Object
	// trim makes the object that is kept of one that was decoded, and tells what
	// is wrong with it. A nil object is left out.
	trim func(runtime.Object) (metav1.Object, []source.Problem)
}

// guard says what may not come into force without the objects of a kind. An API server
// that has just started answers "not found" for kinds which it serves a moment later; so
// that is no proof that there are none.
type guard int

const (
	// adds: without them the mesh is only less of what it could be, and the first state
	// does not wait for a kind that the API server does not serve.
	adds guard = iota
	// narrows: they close something, or say how something that is reached is protected.
	// The first state waits as long as the definition says that the version is served. It
	// goes on without a kind that is defined in other versions only, as many a cluster
	// has those of the Gateway API: nobody has ever acted on what stands there.
	narrows
	// secures: they are policies of who may reach what, or name what these are about.
	// Nothing comes into force before they are read, whatever the reason, also where they
	// are defined in other versions only: what somebody wrote there must not count for
	// nothing.
	secures
)

// endedPods are not asked for: a pod that has run to its end leaves the watch
// like one that was deleted.
const livePods = "status.phase!=Succeeded,status.phase!=Failed"

// otherSlices leaves out the EndpointSlices that Kubernetes's own controller
// makes from the selectors of Services. They say what the selector says, later,
// and in a large cluster they are most of the traffic of the API.
const otherSlices = source.LabelSliceManagedBy + "!=" + source.EndpointSliceController

func coreKinds(c kubernetes.Interface, check source.Checker) []*kind {
	core, discovery := c.CoreV1().RESTClient(), c.DiscoveryV1().RESTClient()
	return []*kind{
		coreKind("Namespace", core, "namespaces", nil, &corev1.Namespace{}, check, trimNamespace),
		coreKind("Node", core, "nodes", nil, &corev1.Node{}, check, trimNode),
		coreKind("Pod", core, "pods", func(o *metav1.ListOptions) { o.FieldSelector = livePods }, &corev1.Pod{}, check, newInterner().trimPod),
		coreKind("ConfigMap", core, "configmaps", func(o *metav1.ListOptions) { o.FieldSelector = ownConfigMaps }, &corev1.ConfigMap{}, check, trimConfigMap(check.RootNamespace)),
		coreKind("Service", core, "services", nil, &corev1.Service{}, check, trimService),
		coreKind("EndpointSlice", discovery, "endpointslices", func(o *metav1.ListOptions) { o.LabelSelector = otherSlices }, &discoveryv1.EndpointSlice{}, check, trimSlice),
	}
}

// ownConfigMaps leaves out what stands in each namespace and nobody refers to.
const ownConfigMaps = "metadata.name!=kube-root-ca.crt,metadata.name!=istio-ca-root-cert"

func coreKind[T interface {
	comparable
	runtime.Object
	metav1.Object
}](name string, c rest.Interface, resource string, narrow func(*metav1.ListOptions), expected T, check source.Checker, trim func(T) T) *kind {
	request := func(o *metav1.ListOptions) *rest.Request {
		if narrow != nil {
			narrow(o)
		}
		return c.Get().Resource(resource).VersionedParams(o, scheme.ParameterCodec)
	}
	return &kind{
		name: name, guards: secures, expected: expected,
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return request(&o).Do(ctx).Get()
		},
		watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			return request(&o).Watch(ctx)
		},
		trim: func(obj runtime.Object) (metav1.Object, []source.Problem) {
			o, ok := obj.(T)
			if !ok {
				return nil, []source.Problem{{Object: name, Message: fmt.Sprintf("the API server sent a %T", obj)}}
			}
			o = trim(o)
			if o == *new(T) {
				return nil, nil
			}
			return o, problemsOf(o, check.Check(o))
		},
	}
}

// customKinds are defined by CustomResourceDefinitions. They are read as JSON:
// their decoding must see fields that it does not know. What each guards:
//
//   - AuthorizationPolicy, PeerAuthentication and RequestAuthentication are who may do
//     what; ServiceEntry and WorkloadEntry name what they are about.
//   - Gateway and GatewayClass make waypoints. Without them traffic would pass by those
//     that have served, and with them all that only they keep.
//   - HTTPRoute and VirtualService can close paths (rules without backends, redirects,
//     responses of their own) and have an authorizer asked; GRPCRoute, TCPRoute and
//     TLSRoute close what their rules lead nowhere.
//   - BackendTLSPolicy and DestinationRule say that a backend is spoken to by TLS and whom
//     to trust: without them requests would go out in the clear. RateLimitPolicy lets no
//     more through than it says.
//   - A ReferenceGrant allows, so that without it less is reached. XBackendTrafficPolicy,
//     FaultPolicy, BackendPolicy and Telemetry change how requests fare, how they are
//     spread and what is told of them, and keep nobody out.
func customKinds(c dynamic.Interface, check source.Checker) []*kind {
	var kinds []*kind
	for _, k := range []struct {
		group, resource, kind string
		guards                guard
	}{
		{"security.istio.io", "authorizationpolicies", "AuthorizationPolicy", secures},
		{"security.istio.io", "peerauthentications", "PeerAuthentication", secures},
		{"security.istio.io", "requestauthentications", "RequestAuthentication", secures},
		{"networking.istio.io", "serviceentries", "ServiceEntry", secures},
		{"networking.istio.io", "workloadentries", "WorkloadEntry", secures},
		{"networking.istio.io", "destinationrules", "DestinationRule", narrows},
		{"networking.istio.io", "virtualservices", "VirtualService", narrows},
		{"gateway.networking.k8s.io", "gateways", "Gateway", narrows},
		{"gateway.networking.k8s.io", "gatewayclasses", "GatewayClass", narrows},
		{"gateway.networking.k8s.io", "httproutes", "HTTPRoute", narrows},
		{"gateway.networking.k8s.io", "grpcroutes", "GRPCRoute", narrows},
		{"gateway.networking.k8s.io", "tcproutes", "TCPRoute", narrows},
		{"gateway.networking.k8s.io", "tlsroutes", "TLSRoute", narrows},
		{"gateway.networking.k8s.io", "referencegrants", "ReferenceGrant", adds},
		{"gateway.networking.k8s.io", "backendtlspolicies", "BackendTLSPolicy", narrows},
		{"gateway.networking.x-k8s.io", "xbackendtrafficpolicies", "XBackendTrafficPolicy", adds},
		{policyv1alpha1.GroupName, "faultpolicies", "FaultPolicy", adds},
		{policyv1alpha1.GroupName, "backendpolicies", "BackendPolicy", adds},
		{policyv1alpha1.GroupName, "ratelimitpolicies", "RateLimitPolicy", narrows},
		{"telemetry.istio.io", "telemetries", "Telemetry", adds},
	} {
		gvr := schema.GroupVersionResource{Group: k.group, Version: "v1", Resource: k.resource}
		if k.group == policyv1alpha1.GroupName || k.group == "gateway.networking.x-k8s.io" {
			gvr.Version = "v1alpha1"
		}
		gvk := gvr.GroupVersion().WithKind(k.kind)
		expected := &unstructured.Unstructured{}
		expected.SetGroupVersionKind(gvk)
		kinds = append(kinds, &kind{
			name: k.kind, crd: k.resource + "." + k.group, version: gvr.Version, guards: k.guards, expected: expected,
			list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return c.Resource(gvr).List(ctx, o)
			},
			watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return c.Resource(gvr).Watch(ctx, o)
			},
			trim: func(obj runtime.Object) (metav1.Object, []source.Problem) {
				return decode(obj, gvk.Kind, check)
			},
		})
	}
	return kinds
}
