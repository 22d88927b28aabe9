package translate_test

import (
	"testing"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// TestWhyAnObjectHasNoWaypoint asks for a Service, or a WorkloadEntry, in the
// namespace shop.
func TestWhyAnObjectHasNoWaypoint(t *testing.T) {
	from := func(from gatewayv1.FromNamespaces, team string) *gatewayv1.AllowedRoutes {
		r := &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &from}}
		if team != "" {
			r.Namespaces.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": team}}
		}
		return r
	}
	type gateway struct {
		namespace, kind, classKind string
		allowed                    *gatewayv1.AllowedRoutes
	}
	use := func(name string) map[string]string { return map[string]string{source.LabelUseWaypoint: name} }
	away := map[string]string{source.LabelUseWaypoint: "wp", source.LabelUseWaypointNamespace: "infra"}
	for _, c := range []struct {
		name           string
		own, namespace map[string]string
		pod            corev1.ConditionStatus // of a pod of the waypoint, empty for none
		bound          bool
		gateway        *gateway
		workload       bool
		reason         string // empty: none is asked for
		at             string
	}{
		{name: "nobody asks"},
		{name: "own label", own: use("wp"), gateway: &gateway{namespace: "shop"}, reason: "WaypointIsNotReady", at: "shop/wp"},
		{name: "no such gateway", own: use("wp"), reason: "WaypointIsNotReady", at: "shop/wp"},
		{name: "own label stops the namespace's", own: use("none"), namespace: use("wp"), gateway: &gateway{namespace: "shop"}},
		{name: "the namespace's label", namespace: use("wp"), gateway: &gateway{namespace: "shop"}, reason: "WaypointIsNotReady", at: "shop/wp"},
		{name: "the namespace's label names another namespace", namespace: away, gateway: &gateway{namespace: "infra", allowed: from("All", "")}, reason: "WaypointIsNotReady", at: "infra/wp"},
		{name: "another namespace's gateway keeps to itself", own: away, gateway: &gateway{namespace: "infra"}, reason: "AttachmentDenied", at: "infra/wp"},
		{name: "a selector lets in", own: away, gateway: &gateway{namespace: "infra", allowed: from("Selector", "a")}, reason: "WaypointIsNotReady", at: "infra/wp"},
		{name: "a selector keeps out", own: away, gateway: &gateway{namespace: "infra", allowed: from("Selector", "b")}, reason: "AttachmentDenied", at: "infra/wp"},
		{name: "a service at a waypoint for workloads", own: use("wp"), gateway: &gateway{namespace: "shop", kind: "workload"}, reason: "UnsupportedTrafficType", at: "shop/wp"},
		{name: "the gateway's kind goes before its class's", own: use("wp"), gateway: &gateway{namespace: "shop", kind: "all", classKind: "workload"}, reason: "WaypointIsNotReady", at: "shop/wp"},
		{name: "the class's kind", own: use("wp"), gateway: &gateway{namespace: "shop", classKind: "workload"}, reason: "UnsupportedTrafficType", at: "shop/wp"},
		{name: "for nobody", own: use("wp"), gateway: &gateway{namespace: "shop", kind: "none"}, reason: "UnsupportedTrafficType", at: "shop/wp"},
		{name: "a workload at a waypoint for services", own: use("wp"), workload: true, gateway: &gateway{namespace: "shop"}, reason: "UnsupportedTrafficType", at: "shop/wp"},
		{name: "a workload in a namespace with a waypoint for services", namespace: use("wp"), workload: true, gateway: &gateway{namespace: "shop"}},
		{name: "a workload at a waypoint for all", own: use("wp"), workload: true, gateway: &gateway{namespace: "shop", kind: "all"}, reason: "WaypointIsNotReady", at: "shop/wp"},
		{name: "a pod that is not ready", own: use("wp"), pod: "False", gateway: &gateway{namespace: "shop"}, reason: "WaypointIsNotReady", at: "shop/wp"},
		{name: "a ready pod", own: use("wp"), pod: "True", gateway: &gateway{namespace: "shop"}, reason: "WaypointAccepted", bound: true, at: "shop/wp"},
		{name: "a ready pod elsewhere", namespace: away, pod: "True", gateway: &gateway{namespace: "infra", allowed: from("Selector", "a")}, reason: "WaypointAccepted", bound: true, at: "infra/wp"},
		{name: "a workload behind a ready waypoint for all", own: use("wp"), workload: true, pod: "True", gateway: &gateway{namespace: "shop", kind: "all"}, reason: "WaypointAccepted", bound: true, at: "shop/wp"},
		{name: "a workload in a namespace with a waypoint for workloads", namespace: use("wp"), workload: true, pod: "True", gateway: &gateway{namespace: "shop", kind: "workload"}, reason: "WaypointAccepted", bound: true, at: "shop/wp"},
		{name: "what was made for a gateway", own: map[string]string{source.LabelUseWaypoint: "wp", source.LabelGatewayManaged: "istio.io-mesh-controller"}, gateway: &gateway{namespace: "shop"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := source.NewStore()
			labels := map[string]string{"team": "a"}
			for k, v := range c.namespace {
				labels[k] = v
			}
			store.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: labels}})
			if g := c.gateway; g != nil {
				gw := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: g.namespace, Name: "wp", Labels: map[string]string{source.LabelWaypointFor: g.kind}},
					Spec: gatewayv1.GatewaySpec{GatewayClassName: "istio-waypoint", Listeners: []gatewayv1.Listener{{Name: "mesh", Port: 15008, AllowedRoutes: g.allowed}}}}
				store.Put(gw)
				store.Put(&gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "istio-waypoint", Labels: map[string]string{source.LabelWaypointFor: g.classKind}},
					Spec: gatewayv1.GatewayClassSpec{ControllerName: "istio.io/mesh-controller"}})
			}
			if c.pod != "" {
				labels := map[string]string{"gateway": "wp"}
				store.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: c.gateway.namespace, Name: "wp"}, Spec: corev1.ServiceSpec{Selector: labels}})
				store.Put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.gateway.namespace, Name: "wp-1", Labels: labels}, Spec: corev1.PodSpec{ServiceAccountName: "wp"},
					Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: c.pod}}}})
			}
			meta := metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: c.own}
			var obj metav1.Object = &corev1.Service{ObjectMeta: meta}
			if c.workload {
				obj = &networkingv1.WorkloadEntry{ObjectMeta: meta, Spec: networking.WorkloadEntry{Address: "10.0.0.1"}}
			}
			got, asked := translate.WaypointsOf(store.Objects(), translate.Options{}).Of(obj)
			if asked != (c.reason != "") || got.Bound != c.bound || got.Reason != c.reason || (asked && got.Gateway.String() != c.at) {
				t.Errorf("got %+v, asked %v; want %q at %s", got, asked, c.reason, c.at)
			}
			if asked && got.Message == "" {
				t.Error("without a message")
			}
		})
	}
}
