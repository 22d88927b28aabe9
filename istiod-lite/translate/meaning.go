package translate

import (
	"reflect"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"google.golang.org/protobuf/proto"
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
	}
	return false
}

func sameMeta(a, b metav1.Object) bool {
	x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return x.Equal(&y) && reflect.DeepEqual(a.GetLabels(), b.GetLabels()) && reflect.DeepEqual(a.GetAnnotations(), b.GetAnnotations())
}
