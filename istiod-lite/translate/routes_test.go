package translate_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// routed is a mesh of one service behind a waypoint, changed step by step.
type routed struct {
	t          *testing.T
	store      *source.Store
	translator *translate.Translator
	mesh       *translate.Mesh
}

func newRouted(t *testing.T) *routed {
	r := &routed{t: t, store: source.NewStore(), translator: translate.New(translate.Options{})}
	r.store.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{source.LabelUseWaypoint: "wp"}}})
	r.store.Put(&gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "wp"},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "istio-waypoint", Listeners: []gatewayv1.Listener{{Name: "mesh", Port: 15008}}}})
	r.service("shop", "wp", 15008)
	r.service("shop", "web", 80)
	r.pod("wp-1", "True")
	return r
}

func (r *routed) service(namespace, name string, port int32) {
	r.store.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": name}, ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "http", Port: port}}}})
}

func (r *routed) pod(name string, ready corev1.ConditionStatus) {
	r.store.Put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": "wp"}}, Spec: corev1.PodSpec{ServiceAccountName: "wp"},
		Status: corev1.PodStatus{PodIP: "10.0.0." + name[len(name)-1:], Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}}})
}

// route sends what is for web to a service of another namespace.
func (r *routed) route(namespace, backend string) {
	group, kind, to, port, at := gatewayv1.Group(""), gatewayv1.Kind("Service"), gatewayv1.Namespace("away"), gatewayv1.PortNumber(80), gatewayv1.Namespace("shop")
	r.store.Put(&gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "r"}, Spec: gatewayv1.HTTPRouteSpec{
		CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Group: &group, Kind: &kind, Namespace: &at, Name: "web"}}},
		Rules: []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
			BackendObjectReference: gatewayv1.BackendObjectReference{Name: gatewayv1.ObjectName(backend), Namespace: &to, Port: &port}}}}}}}})
}

func (r *routed) grant(namespace string) {
	r.store.Put(&gatewayv1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: "away", Name: "g"}, Spec: gatewayv1.ReferenceGrantSpec{
		From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: gatewayv1.Namespace(namespace)}},
		To:   []gatewayv1.ReferenceGrantTo{{Kind: "Service"}}}})
}

// backend returns where the first rule of web leads, or why nowhere.
func (r *routed) backend() string {
	r.t.Helper()
	r.mesh = r.translator.Translate(r.store.Objects())
	fresh := translate.Translate(r.store.Objects(), translate.Options{})
	if diff := difference(r.t, fresh, r.mesh); diff != "" {
		r.t.Fatalf("the translator differs (-fresh +remembering):\n%s", diff)
	}
	res := r.mesh.WaypointServices["shop/web.shop.svc.cluster.local"]
	if res == nil {
		return "no service"
	}
	tables := res.Body.(*apiwaypoint.Service).GetPorts()[0].GetRoutes()
	if len(tables) == 0 {
		return "no table"
	}
	b := tables[0].GetRules()[0].GetBackends()[0]
	return tables[0].GetClientNamespace() + ":" + b.GetService() + b.GetFault()
}

// TestARouteFollowsWhatItLeadsTo changes what a route depends on in other
// namespaces, one thing at a time.
func TestARouteFollowsWhatItLeadsTo(t *testing.T) {
	r := newRouted(t)
	want := func(what, part string) {
		t.Helper()
		if got := r.backend(); !strings.Contains(got, part) {
			t.Fatalf("%s: %q, want %q", what, got, part)
		}
	}
	want("no route", "no table")
	r.route("shop", "v2")
	want("nothing else", ":no ReferenceGrant")
	r.grant("shop")
	want("granted", ":Service away/v2 does not exist")
	r.service("away", "v2", 81)
	want("another port", ":Service away/v2 has no TCP port 80")
	r.service("away", "v2", 80)
	want("all there", ":away/v2.away.svc.cluster.local")
	r.store.Delete(source.Key{Kind: "Service", Name: source.Name{Namespace: "away", Name: "v2"}})
	want("gone", ":Service away/v2 does not exist")
	r.service("away", "v2", 80)
	r.grant("other")
	want("granted to others", ":no ReferenceGrant")
	r.store.Delete(source.Key{Kind: "HTTPRoute", Name: source.Name{Namespace: "shop", Name: "r"}})
	want("no route again", "no table")
	r.route("other", "v2")
	want("of a client's namespace", "other:away/v2")
	r.store.Delete(source.Key{Kind: "Gateway", Name: source.Name{Namespace: "shop", Name: "wp"}})
	want("no waypoint", "no service")
}

// TestAWaypointsPodsComeAndGoUnnoticed holds the pointers of what a rollout of a
// waypoint must not make anew.
func TestAWaypointsPodsComeAndGoUnnoticed(t *testing.T) {
	r := newRouted(t)
	r.route("shop", "v2")
	r.backend()
	before := r.mesh
	r.pod("wp-2", "False")
	r.backend()
	r.pod("wp-2", "True")
	r.backend()
	r.store.Delete(source.Key{Kind: "Pod", Name: source.Name{Namespace: "shop", Name: "wp-1"}})
	r.backend()
	for name, res := range before.WaypointServices {
		if r.mesh.WaypointServices[name] != res {
			t.Errorf("%s was made anew", name)
		}
	}
	if web := "shop/web.shop.svc.cluster.local"; before.Addresses[web] != r.mesh.Addresses[web] {
		t.Error("the service was made anew")
	}
}

// BenchmarkOneChangedRouteOf5000 is the path of a changed route: the mark is that
// it does not look at the others.
func BenchmarkOneChangedRouteOf5000(b *testing.B) {
	store := source.NewStore()
	store.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{source.LabelUseWaypoint: "wp"}}})
	store.Put(&gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "wp"},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "istio-waypoint", Listeners: []gatewayv1.Listener{{Name: "mesh", Port: 15008}}}})
	group, kind, port := gatewayv1.Group(""), gatewayv1.Kind("Service"), gatewayv1.PortNumber(80)
	put := func(i, weight int32) {
		name := gatewayv1.ObjectName(fmt.Sprintf("s-%d", i))
		store.Put(&gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: string(name)}, Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Group: &group, Kind: &kind, Name: name}}},
			Rules: []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{Weight: &weight,
				BackendObjectReference: gatewayv1.BackendObjectReference{Name: name, Port: &port}}}}}}}})
	}
	for i := range int32(5000) {
		store.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("s-%d", i)},
			Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}})
		put(i, 1)
	}
	translator := translate.New(translate.Options{})
	translator.Translate(store.Objects())
	b.ReportAllocs()
	for n := int32(0); b.Loop(); n++ {
		put(n%5000, n+2)
		translator.Translate(store.Objects())
	}
}
