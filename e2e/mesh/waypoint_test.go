package mesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
)

const webService = "web.data.svc.cluster.local"

// waypointObjects put a waypoint before a service of nginx, with routes and a policy
// that only it can decide on.
const waypointObjects = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: data}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Same}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: data, labels: {istio.io/use-waypoint: waypoint}}
spec:
  selector: {app: nginx}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: lines, namespace: data, labels: {istio.io/use-waypoint: waypoint}}
spec:
  selector: {app: peer}
  ports: [{name: tcp, port: 7000}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: data}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: example.org, statusCode: 301}}]
  - matches: [{path: {type: PathPrefix, value: /}}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: all}]}}]
    backendRefs: [{name: web, port: 80}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/apps/sa/client]}}]
    to: [{operation: {paths: [/secret*]}}]
`

// answer is what curl tells of a response.
type answer struct {
	status   int
	location string
	route    string
}

func (m *mesh) curl(ctx context.Context, pod, path string, args ...string) (answer, error) {
	out, err := m.exec(ctx, pod, append([]string{"curl", "-sS", "--path-as-is", "--max-time", "20", "-o", "/dev/null",
		"-w", "%{http_code} %{redirect_url} %header{x-route}", "http://" + webService + path}, args...)...)
	if err != nil {
		return answer{}, err
	}
	var a answer
	_, err = fmt.Sscanf(out, "%d", &a.status)
	_, rest, _ := strings.Cut(out, " ")
	a.location, a.route, _ = strings.Cut(rest, " ")
	return a, err
}

func TestAWaypointRoutesAndAuthorizesByRequest(t *testing.T) {
	m := start(t)
	m.apply(t, "waypoint.yaml", waypointObjects)
	var waypoint string
	eventually(t, "the waypoint to run", func() error {
		out, err := m.meshctl(t.Context(), "status", "-o", "json")
		if err != nil {
			return err
		}
		var status struct {
			Pods []struct {
				Namespace, Name string
				Ready           bool
			}
		}
		if err := json.Unmarshal([]byte(out), &status); err != nil {
			return err
		}
		for _, p := range status.Pods {
			if p.Namespace == "data" && strings.HasPrefix(p.Name, "waypoint-") && p.Ready {
				waypoint = p.Namespace + "/" + p.Name
				return nil
			}
		}
		return fmt.Errorf("no pod of it is ready among %+v", status.Pods)
	})
	eventually(t, "the route to apply", func() error {
		a, err := m.curl(t.Context(), client, "/file")
		if err == nil && a.route != "all" {
			err = fmt.Errorf("answered %+v", a)
		}
		return err
	})
	for _, tt := range []struct {
		pod, path string
		want      answer
	}{
		{client, "/file", answer{status: 200, route: "all"}},
		{client, "/old/file", answer{status: 200}},
		{client, "/moved/x", answer{status: 301, location: "http://example.org/moved/x"}},
		{client, "/none", answer{status: 404, route: "all"}},
		{client, "/secret", answer{status: 403}},
		{client, "/file/../secret", answer{status: 403}},
		{client, "//secret", answer{status: 403}},
		{other, "/secret", answer{status: 404, route: "all"}},
	} {
		for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
			got, err := m.curl(t.Context(), tt.pod, tt.path, version)
			if err != nil || got != tt.want {
				t.Errorf("%s, %s %s: %+v, %v; want %+v", version, tt.pod, tt.path, got, err, tt.want)
			}
		}
	}
	m.wantLog(t, []string{waypoint}, "data/no-secrets", "ns/apps/sa/client", "status=403")
	m.wantLog(t, []string{waypoint}, "HTTPRoute/data/web/1", `path="/moved/x"`, "status=301")

	// Past the waypoint, by another service of the same pods, the routes do not apply,
	// and the node proxy enforces of the policy what it can decide, strictly.
	past := func(pod string) (string, error) {
		return m.exec(t.Context(), pod, "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}%header{x-route}", "http://"+nginxService+"/file")
	}
	if out, err := past(other); err != nil || out != "200" {
		t.Errorf("past the waypoint: %q, %v", out, err)
	}
	if out, err := past(client); err == nil {
		t.Errorf("past the waypoint the policy's client got %q", out)
	}
	// Bytes pass as bytes, also where the server speaks first.
	m.want(t, client, "through", "echo", "lines.data.svc.cluster.local:7000", "through")
	// A large file comes whole.
	sum := "curl -sSf --max-time 60 http://%s/file | sha256sum"
	through, err := m.exec(t.Context(), client, "sh", "-c", fmt.Sprintf(sum, webService))
	if err != nil {
		t.Fatal(err)
	}
	if direct, err := m.exec(t.Context(), other, "sh", "-c", fmt.Sprintf(sum, nginxService)); err != nil || direct != through {
		t.Errorf("%q through the waypoint, %q past it, %v", through, direct, err)
	}
}

// ownObjects put a waypoint before a pod itself, whose Service has none.
const ownObjects = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: own-waypoint, namespace: data, labels: {istio.io/waypoint-for: workload}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: own, namespace: data}
spec:
  selector: {app: own}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 8080}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: own-reads, namespace: data}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: own-waypoint}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
`

func TestAWaypointStandsBeforeAPodItself(t *testing.T) {
	m := start(t)
	pod := program{"data", "own", "node-2", []string{filepath.Join(m.bin, "peer"), "web"}, nil, ""}
	m.apply(t, "own.yaml", ownObjects+strings.Replace(pod.objects(), "labels: {app: own}", "labels: {app: own, istio.io/use-waypoint: own-waypoint}", 1))
	addresses := m.addresses(t, "data", "own")
	curl := func(method, host string) (string, error) {
		return m.exec(t.Context(), client, "curl", "-sS", "-X", method, "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://"+host+"/")
	}
	for _, address := range addresses {
		host := netip.AddrPortFrom(address, 8080).String()
		// Until the waypoint is ready the node proxy lets nobody in by a policy of requests.
		eventually(t, "the waypoint to answer", func() error {
			out, err := curl("GET", host)
			if err == nil && out != "200" {
				err = fmt.Errorf("answered %q", out)
			}
			return err
		})
		if out, err := curl("POST", host); err != nil || out != "403" {
			t.Errorf("POST to %s: %q, %v", host, out, err)
		}
	}
	m.wantLog(t, []string{m.waypointPod(t, "own-waypoint-")}, "data/own-reads", "ns/apps/sa/client", "status=403")
	// The Service has no waypoint, and the policy stays the node proxy's.
	if out, err := curl("GET", "own.data.svc.cluster.local:8080"); err == nil {
		t.Errorf("past the waypoint: %q", out)
	}
}

// addresses are those of a pod.
func (m *mesh) addresses(t *testing.T, namespace, name string) []netip.Addr {
	t.Helper()
	out, err := m.meshctl(t.Context(), "status", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Pods []struct {
			Namespace, Name string
			IPs             []netip.Addr
		}
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatal(err)
	}
	for _, p := range status.Pods {
		if p.Namespace == namespace && p.Name == name && len(p.IPs) > 0 {
			return p.IPs
		}
	}
	t.Fatalf("pod %s/%s has no address among %+v", namespace, name, status.Pods)
	return nil
}
