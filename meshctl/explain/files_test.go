package explain_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/meshctl/explain"
)

const shopFiles = `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{name: http, port: 80}, {name: db, port: 5432}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: api}]
  rules:
  - {name: blue, matches: [{headers: [{name: x-team, value: blue}]}], backendRefs: [{name: api, port: 80}]}
  - {name: all, matches: [{path: {type: PathPrefix, value: /items}}], backendRefs: [{name: api, port: 80}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: api}]
  action: ALLOW
  rules: [{from: [{source: {principals: ["cluster.local/ns/shop/sa/web"]}}], to: [{operation: {methods: [GET]}}]}]
`

func TestFilesAnswerWithoutAMesh(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "shop.yaml"), []byte(shopFiles), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(service, from string, r explain.HTTP) *explain.WaypointAnswer {
		t.Helper()
		a, err := explain.AskFiles([]string{dir}, service, 80, from, r)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask("api", "shop/web", explain.HTTP{Path: "/items/1"}); a.Serves() != "" || a.Route.Rule != "HTTPRoute/shop/api/all" || a.Policy != "shop/readers" {
		t.Errorf("%+v", a)
	}
	if a := ask("shop/api", "shop/web", explain.HTTP{Headers: []string{"X-Team: blue"}}); a.Route.Rule != "HTTPRoute/shop/api/blue" {
		t.Errorf("%+v", a)
	}
	if a := ask("api.shop", "shop/web", explain.HTTP{Path: "/other"}); !strings.Contains(a.Serves(), "404") {
		t.Errorf("%+v", a)
	}
	if a := ask("api", "shop/other", explain.HTTP{Path: "/items"}); a.Allowed || a.Policy != "shop/readers" {
		t.Errorf("%+v", a)
	}
	if a, err := explain.AskFiles([]string{dir}, "api", 5432, "shop/web", explain.HTTP{}); err != nil || a.Method != "" || a.Allowed {
		t.Errorf("%+v %v", a, err) // the policy asks for a method, which bytes have none of
	}
	for _, c := range []struct {
		service string
		port    uint16
		r       explain.HTTP
		want    string
	}{
		{"none", 80, explain.HTTP{}, "no Service none"},
		{"api", 81, explain.HTTP{}, "no port 81"},
		{"api", 80, explain.HTTP{Headers: []string{"novalue"}}, "--header"},
	} {
		if _, err := explain.AskFiles([]string{dir}, c.service, c.port, "", c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := explain.AskFiles([]string{filepath.Join(dir, "absent.yaml")}, "api", 80, "", explain.HTTP{}); err == nil {
		t.Error("an absent file")
	}
}
