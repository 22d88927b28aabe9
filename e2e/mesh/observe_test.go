package mesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// observed puts a waypoint with a route, a policy and a say on telemetry before nginx.
const observed = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: observed, namespace: data}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: data, labels: {istio.io/use-waypoint: observed}}
spec:
  selector: {app: nginx}
  ports: [{name: http, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: data}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - name: teams
    matches: [{path: {type: PathPrefix, value: /file}, headers: [{name: x-team, value: blue}]}]
    backendRefs: [{name: web, port: 80}]
  - name: files
    matches: [{path: {type: PathPrefix, value: /file}}, {path: {type: PathPrefix, value: /secret}}]
    backendRefs: [{name: web, port: 80}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: [/secret]}}]}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: data, namespace: data}
spec:
  metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {team: {value: 'request.headers["x-team"]'}}}]}]
`

// cli runs a command of meshctl on the mesh. Exit statuses that are answers are no
// errors.
func (m *mesh) cli(ctx context.Context, args ...string) (out string, status int, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(m.bin, "meshctl"), append(args, "--state-dir", m.state)...)
	b, err := cmd.CombinedOutput()
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // nobody wraps it
		return string(b), exit.ExitCode(), nil
	}
	return string(b), 0, err
}

// TestOperatorsSeeRequests follows requests through a waypoint with all that shows them.
func TestOperatorsSeeRequests(t *testing.T) {
	m := start(t)
	m.apply(t, "observed.yaml", observed)
	ask := func(path string, args ...string) string {
		args = append([]string{"curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"}, args...)
		out, err := m.exec(t.Context(), client, append(args, "http://"+webService+path)...)
		if err != nil {
			return err.Error()
		}
		return out
	}
	eventually(t, "the waypoint to decide", func() error {
		if got := ask("/secret"); got != "403" {
			return fmt.Errorf("a secret is answered %s", got)
		}
		return nil
	})

	t.Run("route check and list", func(t *testing.T) {
		check := func(want int, contain string, args ...string) {
			t.Helper()
			out, status, err := m.cli(t.Context(), append([]string{"route", "check", "--service", "data/web", "--port", "80"}, args...)...)
			if err != nil || status != want || !strings.Contains(out, contain) {
				t.Errorf("route check %v: %v, status %d, want %d and %q\n%s", args, err, status, want, contain, out)
			}
		}
		check(0, "HTTPRoute/data/web/files", "--path", "/file", "--from", "apps/client")
		check(0, "HTTPRoute/data/web/teams", "--path", "/file", "-H", "x-team:blue")
		check(1, "data/no-secrets", "--path", "/secret")
		check(1, "404", "--path", "/elsewhere")
		out, status, err := m.cli(t.Context(), "route", "list", "--service", "web")
		if err != nil || status != 0 || !strings.Contains(out, "HTTPRoute/data/web/teams") {
			t.Errorf("route list: %v, status %d\n%s", err, status, out)
		}
	})
	t.Run("explain", func(t *testing.T) {
		out, status, err := m.cli(t.Context(), "explain", client, webService+":80", "--path", "/file")
		if err != nil || status != 0 || !strings.Contains(out, "HTTPRoute/data/web/files") {
			t.Errorf("%v, status %d\n%s", err, status, out)
		}
		out, status, err = m.cli(t.Context(), "explain", client, webService+":80", "--path", "/secret")
		if err != nil || status != 1 || !strings.Contains(out, "no-secrets") {
			t.Errorf("%v, status %d\n%s", err, status, out)
		}
	})

	tapped := make(chan string, 1)
	go func() {
		out, _, err := m.cli(t.Context(), "waypoint", "tap", "observed", "--decision", "denied", "--max-requests", "1", "--for", "60s", "-o", "json")
		if err != nil {
			out = err.Error()
		}
		tapped <- out
	}()
	var live struct{ Waypoint, Source, Path, Policy, Flags string }
	eventually(t, "tap to tell", func() error {
		ask("/secret")
		select {
		case out := <-tapped:
			if err := json.Unmarshal([]byte(out), &live); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return nil
		default:
			return fmt.Errorf("nothing yet")
		}
	})
	if live.Path != "/secret" || live.Flags != "UAEX" || live.Policy != "data/no-secrets" {
		t.Errorf("tap: %+v", live)
	}

	for range 3 {
		if got := ask("/file", "-H", "x-team: blue"); got != "200" {
			t.Errorf("a file is answered %s", got)
		}
	}
	t.Run("metrics", func(t *testing.T) {
		out, err := m.exec(t.Context(), live.Waypoint, "curl", "-sS", "--max-time", "20", "http://127.0.0.1:15020/metrics")
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "istio_requests_total{") || !strings.Contains(line, `response_code="200"`) || !strings.Contains(line, `team="blue"`) {
				continue
			}
			found = true
			for _, want := range []string{
				`reporter="waypoint"`, `request_protocol="http"`, `connection_security_policy="mutual_tls"`, `source_workload_namespace="apps"`,
				`source_principal="spiffe://cluster.local/ns/apps/sa/client"`, `destination_service="web.data.svc.cluster.local"`,
				`destination_service_name="web"`, `destination_workload_namespace="data"`, `response_flags="-"`,
			} {
				if !strings.Contains(line, want) {
					t.Errorf("%s is missing in %s", want, line)
				}
			}
		}
		if !found {
			t.Errorf("no such requests in:\n%s", out)
		}
	})
	t.Run("top", func(t *testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 10 {
				ask("/file")
			}
		}()
		out, status, err := m.cli(t.Context(), "waypoint", "top", "--once", "--interval", "3s", "-o", "json")
		<-done
		if err != nil || status != 0 || !strings.Contains(out, `"route": "HTTPRoute/data/web/files"`) {
			t.Errorf("%v, status %d\n%s", err, status, out)
		}
	})
	t.Run("access log", func(t *testing.T) {
		if out := m.logs(t, live.Waypoint); !strings.Contains(out, `route="HTTPRoute/data/web/teams"`) || !strings.Contains(out, `policy="data/no-secrets"`) {
			t.Errorf("the log names neither route nor policy:\n%s", out)
		}
	})
}
