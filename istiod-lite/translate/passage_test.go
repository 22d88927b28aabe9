package translate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

const webPod = "Kubernetes//Pod/shop/web"

// passageMesh is the mesh of handover with a waypoint for kind, whose pod is ready or
// not or missing.
func passageMesh(t *testing.T, kind, pod, policy string) *translate.Mesh {
	t.Helper()
	text := strings.Replace(handover, "metadata: {name: wp, namespace: shop}\nspec: {gatewayClassName", "metadata: {name: wp, namespace: shop, labels: {istio.io/waypoint-for: "+kind+"}}\nspec: {gatewayClassName", 1)
	if pod != "" {
		text += fmt.Sprintf(handoverPod, pod)
	}
	if policy != "" {
		text += "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n" + policy
	}
	objects, problems := file.Decode("mesh.yaml", []byte(text), source.Checker{RootNamespace: "istio-system"})
	for _, p := range problems {
		t.Fatal(p.Error())
	}
	return translate.Translate(objects, translate.Options{})
}

// TestAWaypointOfAWorkloadEnforcesWhatNodeProxiesLeaveToIt: whatever a node proxy lets
// pass because it comes from the waypoint is decided on there, and all else as before.
func TestAWaypointOfAWorkloadEnforcesWhatNodeProxiesLeaveToIt(t *testing.T) {
	const front, guest = "rules: [{from: [{source: {namespaces: [front]}}]}]", "action: DENY, rules: [{from: [{source: {notNamespaces: [front]}}]}]"
	for name, c := range map[string]struct {
		policy string
		// trusted says that node proxies let pass what the waypoint sends.
		trusted bool
	}{
		"allow at the gateway":   {"metadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}], " + front + "}", true},
		"deny at the gateway":    {"metadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}], " + guest + "}", true},
		"allow at the class":     {"metadata: {name: p, namespace: istio-system}\nspec: {targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}], " + front + "}", true},
		"deny at the class":      {"metadata: {name: p, namespace: istio-system}\nspec: {targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}], " + guest + "}", true},
		"allow in the namespace": {"metadata: {name: p, namespace: shop}\nspec: {" + front + "}", true},
		"deny in the namespace":  {"metadata: {name: p, namespace: shop}\nspec: {" + guest + "}", true},
		"allow in the mesh":      {"metadata: {name: p, namespace: istio-system}\nspec: {" + front + "}", true},
		"deny in the mesh":       {"metadata: {name: p, namespace: istio-system}\nspec: {" + guest + "}", false},
		"allow at the service":   {"metadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Service, group: \"\", name: web}], " + front + "}", true},
		"deny at the service":    {"metadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Service, group: \"\", name: web}], " + guest + "}", true},
		"allow at the pod":       {"metadata: {name: p, namespace: shop}\nspec: {selector: {matchLabels: {app: web}}, " + front + "}", true},
		"deny at the pod":        {"metadata: {name: p, namespace: shop}\nspec: {selector: {matchLabels: {app: web}}, " + guest + "}", true},
	} {
		for _, kind := range []string{"workload", "all"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				missing, starting, ready := passageMesh(t, kind, "", c.policy), passageMesh(t, kind, "False", c.policy), passageMesh(t, kind, "True", c.policy)
				for stage, m := range map[string]*translate.Mesh{"missing": missing, "starting": starting, "ready": ready} {
					for who, want := range map[string]bool{"guest/sa/guest": false, "": false, "other/sa/wp": false, "front/sa/front": true} {
						if err := decide(t, m, m, "web", who); (err == nil) != want {
							t.Errorf("%s: %q: %v", stage, who, err)
						}
					}
					w := m.Addresses[webPod].Body.(*apiworkload.Address).GetWorkload()
					if (w.GetWaypoint() != nil) != (stage == "ready") {
						t.Errorf("%s: waypoint %v", stage, w.GetWaypoint())
					}
					r := m.WaypointServices[webPod]
					if r == nil || !slices.Equal(r.Aliases, []string{"waypoint/shop/wp"}) {
						t.Fatalf("%s: the waypoint is told %+v", stage, r)
					}
					s := r.Body.(*apiwaypoint.Service)
					if len(s.GetPolicies()) != 1 || m.WaypointPolicies[s.GetPolicies()[0]] == nil || s.GetHostname() != "" || s.GetName() != "" || s.GetWorkload() != webPod {
						t.Errorf("%s: the waypoint is told %v", stage, s)
					}
					if stage == "missing" {
						continue
					}
					if err := decide(t, m, m, "web", "shop/sa/wp"); (err == nil) != c.trusted {
						t.Errorf("%s: the waypoint: %v", stage, err)
					}
				}
			})
		}
	}
}

// TestOnlyWaypointsForWorkloadsHaveThem: original addressing decides.
func TestOnlyWaypointsForWorkloadsHaveThem(t *testing.T) {
	for kind, want := range map[string]struct{ service, workload bool }{
		"service": {true, false}, "workload": {false, true}, "all": {true, true}, "none": {},
	} {
		m := passageMesh(t, kind, "True", "")
		service := m.Addresses["shop/web.shop.svc.cluster.local"].Body.(*apiworkload.Address).GetService().GetWaypoint() != nil
		workload := m.Addresses[webPod].Body.(*apiworkload.Address).GetWorkload().GetWaypoint() != nil
		if service != want.service || workload != want.workload || (m.WaypointServices[webPod] != nil) != want.workload {
			t.Errorf("%s: service %v, workload %v", kind, service, workload)
		}
		own := "Kubernetes//Pod/shop/wp-1"
		if m.Addresses[own].Body.(*apiworkload.Address).GetWorkload().GetWaypoint() != nil || m.WaypointServices[own] != nil {
			t.Errorf("%s: the waypoint's pod has a waypoint", kind)
		}
	}
}

// TestAPodBehindAWaypointTouchesNothingElse: one more pod behind it, and one less, change
// what is about that pod alone.
func TestAPodBehindAWaypointTouchesNothingElse(t *testing.T) {
	const policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n" +
		"spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}], action: DENY, rules: [{from: [{source: {namespaces: [guest]}}]}]}\n"
	const more = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: more, namespace: shop, labels: {app: web}}\nspec: {nodeName: n1}\n" +
		"status: {podIP: 10.0.0.3, conditions: [{type: Ready, status: \"True\"}]}\n"
	text := strings.Replace(handover, "metadata: {name: wp, namespace: shop}\nspec: {gatewayClassName", "metadata: {name: wp, namespace: shop, labels: {istio.io/waypoint-for: all}}\nspec: {gatewayClassName", 1) +
		fmt.Sprintf(handoverPod, "True") + policy
	translator := translate.New(translate.Options{})
	var before *translate.Mesh
	for i, text := range []string{text, text + more, text} {
		objects, problems := file.Decode("mesh.yaml", []byte(text), source.Checker{RootNamespace: "istio-system"})
		for _, p := range problems {
			t.Fatal(p.Error())
		}
		mesh := translator.Translate(objects)
		if changed, ok := mesh.Changes(before); i > 0 {
			want := translate.Changed{Addresses: []string{"Kubernetes//Pod/shop/more"}, WaypointServices: []string{"Kubernetes//Pod/shop/more"}}
			if diff := cmp.Diff(want, changed, cmpopts.EquateEmpty()); !ok || diff != "" {
				t.Errorf("step %d (-want +got):\n%s", i, diff)
			}
		}
		before = mesh
	}
}
