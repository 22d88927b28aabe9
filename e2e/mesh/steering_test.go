package mesh_test

import (
	"fmt"
	"testing"
)

// steeringObjects steer a service by what Istio's users have, and one that has no pods
// by faults alone.
const steeringObjects = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: steering, namespace: data}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: v1
kind: Service
metadata: {name: steered, namespace: data, labels: {istio.io/use-waypoint: steering}}
spec:
  selector: {app: webpeer}
  ports: [{name: http, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: steered, namespace: data}
spec:
  host: steered
  trafficPolicy:
    connectionPool: {http: {http2MaxRequests: 100, maxRetries: 2}, tcp: {connectTimeout: 5s, maxConnectionDuration: 1h}}
    outlierDetection: {consecutive5xxErrors: 5, interval: 10s}
  subsets:
  - {name: there, labels: {app: webpeer}}
  - {name: nowhere, labels: {version: none}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: policy.tulle.dev/v1alpha1
kind: BackendPolicy
metadata: {name: steered, namespace: data}
spec: {targetRefs: [{group: "", kind: Service, name: steered}], loadBalancer: {type: PeakEWMA}, healthCheck: {tcp: {}, interval: 1s}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: steered, namespace: data}
spec:
  hosts: [steered]
  http:
  - match: [{uri: {prefix: /there}, withoutHeaders: {x-away: {}}}]
    rewrite: {uri: /}
    headers: {response: {set: {x-route: there}}}
    route: [{destination: {host: steered, subset: there}}]
  - match: [{uri: {prefix: /nowhere}}]
    route: [{destination: {host: steered, subset: nowhere}}]
  - match: [{uri: {exact: /direct}}]
    directResponse: {status: 418, body: {string: short and stout}}
  - match: [{uri: {prefix: /fault}}]
    fault: {abort: {httpStatus: 429, percentage: {value: 100}}}
    route: [{destination: {host: steered}}]
  - match: [{uri: {prefix: /moved}}]
    redirect: {authority: example.org, uri: /x}
---
apiVersion: v1
kind: Namespace
metadata: {name: chaos, labels: {istio.io/use-waypoint: steering, istio.io/use-waypoint-namespace: data, policy.tulle.dev/allow-faults: "true"}}
---
apiVersion: v1
kind: Service
metadata: {name: faulty, namespace: chaos}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: policy.tulle.dev/v1alpha1
kind: FaultPolicy
metadata: {name: faulty, namespace: chaos}
spec: {targetRefs: [{group: "", kind: Service, name: faulty}], headers: [{name: x-chaos, type: Present}], abort: {httpStatus: 451}}
`

// TestAWaypointDoesWhatIstiosRulesSay sends through one that VirtualServices,
// DestinationRules and Tulle's own policies steer.
func TestAWaypointDoesWhatIstiosRulesSay(t *testing.T) {
	m := start(t)
	m.apply(t, "steering.yaml", steeringObjects)
	const service = "steered.data.svc.cluster.local:8080"
	ask := func(url string, args ...string) string {
		out, err := m.exec(t.Context(), client, append([]string{"curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %header{x-route}%{redirect_url}", "http://" + url}, args...)...)
		if err != nil {
			return err.Error()
		}
		return out
	}
	eventually(t, "the rules to apply", func() error {
		if got := ask(service + "/there"); got != "200 there" {
			return fmt.Errorf("answered %q", got)
		}
		return nil
	})
	for _, tt := range []struct {
		url, want string
		args      []string
	}{
		{service + "/there", "404 ", []string{"-H", "x-away: 1"}},
		{service + "/nowhere", "503 ", nil},
		{service + "/direct", "418 ", nil},
		{service + "/fault", "429 ", nil},
		{service + "/moved/y", "301 http://example.org/x", nil},
		{service + "/else", "404 ", nil},
		{"faulty.chaos.svc.cluster.local/", "451 ", []string{"-H", "x-chaos: 1"}},
		{"faulty.chaos.svc.cluster.local/", "503 ", nil},
	} {
		if got := ask(tt.url, tt.args...); got != tt.want {
			t.Errorf("%s %v: %q, want %q", tt.url, tt.args, got, tt.want)
		}
	}
}
