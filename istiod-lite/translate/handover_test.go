package translate_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	apisecurity "github.com/tulle-mesh/tulle/api/security"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// handover is a mesh with a waypoint and one policy of each test.
const handover = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: wp}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: wp}, ports: [{port: 15008}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {nodeName: n1, serviceAccountName: web}
status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: alone, namespace: shop, labels: {app: alone}}
spec: {nodeName: n1}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: "True"}]}
---
# another namespace's waypoint, which stands as well
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: other}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: other, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.96.1.9, selector: {app: wp}, ports: [{port: 15008}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.96.1.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wp, namespace: other, labels: {app: wp}}
spec: {nodeName: n1, serviceAccountName: wp}
status: {podIP: 10.0.1.9, conditions: [{type: Ready, status: "True"}]}
`

const handoverPod = `---
apiVersion: v1
kind: Pod
metadata: {name: wp-1, namespace: shop, labels: {app: wp}}
spec: {nodeName: n1, serviceAccountName: wp}
status: {podIP: 10.0.0.9, conditions: [{type: Ready, status: "%s"}]}
`

// decide has a node proxy with these policies and this state of the workload decide
// on a connection to the pod.
func decide(t *testing.T, policies, workloads *translate.Mesh, pod, identity string) error {
	t.Helper()
	w := workloads.Addresses["Kubernetes//Pod/shop/"+pod].Body.(*apiworkload.Address).GetWorkload()
	var set []*authz.Policy
	for _, r := range policies.Authorizations {
		a := r.Body.(*apisecurity.Authorization)
		p, err := authz.ParsePolicy(a)
		if err != nil {
			t.Fatal(err)
		}
		listed := slices.Contains(w.GetAuthorizationPolicies(), r.Name)
		switch a.GetScope() {
		case apisecurity.Scope_GLOBAL:
			listed = true
		case apisecurity.Scope_NAMESPACE:
			listed = a.GetNamespace() == "shop"
		}
		if listed {
			set = append(set, p)
		}
	}
	all := authz.NewPolicies(set...)
	for _, name := range w.GetAuthorizationPolicies() {
		if policies.Authorizations[name] == nil {
			all = all.WithMissing(name)
		}
	}
	attributes := authz.Attributes{Source: netip.MustParseAddr("10.0.0.7"), Destination: netip.MustParseAddrPort("10.0.0.1:80")}
	if identity != "" {
		attributes.Identity = spiffeid.RequireFromString("spiffe://cluster.local/ns/" + identity)
	}
	_, _, err := all.Authorize(attributes)
	return err
}

// TestNobodyStopsEnforcingBeforeAnotherBegins takes a waypoint through its stages,
// by the very code that node proxies decide with, and with what one of them knows
// half of: policies that have come and workloads that have not.
func TestNobodyStopsEnforcingBeforeAnotherBegins(t *testing.T) {
	for name, c := range map[string]struct {
		policy string
		// guest is refused at any stage; front is let in or not as it always was.
		front bool
		// waypoint says that what the waypoint sends passes once it stands.
		waypoint bool
	}{
		"allow at the service": {`metadata: {name: p, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: web}], rules: [{from: [{source: {namespaces: [front]}}]}]}`, true, true},
		"allow by method at the service": {`metadata: {name: p, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: web}], rules: [{to: [{operation: {methods: [GET]}}]}]}`, false, true},
		"allow at the gateway": {`metadata: {name: p, namespace: shop}
spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}], rules: [{from: [{source: {namespaces: [front]}}]}]}`, true, true},
		"allow at the class": {`metadata: {name: p, namespace: istio-system}
spec: {targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}], rules: [{from: [{source: {namespaces: [front]}}]}]}`, true, true},
		"allow in the namespace": {`metadata: {name: p, namespace: shop}
spec: {rules: [{from: [{source: {namespaces: [front]}}]}]}`, true, true},
		"allow in the mesh": {`metadata: {name: p, namespace: istio-system}
spec: {rules: [{from: [{source: {namespaces: [front]}}]}]}`, true, true},
		"allow nothing in the mesh": {`metadata: {name: p, namespace: istio-system}
spec: {}`, false, true},
		"allow at all pods": {`metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, rules: [{from: [{source: {namespaces: [front]}}]}]}`, true, true},
		"allow at some pods": {`metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {tier: front}}, rules: [{from: [{source: {namespaces: [front]}}]}]}`, true, false},
		"deny at the service": {`metadata: {name: p, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: web}], action: DENY, rules: [{from: [{source: {notNamespaces: [front]}}]}]}`, true, true},
		"deny by path at the service": {`metadata: {name: p, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: web}], action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}`, false, true},
		"deny at the class": {`metadata: {name: p, namespace: istio-system}
spec: {targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}], action: DENY, rules: [{from: [{source: {notNamespaces: [front]}}]}]}`, true, true},
		"deny in the namespace": {`metadata: {name: p, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {notNamespaces: [front]}}]}]}`, true, true},
		"deny in the mesh": {`metadata: {name: p, namespace: istio-system}
spec: {action: DENY, rules: [{from: [{source: {notNamespaces: [front]}}]}]}`, true, false},
		"custom at the service": {`metadata: {name: p, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: web}], action: CUSTOM, provider: {name: opa}, rules: [{}]}`, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			meshes := map[string]*translate.Mesh{}
			for stage, pod := range map[string]string{"missing": "", "starting": fmt.Sprintf(handoverPod, "False"), "ready": fmt.Sprintf(handoverPod, "True")} {
				text := handover + pod + "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n" + c.policy
				objects, problems := file.Decode("mesh.yaml", []byte(text), source.Checker{RootNamespace: "istio-system"})
				for _, p := range problems {
					t.Fatal(p.Error())
				}
				meshes[stage] = translate.Translate(objects, translate.Options{})
			}
			// The stages one by one, forth and back, and in between: an xDS stream brings new
			// policies before the workloads that list them, and takes old ones away after.
			type state struct{ policies, workloads *translate.Mesh }
			states := map[string]state{}
			for stage, m := range meshes {
				states[stage] = state{m, m}
			}
			for _, step := range [][2]string{{"missing", "starting"}, {"starting", "ready"}, {"missing", "ready"}, {"ready", "starting"}, {"starting", "missing"}, {"ready", "missing"}} {
				from, to := meshes[step[0]], meshes[step[1]]
				both := *to
				both.Authorizations = map[string]*translate.Resource{}
				for name, r := range from.Authorizations {
					both.Authorizations[name] = r
				}
				for name, r := range to.Authorizations {
					both.Authorizations[name] = r
				}
				states[strings.Join(step[:], " to ")+", policies first"] = state{&both, from}
				states[strings.Join(step[:], " to ")+", old policies last"] = state{&both, to}
			}
			for stage, s := range states {
				if decide(t, s.policies, s.workloads, "web", "guest/sa/guest") == nil {
					t.Errorf("%s: a guest gets in", stage)
				}
				if decide(t, s.policies, s.workloads, "web", "") == nil {
					t.Errorf("%s: nobody gets in", stage)
				}
				if decide(t, s.policies, s.workloads, "web", "other/sa/wp") == nil {
					t.Errorf("%s: another namespace's waypoint gets in", stage)
				}
				if err := decide(t, s.policies, s.workloads, "web", "front/sa/front"); (err == nil) != c.front {
					t.Errorf("%s: front: %v", stage, err)
				}
			}
			for _, stage := range []string{"starting", "ready"} {
				if err := decide(t, meshes[stage], meshes[stage], "web", "shop/sa/wp"); (err == nil) != c.waypoint {
					t.Errorf("%s: the waypoint: %v", stage, err)
				}
			}
			if err := decide(t, meshes["missing"], meshes["missing"], "web", "shop/sa/wp"); err == nil {
				t.Error("who has the waypoint's account gets in before a waypoint stands")
			}
			// A pod that no service has is nobody's to pass on to.
			was, is := decide(t, meshes["missing"], meshes["missing"], "alone", "front/sa/front"), decide(t, meshes["ready"], meshes["ready"], "alone", "front/sa/front")
			if (was == nil) != (is == nil) {
				t.Errorf("a pod without a service: %v, then %v", was, is)
			}
		})
	}
}
