package translate

import (
	"maps"
	"reflect"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"google.golang.org/protobuf/proto"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
)

// sameMeaning reports whether two versions of an object translate to the same:
// they differ in nothing or in what controllers write to their status. Either may
// be nil.
func sameMeaning(a, b metav1.Object) bool {
	switch a := a.(type) {
	case *corev1.Service:
		b, ok := b.(*corev1.Service)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *networkingv1.ServiceEntry:
		b, ok := b.(*networkingv1.ServiceEntry)
		return ok && sameMeta(a, b) && proto.Equal(&a.Spec, &b.Spec)
	case *securityv1.AuthorizationPolicy:
		b, ok := b.(*securityv1.AuthorizationPolicy)
		return ok && sameMeta(a, b) && proto.Equal(&a.Spec, &b.Spec)
	case *securityv1.PeerAuthentication:
		b, ok := b.(*securityv1.PeerAuthentication)
		return ok && sameMeta(a, b) && proto.Equal(&a.Spec, &b.Spec)
	case *securityv1.RequestAuthentication:
		b, ok := b.(*securityv1.RequestAuthentication)
		return ok && sameMeta(a, b) && proto.Equal(&a.Spec, &b.Spec)
	case *telemetryv1.Telemetry:
		b, ok := b.(*telemetryv1.Telemetry)
		return ok && sameMeta(a, b) && proto.Equal(&a.Spec, &b.Spec)
	case *gatewayv1.Gateway:
		b, ok := b.(*gatewayv1.Gateway)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(a.Status.Addresses, b.Status.Addresses) &&
			served(a) == served(b)
	case *gatewayv1.GatewayClass:
		b, ok := b.(*gatewayv1.GatewayClass)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *gatewayv1.HTTPRoute:
		b, ok := b.(*gatewayv1.HTTPRoute)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *gatewayv1.GRPCRoute:
		b, ok := b.(*gatewayv1.GRPCRoute)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *gatewayv1.TCPRoute:
		b, ok := b.(*gatewayv1.TCPRoute)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *gatewayv1.TLSRoute:
		b, ok := b.(*gatewayv1.TLSRoute)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *networkingv1.DestinationRule:
		b, ok := b.(*networkingv1.DestinationRule)
		return ok && sameMeta(a, b) && proto.Equal(&a.Spec, &b.Spec)
	case *networkingv1.VirtualService:
		b, ok := b.(*networkingv1.VirtualService)
		return ok && sameMeta(a, b) && proto.Equal(&a.Spec, &b.Spec)
	case *gatewayv1.BackendTLSPolicy:
		b, ok := b.(*gatewayv1.BackendTLSPolicy)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		b, ok := b.(*gatewayxv1alpha1.XBackendTrafficPolicy)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *policyv1alpha1.BackendPolicy:
		b, ok := b.(*policyv1alpha1.BackendPolicy)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *policyv1alpha1.FaultPolicy:
		b, ok := b.(*policyv1alpha1.FaultPolicy)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *corev1.ConfigMap:
		b, ok := b.(*corev1.ConfigMap)
		return ok && maps.Equal(a.Data, b.Data)
	case *policyv1alpha1.RateLimitPolicy:
		b, ok := b.(*policyv1alpha1.RateLimitPolicy)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	case *gatewayv1.ReferenceGrant:
		b, ok := b.(*gatewayv1.ReferenceGrant)
		return ok && sameMeta(a, b) && reflect.DeepEqual(&a.Spec, &b.Spec)
	}
	return false
}

func sameMeta(a, b metav1.Object) bool {
	x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return x.Equal(&y) && reflect.DeepEqual(a.GetLabels(), b.GetLabels()) && reflect.DeepEqual(a.GetAnnotations(), b.GetAnnotations())
}
