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

// rationed puts a waypoint with limits before a service of nginx.
const rationed = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: data}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: data, labels: {istio.io/use-waypoint: waypoint}}
spec:
  selector: {app: nginx}
  ports: [{name: http, port: 80}]
---
apiVersion: policy.tulle.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: fair-use, namespace: data}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  rules:
  - name: per-client
    key: [{type: Identity}]
    limits: [{requests: 5, per: 24h}]
  - name: looked-at
    key: [{type: Path}]
    limits: [{requests: 1, per: 24h}]
    shadow: true
`

// ratelimit runs meshctl ratelimit on the mesh.
func (m *mesh) ratelimit(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(m.bin, "meshctl"), append([]string{"ratelimit", "--state-dir", m.state}, args...)...).CombinedOutput()
	return string(out), err
}

func TestAWaypointKeepsRateLimits(t *testing.T) {
	m := start(t)
	m.apply(t, "ratelimit.yaml", rationed)
	listed := func() (limited, allowed, keys int, err error) {
		out, err := m.ratelimit(t.Context(), "list", "-o", "json")
		if err != nil {
			return 0, 0, 0, err
		}
		var list []struct {
			Policy, Rule, Backend  string
			Allowed, Limited, Keys int
			ShadowLimited          int
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return 0, 0, 0, fmt.Errorf("%w: %s", err, out)
		}
		for _, l := range list {
			if l.Policy == "data/fair-use" && l.Rule == "per-client" && l.Backend == "leases" {
				return l.Limited, l.Allowed, l.Keys, nil
			}
		}
		return 0, 0, 0, fmt.Errorf("the policy is not in force: %s", out)
	}
	eventually(t, "the limit to be in force", func() error {
		_, _, _, err := listed()
		return err
	})
	// The first answer with the limit's fields shows that clients are led there.
	eventually(t, "the waypoint to be used", func() error {
		out, err := m.exec(t.Context(), other, "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%header{ratelimit-policy}", "http://"+webService+"/file")
		if err == nil && out != `"per-client";q=5;w=86400` {
			err = fmt.Errorf("ratelimit-policy %q", out)
		}
		return err
	})
	counts := map[string]int{}
	for range 8 {
		out, err := m.exec(t.Context(), client, "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %header{retry-after}", "http://"+webService+"/file")
		if err != nil {
			t.Fatal(err)
		}
		status, wait, _ := strings.Cut(out, " ")
		counts[status]++
		if (status == "429") != (wait != "") {
			t.Errorf("%s with retry-after %q", status, wait)
		}
	}
	if counts["200"] != 5 || counts["429"] != 3 {
		t.Errorf("answers %v, want 5 of 200 and 3 of 429", counts)
	}
	limited, allowed, keys, err := listed()
	if err != nil || limited != 3 || allowed < 6 || keys != 2 {
		t.Errorf("%d limited, %d allowed, %d keys, %v; want 3 limited and two clients", limited, allowed, keys, err)
	}
	out, err := m.ratelimit(t.Context(), "status", "data/fair-use/per-client")
	if err != nil || !strings.Contains(out, "cluster.local/ns/apps/sa/client") || !strings.Contains(out, "100%") {
		t.Errorf("%v\n%s", err, out)
	}
}
