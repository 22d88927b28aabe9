package status_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/istiod-lite/source/kube"
	"github.com/tulle-mesh/tulle/istiod-lite/status"
)

// bound is how long a test waits for what must happen; reaching it fails.
const bound = 60 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a namespace of a real API server with a Writer at work.
type world struct {
	t      *testing.T
	client dynamic.Interface
	ns     string
	source *kube.Source
	reg    *prometheus.Registry
}

func newWorld(t *testing.T) *world {
	t.Helper()
	api := kubetest.Shared(t, kubetest.Options{})
	w := &world{t: t, ns: api.Namespace(t, nil), reg: prometheus.NewRegistry()}
	var err error
	w.client, err = dynamic.NewForConfig(api.Config)
	must(t, err)
	w.source, err = kube.New(kube.Config{REST: api.Config, RootNamespace: "istio-system", Logger: zaptest.NewLogger(t)})
	must(t, err)
	writer, err := status.New(status.Config{Client: w.client, Decider: status.Decider{Problems: w.source.Problems}, Logger: zaptest.NewLogger(t), Registerer: w.reg})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 3)
	go func() { _ = w.source.Run(ctx); done <- struct{}{} }()
	go func() { writer.Run(ctx); done <- struct{}{} }()
	go func() { // the pipeline's part
		defer func() { done <- struct{}{} }()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.source.Changed():
				writer.Observe(w.source.Objects())
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			<-done
		}
	})
	return w
}

var resources = map[string]schema.GroupVersionResource{
	"Service":             {Version: "v1", Resource: "services"},
	"Pod":                 {Version: "v1", Resource: "pods"},
	"ServiceEntry":        {Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"},
	"WorkloadEntry":       {Group: "networking.istio.io", Version: "v1", Resource: "workloadentries"},
	"AuthorizationPolicy": {Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"},
	"Gateway":             {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"},
	"GatewayClass":        {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"},
	"HTTPRoute":           {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
	"GRPCRoute":           {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "grpcroutes"},
	"ConfigMap":           {Version: "v1", Resource: "configmaps"},
	"DestinationRule":     {Group: "networking.istio.io", Version: "v1", Resource: "destinationrules"},
	"VirtualService":      {Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"},
	"Telemetry":           {Group: "telemetry.istio.io", Version: "v1", Resource: "telemetries"},
	"BackendTLSPolicy":    {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "backendtlspolicies"},
	"FaultPolicy":         {Group: "policy.tulle.dev", Version: "v1alpha1", Resource: "faultpolicies"},
	"BackendPolicy":       {Group: "policy.tulle.dev", Version: "v1alpha1", Resource: "backendpolicies"},
	"RateLimitPolicy":     {Group: "policy.tulle.dev", Version: "v1alpha1", Resource: "ratelimitpolicies"},
}

func (w *world) at(kind string) dynamic.ResourceInterface {
	if kind == "GatewayClass" {
		return w.client.Resource(resources[kind])
	}
	return w.client.Resource(resources[kind]).Namespace(w.ns)
}

// put creates an object from YAML.
func (w *world) put(text string) *unstructured.Unstructured {
	w.t.Helper()
	o := &unstructured.Unstructured{}
	must(w.t, yaml.Unmarshal([]byte(text), &o.Object))
	o, err := w.at(o.GetKind()).Create(w.t.Context(), o, metav1.CreateOptions{})
	must(w.t, err)
	return o
}

func (w *world) patch(kind, name, text string, subresource ...string) {
	w.t.Helper()
	_, err := w.at(kind).Patch(w.t.Context(), name, types.MergePatchType, []byte(text), metav1.PatchOptions{FieldManager: "test"}, subresource...)
	must(w.t, err)
}

// condition is one as it stands in an object.
type condition struct {
	Type, Status, Reason, Message string
	ObservedGeneration            json.Number
	LastTransitionTime            string
}

func (w *world) status(kind, name string) (s struct {
	Conditions []condition
	Listeners  []struct {
		Name       string
		Conditions []condition
	}
	Parents []struct {
		ControllerName string
		ParentRef      struct{ Name string }
		Conditions     []condition
	}
}, version string) {
	w.t.Helper()
	o, err := w.at(kind).Get(w.t.Context(), name, metav1.GetOptions{})
	must(w.t, err)
	text, err := json.Marshal(o.Object["status"])
	must(w.t, err)
	must(w.t, json.Unmarshal(text, &s))
	return s, o.GetResourceVersion()
}

// await returns the condition once it has the reason, "" meaning that it is gone.
func (w *world) await(kind, name, conditionType, reason string) condition {
	w.t.Helper()
	end := time.Now().Add(bound)
	for {
		s, _ := w.status(kind, name)
		var found condition
		for _, c := range s.Conditions {
			if c.Type == conditionType {
				found = c
			}
		}
		if found.Reason == reason {
			return found
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s %s: %s has the reason %q, want %q: %+v", kind, name, conditionType, found.Reason, reason, s)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) writes(kind, result string) float64 {
	families, err := w.reg.Gather()
	must(w.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["kind"] == kind && labels["result"] == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

const service = `{apiVersion: v1, kind: Service, metadata: {name: %s, labels: %s}, spec: {ports: [{port: 80}]}}`

func TestAServiceIsToldOfItsWaypoint(t *testing.T) {
	w := newWorld(t)
	w.put(fmt.Sprintf(service, "plain", "{}"))
	w.put(fmt.Sprintf(service, "web", "{istio.io/use-waypoint: wp}"))
	// Another controller's condition is there first.
	w.patch("Service", "web", `{"status":{"conditions":[{"type":"Other","status":"True","reason":"Fine","message":"m","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, "status")
	c := w.await("Service", "web", "istio.io/WaypointBound", "WaypointIsNotReady")
	if c.Status != "False" || !strings.Contains(c.Message, "does not exist") || c.LastTransitionTime == "" {
		t.Errorf("%+v", c)
	}
	w.await("Service", "web", "Other", "Fine")
	if s, _ := w.status("Service", "plain"); len(s.Conditions) != 0 {
		t.Errorf("a service that asks for no waypoint has %+v", s)
	}

	// Another reason, the same status: the time of the transition stays.
	w.put(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: wp, labels: {istio.io/waypoint-for: workload}},
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}`)
	again := w.await("Service", "web", "istio.io/WaypointBound", "UnsupportedTrafficType")
	if again.LastTransitionTime != c.LastTransitionTime {
		t.Errorf("the transition moved from %s to %s without one", c.LastTransitionTime, again.LastTransitionTime)
	}
	// The Gateway itself says that nothing listens.
	if c := w.await("Gateway", "wp", "Accepted", "Accepted"); c.Status != "True" || c.ObservedGeneration != "1" {
		t.Errorf("%+v", c)
	}
	if c := w.await("Gateway", "wp", "Programmed", "Pending"); c.Status != "False" || !strings.Contains(c.Message, "No pod") || c.ObservedGeneration != "1" {
		t.Errorf("%+v", c)
	}
	if s, _ := w.status("Gateway", "wp"); len(s.Listeners) != 1 || s.Listeners[0].Name != "mesh" || len(s.Listeners[0].Conditions) != 3 {
		t.Errorf("listeners %+v", s.Listeners)
	}

	// Asked for no more, said no more.
	w.patch("Service", "web", `{"metadata":{"labels":{"istio.io/use-waypoint":null}}}`)
	w.await("Service", "web", "istio.io/WaypointBound", "")
	w.await("Service", "web", "Other", "Fine")
}

// TestAWaypointThatHasServedStaysTheOnlyWay has the only pod of a waypoint become
// ready and go.
func TestAWaypointThatHasServedStaysTheOnlyWay(t *testing.T) {
	w := newWorld(t)
	w.put(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: wp},
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}`)
	w.put(`{apiVersion: v1, kind: Service, metadata: {name: wp}, spec: {selector: {app: wp}, ports: [{port: 15008}]}}`)
	w.put(fmt.Sprintf(service, "web", "{istio.io/use-waypoint: wp}"))
	w.put(`{apiVersion: v1, kind: Pod, metadata: {name: wp-1, labels: {app: wp}}, spec: {serviceAccountName: wp, containers: [{name: c, image: i}]}}`)
	w.await("Gateway", "wp", "Accepted", "Accepted")
	w.await("Service", "web", "istio.io/WaypointBound", "WaypointIsNotReady")
	w.patch("Pod", "wp-1", `{"status":{"podIP":"10.0.0.9","conditions":[{"type":"Ready","status":"True"}]}}`, "status")
	w.await("Gateway", "wp", "Programmed", "Programmed")
	first := w.await("Gateway", "wp", "waypoint.tulle.dev/Serving", "Serving")
	w.await("Service", "web", "istio.io/WaypointBound", "WaypointAccepted")

	now := int64(0)
	must(t, w.at("Pod").Delete(t.Context(), "wp-1", metav1.DeleteOptions{GracePeriodSeconds: &now}))
	if c := w.await("Gateway", "wp", "Programmed", "Pending"); c.Status != "False" || !strings.Contains(c.Message, "refused") {
		t.Errorf("%+v", c)
	}
	if c := w.await("Gateway", "wp", "waypoint.tulle.dev/Serving", "Serving"); c != first {
		t.Errorf("the condition changed from %+v to %+v", first, c)
	}
	w.await("Service", "web", "istio.io/WaypointBound", "WaypointAccepted")
}

func TestAPolicyIsToldWhoEnforcesIt(t *testing.T) {
	w := newWorld(t)
	policy := `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: %s}, spec: %s}`
	w.put(fmt.Sprintf(policy, "l4", `{action: DENY, rules: [{from: [{source: {namespaces: [other]}}]}]}`))
	w.put(fmt.Sprintf(policy, "l7", `{action: ALLOW, rules: [{to: [{operation: {methods: [GET], paths: ["/x"]}}]}]}`))
	w.put(fmt.Sprintf(policy, "custom", `{action: CUSTOM, provider: {name: x}, rules: [{}]}`))
	w.put(fmt.Sprintf(policy, "odd", `{action: ALLOW, rules: [{from: [{source: {principals: ["spiffe://a/b"]}}]}]}`))
	w.put(fmt.Sprintf(policy, "lost", `{targetRefs: [{kind: Service, group: "", name: nowhere}]}`))
	w.put(fmt.Sprintf(service, "web", "{}"))
	w.put(fmt.Sprintf(policy, "bound", `{targetRefs: [{kind: Service, group: "", name: web}]}`))
	if c := w.await("AuthorizationPolicy", "l4", "ZtunnelAccepted", "Accepted"); c.Status != "True" || c.ObservedGeneration != "1" {
		t.Errorf("%+v", c)
	}
	if c := w.await("AuthorizationPolicy", "l7", "ZtunnelAccepted", "UnsupportedValue"); c.Status != "False" || !strings.Contains(c.Message, "methods, paths") {
		t.Errorf("%+v", c)
	}
	w.await("AuthorizationPolicy", "custom", "ZtunnelAccepted", "UnsupportedValue")
	if c := w.await("AuthorizationPolicy", "odd", "ZtunnelAccepted", "UnsupportedValue"); !strings.Contains(c.Message, "principals") {
		t.Errorf("what the source did not understand is not told: %+v", c)
	}
	w.await("AuthorizationPolicy", "lost", "WaypointAccepted", "TargetNotFound")
	w.await("AuthorizationPolicy", "bound", "WaypointAccepted", "AncestorNotBound")

	// Istio's list is not merged by the API: others' conditions stay all the
	// same, and a new generation is told of.
	w.patch("AuthorizationPolicy", "l4", `{"status":{"conditions":[{"type":"Other","status":"True","reason":"Fine"},{"type":"ZtunnelAccepted","status":"True","reason":"Accepted"}]}}`, "status")
	w.patch("AuthorizationPolicy", "l4", `{"spec":{"rules":[{"to":[{"operation":{"hosts":["a"]}}]}]}}`)
	if c := w.await("AuthorizationPolicy", "l4", "ZtunnelAccepted", "UnsupportedValue"); c.ObservedGeneration != "2" {
		t.Errorf("%+v", c)
	}
	w.await("AuthorizationPolicy", "l4", "Other", "Fine")
	// Bound to a target, it is the other condition's.
	w.patch("AuthorizationPolicy", "l4", `{"spec":{"rules":null,"targetRefs":[{"kind":"Service","group":"","name":"web"}]}}`)
	w.await("AuthorizationPolicy", "l4", "WaypointAccepted", "AncestorNotBound")
	w.await("AuthorizationPolicy", "l4", "ZtunnelAccepted", "")
}

func TestEntriesAreToldWhatTheyAre(t *testing.T) {
	w := newWorld(t)
	w.put(`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: wild}, spec: {hosts: ["*.example.com"], exportTo: ["."], resolution: NONE, ports: [{number: 443, name: tls, protocol: TLS}]}}`)
	w.put(`{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm, labels: {istio.io/use-waypoint: wp}}, spec: {address: 192.0.2.1}}`)
	if c := w.await("ServiceEntry", "wild", "istio.io/VisibilityApplied", "Public"); !strings.Contains(c.Message, "exportTo") {
		t.Errorf("%+v", c)
	}
	w.await("ServiceEntry", "wild", "istio.io/WaypointMissing", "NoWaypointForWildcardService")
	w.await("WorkloadEntry", "vm", "istio.io/WaypointBound", "WaypointIsNotReady")
}

func TestARouteIsToldThatItHasNoEffect(t *testing.T) {
	w := newWorld(t)
	w.put(fmt.Sprintf(service, "web", "{}"))
	w.put(`{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: ` + w.ns + `}, spec: {controllerName: istio.io/mesh-controller}}`)
	w.put(`{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: ` + w.ns + `-other}, spec: {controllerName: example.com/other}}`)
	w.put(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: theirs}, spec: {gatewayClassName: ` + w.ns + `-other, listeners: [{name: http, port: 80, protocol: HTTP}]}}`)
	w.put(`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {
parentRefs: [{kind: Service, group: "", name: web}, {kind: Service, group: "", name: nowhere}, {name: theirs}],
rules: [{backendRefs: [{name: web, port: 80}]}]}}`)
	w.put(`{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: g}, spec: {
parentRefs: [{kind: Service, group: "", name: web}], rules: [{backendRefs: [{name: nowhere, port: 80}]}]}}`)
	w.patch("HTTPRoute", "r", `{"status":{"parents":[{"parentRef":{"name":"theirs"},"controllerName":"example.com/other","conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}]}}`, "status")
	if c := w.await("GatewayClass", w.ns, "Accepted", "Accepted"); c.Status != "True" {
		t.Errorf("%+v", c)
	}
	reasons := func(kind, name string) map[string]string {
		s, _ := w.status(kind, name)
		got := map[string]string{}
		for _, p := range s.Parents {
			for _, c := range p.Conditions {
				got[p.ControllerName+" "+p.ParentRef.Name+" "+c.Type] = c.Status + " " + c.Reason
			}
		}
		return got
	}
	const mesh = "istio.io/mesh-controller"
	for kind, want := range map[string]map[string]string{
		"HTTPRoute": {
			"example.com/other theirs Accepted": "True Accepted",
			mesh + " web Accepted":              "False Pending",
			mesh + " web ResolvedRefs":          "True ResolvedRefs",
			mesh + " web ResolvedWaypoints":     "False NoWaypoint",
			mesh + " nowhere Accepted":          "False NoMatchingParent",
			mesh + " nowhere ResolvedRefs":      "True ResolvedRefs",
		},
		"GRPCRoute": {
			mesh + " web Accepted":          "False Pending",
			mesh + " web ResolvedRefs":      "False BackendNotFound",
			mesh + " web ResolvedWaypoints": "False NoWaypoint",
		},
	} {
		name := strings.ToLower(kind[:1])
		if kind == "HTTPRoute" {
			name = "r"
		}
		end := time.Now().Add(bound)
		for got := reasons(kind, name); fmt.Sprint(got) != fmt.Sprint(want); got = reasons(kind, name) {
			if time.Now().After(end) {
				t.Fatalf("%s: %v, want %v", kind, got, want)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if s, _ := w.status("Gateway", "theirs"); strings.Contains(fmt.Sprint(s), "no waypoints") {
		t.Errorf("another controller's Gateway was written to: %+v", s)
	}
	// A parent that goes takes its entry along.
	w.patch("HTTPRoute", "r", `{"spec":{"parentRefs":[{"name":"theirs"}]}}`)
	end := time.Now().Add(bound)
	for len(reasons("HTTPRoute", "r")) != 1 {
		if time.Now().After(end) {
			t.Fatalf("entries are left: %v", reasons("HTTPRoute", "r"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestAConditionIsWrittenOnce counts writes over changes that alter nothing of
// what is to be said, and against somebody who keeps changing it.
func TestAConditionIsWrittenOnce(t *testing.T) {
	w := newWorld(t)
	w.put(fmt.Sprintf(service, "web", "{istio.io/use-waypoint: wp}"))
	first := w.await("Service", "web", "istio.io/WaypointBound", "WaypointIsNotReady")
	for i := range 3 {
		w.patch("Service", "web", fmt.Sprintf(`{"metadata":{"labels":{"round":"%d"}}}`, i))
		w.put(fmt.Sprintf(service, fmt.Sprintf("marker-%d", i), "{istio.io/use-waypoint: wp}"))
		// The marker's condition comes of a later look at all services.
		w.await("Service", fmt.Sprintf("marker-%d", i), "istio.io/WaypointBound", "WaypointIsNotReady")
	}
	if n := w.writes("Service", "ok"); n != 4 {
		t.Errorf("%v writes, want one for each of four services", n)
	}
	if c := w.await("Service", "web", "istio.io/WaypointBound", "WaypointIsNotReady"); c != first {
		t.Errorf("the condition changed from %+v to %+v", first, c)
	}

	// Somebody changes it once: it comes back, not at once.
	w.patch("Service", "web", `{"status":{"conditions":[]}}`, "status")
	w.await("Service", "web", "istio.io/WaypointBound", "WaypointIsNotReady")
	before := w.writes("Service", "ok")
	stop := time.Now().Add(3 * time.Second)
	for time.Now().Before(stop) {
		w.patch("Service", "web", `{"status":{"conditions":[]}}`, "status")
		time.Sleep(50 * time.Millisecond)
	}
	if n := w.writes("Service", "ok") - before; n > 2 {
		t.Errorf("%v writes within seconds against somebody who takes the condition away", n)
	}
}
