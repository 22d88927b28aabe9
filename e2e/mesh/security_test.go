package mesh_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

const authz = "authz.apps.svc.cluster.local"

// securityObjects put a waypoint before nginx and before it all that decides on
// requests: providers of external authorization, tokens of an issuer in the mesh,
// expressions, and a policy for the whole namespace.
const securityObjects = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: guard, namespace: data}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Same}}}]
---
apiVersion: v1
kind: Service
metadata: {name: guarded, namespace: data, labels: {istio.io/use-waypoint: guard}}
spec:
  selector: {app: nginx}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: over-grpc
      envoyExtAuthzGrpc: {service: authz.apps.svc.cluster.local, port: 9000, timeout: 10s}
    - name: over-http
      envoyExtAuthzHttp: {service: authz.apps.svc.cluster.local, port: 8000, timeout: 10s, pathPrefix: /check, includeRequestHeadersInCheck: [x-key],
        headersToUpstreamOnAllow: [x-user], headersToDownstreamOnAllow: [x-asked-for]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask-grpc, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: guarded}]
  action: CUSTOM
  provider: {name: over-grpc}
  rules: [{to: [{operation: {paths: [/grpc/*]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask-http, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: guarded}]
  action: CUSTOM
  provider: {name: over-http}
  rules: [{to: [{operation: {paths: [/http/*]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask-nobody, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: guarded}]
  action: CUSTOM
  provider: {name: nobody}
  rules: [{to: [{operation: {paths: [/nobody/*]}}]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: guarded}]
  jwtRules: [{issuer: authz, jwksUri: "http://authz.apps.svc.cluster.local:8000/jwks"}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: with-token, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: guarded}]
  action: DENY
  rules:
  - from: [{source: {notRequestPrincipals: [authz/ann]}}]
    to: [{operation: {paths: [/token/*]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-writes, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: guarded}]
  action: DENY
  rules: [{when: [{key: policy.tulle.dev/cel, values: ['request.method in ["PUT", "DELETE"] && source.namespace != "admin"']}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: audit, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: guarded}]
  action: AUDIT
  rules: [{to: [{operation: {paths: [/audited]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admin, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: guarded}]
  action: DENY
  rules: [{to: [{operation: {paths: [/admin, /admin/*]}}]}]
---
# For the whole namespace, whoever its pods are reached through.
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: clients-alone, namespace: data}
spec:
  rules: [{from: [{source: {principals: [cluster.local/ns/apps/sa/client]}}]}]
`

func TestAWaypointGuardsByAllThatPoliciesKnow(t *testing.T) {
	m := start(t)
	pod := program{"apps", "authz", "node-1", []string{filepath.Join(m.bin, "peer"), "authorize"}, []int{8000, 9000}, ""}
	m.apply(t, "authz.yaml", pod.objects())
	m.apply(t, "guard.yaml", securityObjects)
	curl := func(pod, path string, args ...string) (string, error) {
		return m.exec(t.Context(), pod, append([]string{"curl", "-sS", "--path-as-is", "--max-time", "20", "-o", "/dev/null",
			"-w", "%{http_code} %header{x-asked-for}", "http://guarded.data.svc.cluster.local" + path}, args...)...)
	}
	eventually(t, "the waypoint to guard", func() error {
		out, err := curl(client, "/admin")
		if err == nil && out != "403 " {
			err = fmt.Errorf("answered %q", out)
		}
		return err
	})
	var token string
	eventually(t, "the issuer to issue", func() (err error) {
		token, err = m.exec(t.Context(), client, "curl", "-sSf", "--max-time", "20", "http://"+authz+":8000/token?iss=authz&sub=ann")
		return err
	})
	bearer := "authorization: Bearer " + token
	const me = "spiffe://cluster.local/ns/apps/sa/client"
	for _, tt := range []struct {
		pod, path string
		args      []string
		want      string
	}{
		{client, "/file", nil, "200 "},
		{other, "/file", nil, "403 "}, // the namespace's policy, by the client's own identity
		{client, "/grpc/x", nil, "401 "},
		{client, "/grpc/x", []string{"-H", "x-key: 1"}, "404 " + me},
		{client, "/http/x", nil, "302 "},
		{client, "/http/x", []string{"-H", "x-key: 1"}, "404 http"},
		{client, "/nobody/x", []string{"-H", "x-key: 1"}, "403 "},
		{client, "/token/x", nil, "403 "},
		{client, "/token/x", []string{"-H", bearer}, "404 "},
		{client, "/token/x", []string{"-H", bearer + "x"}, "401 "},
		{client, "/file", []string{"-H", bearer + "x"}, "401 "},
		{client, "/file", []string{"-X", "DELETE"}, "403 "},
		{client, "/audited", nil, "404 "},
		// No spelling gets past a policy that nginx would take for the path.
		{client, "//admin", nil, "403 "},
		{client, "/./admin/x", nil, "403 "},
		{client, "/file/..%2fadmin", nil, "403 "},
		{client, "/%61dmin", nil, "403 "},
		{client, "/file/%2e%2e/admin", nil, "403 "},
		{client, "/x/..;/admin", nil, "403 "},
		{client, `/x\..\admin`, nil, "400 "},
		{client, "/admin%00", nil, "400 "},
	} {
		for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
			got, err := curl(tt.pod, tt.path, append(tt.args, version)...)
			if err != nil || got != tt.want {
				t.Errorf("%s %s %s %.40v: %q, %v; want %q", version, tt.pod, tt.path, tt.args, got, err, tt.want)
			}
		}
	}
	// What AUDIT fits is told and passes, and the log names who decided otherwise.
	waypoint := m.waypointPod(t, "guard-")
	m.wantLog(t, []string{waypoint}, "policy that is not enforced fits", "data/audit", "path=/audited")
	m.wantLog(t, []string{waypoint}, "data/no-writes", "status=403")
	m.wantLog(t, []string{waypoint}, "over-http", "status=302")
	// Past the waypoint the node proxies enforce what is for the whole namespace
	// (istio#52590): neither end refuses whom it allows, both whom it does not.
	const lines = "peer.data.svc.cluster.local:7000"
	m.want(t, client, "through", "echo", lines, "through")
	if out, err := m.peer(t.Context(), other, "echo", lines, "through"); err == nil {
		t.Errorf("past the waypoint another client got %q", out)
	}
	// What is bound to the waypoint's service they enforce as if all that only a waypoint
	// can decide were met.
	for _, pod := range []string{client, other} {
		if out, err := m.exec(t.Context(), pod, "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "http://"+nginxService+"/file"); err == nil {
			t.Errorf("past the waypoint %s got %q", pod, out)
		}
	}
}

// waypointPod is the pod of a waypoint, "namespace/name".
func (m *mesh) waypointPod(t *testing.T, prefix string) string {
	t.Helper()
	out, err := m.meshctl(t.Context(), "status", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Pods []struct{ Namespace, Name string }
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatal(err)
	}
	for _, p := range status.Pods {
		if p.Namespace == "data" && strings.HasPrefix(p.Name, prefix) {
			return p.Namespace + "/" + p.Name
		}
	}
	t.Fatalf("no pod %s… among %+v", prefix, status.Pods)
	return ""
}
