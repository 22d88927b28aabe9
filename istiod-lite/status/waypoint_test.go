package status_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/deploy"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/status"
)

// behind is a mesh with a waypoint whose pod is as READY says.
const behind = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: wp}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio-waypoint}
spec: {controllerName: istio.io/mesh-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
STATUS
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: odd, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}, {name: web, port: 80, protocol: HTTP}, {name: tunnels, port: 15009, protocol: HBONE}]}
status: {conditions: [{type: waypoint.tulle.dev/Serving, status: "True", reason: Serving, message: x, lastTransitionTime: "2026-01-01T00:00:00Z"}]}
---
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: wp}, ports: [{name: hbone, port: 15008}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wp-1, namespace: shop, labels: {app: wp}}
spec: {nodeName: n1, serviceAccountName: wp}
status: {podIP: 10.0.0.9, conditions: [{type: Ready, status: "READY"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/ingress-use-waypoint: "true"}}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: shop, labels: {istio.io/use-waypoint: none}}
spec: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: bound, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: web}], rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: at-bare, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: web}, {kind: Service, group: "", name: bare}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: at-gateway, namespace: shop}
spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}], action: CUSTOM, provider: {name: opa}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: at-class, namespace: istio-system}
spec: {targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}], action: AUDIT, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: web}], jwtRules: [{issuer: i, jwksUri: https://keys.example.com}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: lost, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: gone}], jwtRules: [{issuer: i, jwksUri: https://keys.example.com}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: wide, namespace: shop}
spec: {jwtRules: [{issuer: i, jwksUri: https://keys.example.com}]}
---
apiVersion: v1
kind: Service
metadata: {name: foreign, namespace: shop}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}, {group: "", kind: Service, name: bare}, {group: "", kind: Service, name: web, port: 81}, {name: wp}],
  rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: partly, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [
  {backendRefs: [{name: web, port: 80}, {name: web, namespace: other, port: 80}]},
  {filters: [{type: RequestRedirect, requestRedirect: {statusCode: 399}}]}, {}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: ftp}}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: bytes, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: gone, port: 80}]}]}
`

const hasServed = `status: {conditions: [{type: waypoint.tulle.dev/Serving, status: "True", reason: Serving, message: x, lastTransitionTime: "2026-01-01T00:00:00Z"}]}`

// conditions lists what is said of an object, as "[parent] Type Status Reason".
func conditions(t *testing.T, ready, statusOfGateway, object string) []string {
	t.Helper()
	text := strings.NewReplacer("READY", ready, "STATUS", statusOfGateway).Replace(behind)
	objects, problems := file.Decode("mesh.yaml", []byte(text), source.Checker{RootNamespace: "istio-system"})
	for _, p := range problems {
		t.Fatal(p.Error())
	}
	var obj metav1.Object
	for kind := range maps.Keys(objects.Counts()) {
		for _, key := range objects.Keys(kind) {
			if key.String() == object {
				obj = objects.Object(key)
			}
		}
	}
	want, ok := status.Decider{}.Decide(objects, obj)
	if !ok {
		return nil
	}
	var out []string
	add := func(at string, list []status.Condition) {
		for _, c := range list {
			if c.Message == "" {
				t.Errorf("%s: %s without a message", object, c.Type)
			}
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", at, c.Type, c.Status, c.Reason)))
		}
	}
	add("", want.Conditions)
	for _, l := range want.Listeners {
		add(string(l.Name), l.Conditions)
	}
	for i, p := range want.Parents {
		add(fmt.Sprintf("%d:%s", i, p.Ref.Name), p.Conditions)
	}
	for _, a := range want.Addresses {
		out = append(out, "at "+a)
	}
	return out
}

func TestObjectsAreToldWhatAWaypointDoesForThem(t *testing.T) {
	for _, c := range []struct {
		ready, gateway, object string
		want                   []string
	}{
		{"True", "", "Service shop/web", []string{"istio.io/WaypointBound True WaypointAccepted"}},
		{"False", "", "Service shop/web", []string{"istio.io/WaypointBound False WaypointIsNotReady"}},
		{"False", hasServed, "Service shop/web", []string{"istio.io/WaypointBound True WaypointAccepted"}},
		{"True", "", "Service shop/wp", nil},
		{"True", "", "Gateway shop/odd", []string{"Accepted True ListenersNotValid", "Programmed False Pending", "waypoint.tulle.dev/Serving True Serving",
			"mesh Accepted True Accepted", "mesh Programmed False Pending", "mesh ResolvedRefs True ResolvedRefs",
			"web Accepted False UnsupportedProtocol", "web Programmed False Invalid", "tunnels Accepted False PortUnavailable", "tunnels Programmed False Invalid"}},
		{"True", "", "GatewayClass istio-waypoint", []string{"Accepted True Accepted"}},
		{"False", "", "GatewayClass istio-waypoint", []string{"Accepted True Accepted"}},
		{"True", "", "Gateway shop/wp", []string{"Accepted True Accepted", "Programmed True Programmed", "waypoint.tulle.dev/Serving True Serving",
			"mesh Accepted True Accepted", "mesh Programmed True Programmed", "mesh ResolvedRefs True ResolvedRefs", "at wp.shop.svc.cluster.local"}},
		{"False", "", "Gateway shop/wp", []string{"Accepted True Accepted", "Programmed False Pending",
			"mesh Accepted True Accepted", "mesh Programmed False Pending", "mesh ResolvedRefs True ResolvedRefs"}},
		{"False", hasServed, "Gateway shop/wp", []string{"Accepted True Accepted", "Programmed False Pending", "waypoint.tulle.dev/Serving True Serving",
			"mesh Accepted True Accepted", "mesh Programmed False Pending", "mesh ResolvedRefs True ResolvedRefs", "at wp.shop.svc.cluster.local"}},
		{"True", "", "AuthorizationPolicy shop/bound", []string{"WaypointAccepted True Accepted"}},
		{"False", "", "AuthorizationPolicy shop/bound", []string{"WaypointAccepted False AncestorNotBound"}},
		{"True", "", "AuthorizationPolicy shop/at-bare", []string{"WaypointAccepted False AncestorNotBound"}},
		{"True", "", "AuthorizationPolicy shop/at-gateway", []string{"WaypointAccepted False PartiallyInvalid"}},
		{"True", "", "AuthorizationPolicy istio-system/at-class", []string{"WaypointAccepted True Accepted"}},
		{"True", "", "Service shop/foreign", []string{"istio.io/WaypointBound False UnsupportedTrafficType"}},
		{"True", "", "RequestAuthentication shop/tokens", []string{"WaypointAccepted True Accepted"}},
		{"False", "", "RequestAuthentication shop/tokens", []string{"WaypointAccepted False AncestorNotBound"}},
		{"True", "", "RequestAuthentication shop/lost", []string{"WaypointAccepted False TargetNotFound"}},
		{"False", "", "RequestAuthentication shop/wide", []string{"WaypointAccepted True Accepted"}},
		{"True", "", "HTTPRoute shop/good", []string{
			"0:web Accepted True Accepted", "0:web ResolvedWaypoints True ResolvedWaypoints", "0:web ResolvedRefs True ResolvedRefs",
			"1:bare Accepted False Pending", "1:bare ResolvedWaypoints False NoWaypoint", "1:bare ResolvedRefs True ResolvedRefs",
			"2:web Accepted False NoMatchingParent", "2:web ResolvedWaypoints True ResolvedWaypoints", "2:web ResolvedRefs True ResolvedRefs",
			"3:wp Accepted False NotAllowedByListeners", "3:wp ResolvedRefs True ResolvedRefs"}},
		{"False", "", "HTTPRoute shop/partly", []string{"0:web Accepted False Pending", "0:web ResolvedWaypoints False WaypointIsNotReady", "0:web ResolvedRefs False RefNotPermitted"}},
		{"True", "", "HTTPRoute shop/partly", []string{"0:web Accepted True Accepted", "0:web PartiallyInvalid True UnsupportedValue",
			"0:web ResolvedWaypoints True ResolvedWaypoints", "0:web ResolvedRefs False RefNotPermitted"}},
		{"True", "", "HTTPRoute shop/bad", []string{"0:web Accepted False UnsupportedValue", "0:web ResolvedWaypoints True ResolvedWaypoints", "0:web ResolvedRefs True ResolvedRefs"}},
		{"True", "", "TCPRoute shop/bytes", []string{"0:web Accepted True Accepted", "0:web ResolvedWaypoints True ResolvedWaypoints", "0:web ResolvedRefs False BackendNotFound"}},
	} {
		t.Run(c.object+" "+c.ready, func(t *testing.T) {
			if got := conditions(t, c.ready, c.gateway, c.object); !slices.Equal(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
}

// TestAGatewayIsToldWhatBecameOfItsDeployment has the deployment be in every state that
// it can be in.
func TestAGatewayIsToldWhatBecameOfItsDeployment(t *testing.T) {
	for _, c := range []struct {
		ready   string
		outcome deploy.Outcome
		want    string
	}{
		{"False", deploy.Outcome{Managed: true}, "Accepted True Accepted, Programmed False Pending: is ready yet"},
		{"False", deploy.Outcome{Managed: true, Refused: true, Reason: "InvalidParameters", Message: "no such field."}, "Accepted False InvalidParameters, Programmed False Invalid: no such field"},
		{"True", deploy.Outcome{Managed: true, Refused: true, Reason: "InvalidParameters", Message: "no such field."}, "Accepted False InvalidParameters, Programmed True Programmed: are ready"},
		{"False", deploy.Outcome{Managed: true, Reason: "NoResources", Message: "quota."}, "Accepted True Accepted, Programmed False NoResources: quota"},
		{"True", deploy.Outcome{Managed: true, Reason: "NoResources", Message: "quota."}, "Accepted True Accepted, Programmed True Programmed: not in force. quota"},
	} {
		objects, problems := file.Decode("mesh.yaml", []byte(strings.NewReplacer("READY", c.ready, "STATUS", "").Replace(behind)), source.Checker{RootNamespace: "istio-system"})
		if len(problems) > 0 {
			t.Fatal(problems[0].Error())
		}
		decider := status.Decider{Deployed: func(*gatewayv1.Gateway) deploy.Outcome { return c.outcome }}
		want, _ := decider.Decide(objects, objects.Gateways[source.Name{Namespace: "shop", Name: "wp"}])
		accepted, programmed := want.Conditions[0], want.Conditions[1]
		got, message, _ := strings.Cut(c.want, ": ")
		if text := fmt.Sprintf("%s %s %s, %s %s %s", accepted.Type, accepted.Status, accepted.Reason, programmed.Type, programmed.Status, programmed.Reason); text != got || !strings.Contains(programmed.Message, message) {
			t.Errorf("pods ready: %s, %+v: %s: %s", c.ready, c.outcome, text, programmed.Message)
		}
	}
}

// TestAServiceIsToldOfItsSecondWaypoint has it be right, and wrong in each way.
func TestAServiceIsToldOfItsSecondWaypoint(t *testing.T) {
	const second = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: next, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {conditions: [{type: waypoint.tulle.dev/Serving, status: "True", reason: Serving, message: x, lastTransitionTime: "2026-01-01T00:00:00Z"}]}
---
apiVersion: v1
kind: Service
metadata: {name: shared, namespace: shop, labels: {istio.io/use-waypoint-canary: NAME}, annotations: {istio.io/use-waypoint-canary-weight: "WEIGHT"}}
spec: {clusterIP: 10.96.0.7, selector: {app: web}, ports: [{name: http, port: 80}]}
`
	for _, c := range []struct{ name, weight, says string }{
		{"next", "30", "30% of new connections go through the waypoint shop/next."},
		{"next", "101", "CanaryInvalidWeight"},
		{"next", "a third", "CanaryInvalidWeight"},
		{"wp", "30", "CanarySameAsPrimary"},
		{"nowhere", "30", "WaypointIsNotReady"},
	} {
		text := strings.NewReplacer("READY", "True", "STATUS", "").Replace(behind) + strings.NewReplacer("NAME", c.name, "WEIGHT", c.weight).Replace(second)
		objects, problems := file.Decode("mesh.yaml", []byte(text), source.Checker{RootNamespace: "istio-system"})
		if len(problems) > 0 {
			t.Fatal(problems[0].Error())
		}
		want, _ := status.Decider{}.Decide(objects, objects.Services[source.Name{Namespace: "shop", Name: "shared"}])
		if got := want.Conditions[0]; got.Status != metav1.ConditionTrue || got.Reason != "WaypointAccepted" || !strings.Contains(got.Message, c.says) {
			t.Errorf("%s %s: %+v", c.name, c.weight, got)
		}
	}
}
