package translate_test

import (
	"fmt"
	"strings"
	"testing"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// drawTraffic makes an object that says how traffic goes.
func drawTraffic(t *rapid.T, ns, name string) metav1.Object {
	meta := metav1.ObjectMeta{Namespace: ns, Name: name}
	app := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "target")
	host := rapid.SampledFrom([]string{app, app + "." + rapid.SampledFrom(spaces).Draw(t, "host's namespace") + ".svc.cluster.local", app + ".example.com", "*.svc.cluster.local", "*"}).Draw(t, "host")
	to := rapid.SampledFrom([]string{app, app + ".example.com", app + ".b.svc.cluster.local"}).Draw(t, "to")
	group, kind := "", "Service"
	if rapid.IntRange(0, 3).Draw(t, "of an entry") == 0 {
		group, kind = "networking.istio.io", "ServiceEntry"
	}
	n := int32(rapid.IntRange(1, 3).Draw(t, "n"))
	switch rapid.IntRange(0, 7).Draw(t, "traffic kind") {
	case 0, 1:
		dr := &networkingv1.DestinationRule{ObjectMeta: meta, Spec: networking.DestinationRule{Host: host}}
		if rapid.Bool().Draw(t, "policy") {
			dr.Spec.TrafficPolicy = &networking.TrafficPolicy{OutlierDetection: &networking.OutlierDetection{MaxEjectionPercent: n}}
		}
		if rapid.Bool().Draw(t, "subsets") {
			dr.Spec.Subsets = []*networking.Subset{{Name: "v", Labels: map[string]string{"app": app}}}
		}
		if rapid.IntRange(0, 2).Draw(t, "hidden") == 0 {
			dr.Spec.ExportTo = []string{"."}
		}
		return dr
	case 2, 3:
		vs := &networkingv1.VirtualService{ObjectMeta: meta, Spec: networking.VirtualService{Hosts: []string{host}, Http: []*networking.HTTPRoute{{
			Route: []*networking.HTTPRouteDestination{{Destination: &networking.Destination{Host: to, Subset: "v"}}}}}}}
		if rapid.Bool().Draw(t, "of clients") {
			vs.Spec.Http[0].Match = []*networking.HTTPMatchRequest{{SourceNamespace: rapid.SampledFrom(spaces).Draw(t, "clients")}}
		}
		return vs
	case 4:
		ref := gatewayv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{
			Group: gatewayv1.Group(group), Kind: gatewayv1.Kind(kind), Name: gatewayv1.ObjectName(app)}}
		if rapid.Bool().Draw(t, "of a port") {
			section := gatewayv1.SectionName("http")
			ref.SectionName = &section
		}
		return &gatewayv1.BackendTLSPolicy{ObjectMeta: meta, Spec: gatewayv1.BackendTLSPolicySpec{
			TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{ref},
			Validation: gatewayv1.BackendTLSPolicyValidation{Hostname: gatewayv1.PreciseHostname(app + ".example.com"),
				CACertificateRefs: []gatewayv1.LocalObjectReference{{Kind: "ConfigMap", Name: "x"}}}}}
	case 5:
		return &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{source.CAKey: fmt.Sprintf("%d", n)}}
	case 6:
		count := int(n)
		return &gatewayxv1alpha1.XBackendTrafficPolicy{ObjectMeta: meta, Spec: gatewayxv1alpha1.BackendTrafficPolicySpec{
			TargetRefs:      []gatewayv1.LocalPolicyTargetReference{{Group: gatewayv1.Group(group), Kind: gatewayv1.Kind(kind), Name: gatewayv1.ObjectName(app)}},
			RetryConstraint: &gatewayxv1alpha1.RetryConstraint{MinRetryRate: &gatewayxv1alpha1.RequestRate{Count: &count}}}}
	}
	refs := []policyv1alpha1.TargetRef{{Group: group, Kind: kind, Name: app}}
	if rapid.Bool().Draw(t, "backend policy") {
		return &policyv1alpha1.BackendPolicy{ObjectMeta: meta, Spec: policyv1alpha1.BackendPolicySpec{TargetRefs: refs, CircuitBreaker: &policyv1alpha1.CircuitBreaker{MaxRequests: &n}}}
	}
	if rapid.Bool().Draw(t, "of a route") {
		refs = []policyv1alpha1.TargetRef{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Name: name}}
	}
	return &policyv1alpha1.FaultPolicy{ObjectMeta: meta, Spec: policyv1alpha1.FaultPolicySpec{TargetRefs: refs, Delay: &policyv1alpha1.FaultDelay{Duration: gatewayv1.Duration(fmt.Sprintf("%ds", n))}}}
}

func (r *routed) rule(namespace, name, host string, set func(*networking.DestinationRule)) {
	dr := &networkingv1.DestinationRule{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: networking.DestinationRule{Host: host}}
	set(&dr.Spec)
	r.store.Put(dr)
}

// translated is the mesh as a Translator has it that remembers, which a fresh one
// must have, too.
func (r *routed) translated() *translate.Mesh {
	r.t.Helper()
	r.mesh = r.translator.Translate(r.store.Objects())
	if diff := difference(r.t, translate.Translate(r.store.Objects(), translate.Options{}), r.mesh); diff != "" {
		r.t.Fatalf("the translator differs (-fresh +remembering):\n%s", diff)
	}
	return r.mesh
}

func (r *routed) destination(name string) *apiwaypoint.Destination {
	r.t.Helper()
	if res := r.translated().WaypointDestinations[name]; res != nil {
		return res.Body.(*apiwaypoint.Destination)
	}
	return nil
}

const webService = "shop/web.shop.svc.cluster.local"

// TestASubsetFollowsItsPods changes labels and pods under a subset: nothing else of
// the mesh is made anew.
func TestASubsetFollowsItsPods(t *testing.T) {
	r := newRouted(t)
	pod := func(name, version string) {
		r.store.Put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": "web", "version": version}},
			Status: corev1.PodStatus{PodIP: "10.0.1." + name[len(name)-1:], Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: "True"}}}})
	}
	want := func(what, workloads string) {
		t.Helper()
		if got := strings.Join(r.destination(webService).GetSubsets()[0].GetWorkloads(), " "); got != workloads {
			t.Fatalf("%s: %q, want %q", what, got, workloads)
		}
	}
	pod("web-1", "v1")
	r.rule("shop", "r", "web", func(dr *networking.DestinationRule) {
		dr.Subsets = []*networking.Subset{{Name: "v2", Labels: map[string]string{"version": "v2"}}}
	})
	want("no such pod", "")
	pod("web-2", "v2")
	want("a new pod", "Kubernetes//Pod/shop/web-2")
	before := r.mesh
	pod("web-1", "v2")
	want("another label", "Kubernetes//Pod/shop/web-1 Kubernetes//Pod/shop/web-2")
	if before.WaypointServices[webService] != r.mesh.WaypointServices[webService] {
		t.Error("the service was made anew")
	}
	r.store.Delete(source.Key{Kind: "Pod", Name: source.Name{Namespace: "shop", Name: "web-2"}})
	want("a pod less", "Kubernetes//Pod/shop/web-1")
	r.store.Delete(source.Key{Kind: "DestinationRule", Name: source.Name{Namespace: "shop", Name: "r"}})
	if d := r.destination(webService); d != nil {
		t.Errorf("a destination without a rule: %v", d)
	}
}

// TestADestinationRuleTouchesWhatItIsFor holds the pointers of all others.
func TestADestinationRuleTouchesWhatItIsFor(t *testing.T) {
	r := newRouted(t)
	r.service("shop", "api", 80)
	set := func(n int32) func(*networking.DestinationRule) {
		return func(dr *networking.DestinationRule) {
			dr.TrafficPolicy = &networking.TrafficPolicy{ConnectionPool: &networking.ConnectionPoolSettings{Tcp: &networking.ConnectionPoolSettings_TCPSettings{MaxConnections: n}}}
		}
	}
	r.rule("shop", "web", "web", set(1))
	r.rule("shop", "api", "api", set(1))
	before := r.translated()
	r.rule("shop", "web", "web", set(2))
	after := r.translated()
	if got := r.destination(webService).GetSettings().GetCircuit().GetConnections(); got != 2 {
		t.Errorf("%d connections", got)
	}
	for name, res := range before.WaypointDestinations {
		if same := after.WaypointDestinations[name] == res; same == (name == webService) {
			t.Errorf("%s: same pointer = %v", name, same)
		}
	}
	for name, res := range before.WaypointServices {
		if after.WaypointServices[name] != res {
			t.Errorf("the service %s was made anew", name)
		}
	}
}

// TestADestinationIsOfAllWaypointsThatSendThere has a route of another namespace's
// service lead to web.
func TestADestinationIsOfAllWaypointsThatSendThere(t *testing.T) {
	r := newRouted(t)
	max := func(n int32) func(*networking.DestinationRule) {
		return func(dr *networking.DestinationRule) {
			dr.TrafficPolicy = &networking.TrafficPolicy{OutlierDetection: &networking.OutlierDetection{MaxEjectionPercent: n}}
		}
	}
	r.rule("shop", "r", "web", max(10))
	r.store.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "away", Labels: map[string]string{source.LabelUseWaypoint: "wp"}}})
	r.store.Put(&gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "away", Name: "wp"},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "istio-waypoint", Listeners: []gatewayv1.Listener{{Name: "mesh", Port: 15008}}}})
	r.service("away", "front", 80)
	aliases := func(name string) string {
		t.Helper()
		if res := r.translated().WaypointDestinations[name]; res != nil {
			return fmt.Sprint(res.Aliases, res.Body.(*apiwaypoint.Destination).GetSettings().GetOutlier().GetMaxEjectedPercent())
		}
		return "none"
	}
	if got := aliases(webService) + aliases(webService+"/away"); got != "[waypoint/shop/wp] 10none" {
		t.Errorf("before the route: %s", got)
	}
	r.store.Put(&networkingv1.VirtualService{ObjectMeta: metav1.ObjectMeta{Namespace: "away", Name: "v"}, Spec: networking.VirtualService{Hosts: []string{"front"}, Http: []*networking.HTTPRoute{{
		Route: []*networking.HTTPRouteDestination{{Destination: &networking.Destination{Host: "web.shop.svc.cluster.local"}}}}}}})
	if got := aliases(webService) + aliases(webService+"/away"); got != "[waypoint/shop/wp] 10[waypoint/away/wp] 10" {
		t.Errorf("with the route: %s", got)
	}
	// The waypoint's namespace goes before the service's.
	r.rule("away", "r", "web.shop.svc.cluster.local", max(20))
	if got := aliases(webService) + aliases(webService+"/away"); got != "[waypoint/shop/wp] 10[waypoint/away/wp] 20" {
		t.Errorf("with a rule of its own: %s", got)
	}
	r.store.Delete(source.Key{Kind: "VirtualService", Name: source.Name{Namespace: "away", Name: "v"}})
	if got := aliases(webService) + aliases(webService+"/away"); got != "[waypoint/shop/wp] 10none" {
		t.Errorf("after the route: %s", got)
	}
}

// TestFaultsNeedTheNamespacesLeave sets and takes the label.
func TestFaultsNeedTheNamespacesLeave(t *testing.T) {
	r := newRouted(t)
	r.store.Put(&policyv1alpha1.FaultPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "slow"}, Spec: policyv1alpha1.FaultPolicySpec{
		TargetRefs: []policyv1alpha1.TargetRef{{Kind: "Service", Name: "web"}}, Delay: &policyv1alpha1.FaultDelay{Duration: "2s"}}})
	tables := func() int {
		t.Helper()
		return len(r.translated().WaypointServices[webService].Body.(*apiwaypoint.Service).GetPorts()[0].GetRoutes())
	}
	if n := tables(); n != 0 {
		t.Errorf("without the label: %d tables", n)
	}
	r.store.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{source.LabelUseWaypoint: "wp", policyv1alpha1.LabelAllowFaults: "true"}}})
	if n := tables(); n != 1 {
		t.Errorf("with the label: %d tables", n)
	}
	r.route("shop", "web")
	rule := r.translated().WaypointServices[webService].Body.(*apiwaypoint.Service).GetPorts()[0].GetRoutes()[0].GetRules()[0]
	if rule.GetRef().GetKind() != "HTTPRoute" || rule.GetFilters()[0].GetFault().GetDelay().GetDuration().GetSeconds() != 2 {
		t.Errorf("with a route: %v", rule)
	}
}
