package explain_test

import (
	"fmt"
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
		{"none", 80, explain.HTTP{}, "there is shop/api"},
		{"api", 81, explain.HTTP{}, "its ports are 80, 5432"},
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

// Files are read as `local up -f` reads them: steps beside each other are no duplicates of
// what they change.
func TestFilesAreReadAsTheLocalMeshReadsThem(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const routeTo = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: api}]
  rules: [{name: RULE, backendRefs: [{name: api, port: 80}]}]
`
	write("shop.yaml", shopFiles)
	first := write("steps/1-first.yaml", strings.ReplaceAll(routeTo, "RULE", "first"))
	second := write("steps/2-second.yaml", strings.ReplaceAll(routeTo, "RULE", "second"))
	write(".hidden.yaml", "not: [YAML")
	rule := func(paths ...string) string {
		t.Helper()
		a, err := explain.AskFiles(paths, "api", 80, "shop/web", explain.HTTP{Path: "/items"})
		if err != nil {
			t.Fatal(err)
		}
		return a.Route.Rule
	}
	if got := rule(dir); got != "HTTPRoute/shop/api/all" {
		t.Errorf("a folder with steps below it: %s", got)
	}
	if got := rule(dir, first); got != "HTTPRoute/shop/api/first" {
		t.Errorf("with the first step: %s", got)
	}
	if got := rule(dir, first, second); got != "HTTPRoute/shop/api/second" {
		t.Errorf("with both steps: %s", got)
	}
	if got := rule(dir, second, first); got != "HTTPRoute/shop/api/first" {
		t.Errorf("with both steps in the other order: %s", got)
	}
	list := write("more/list.json", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"api","namespace":"shop"},"spec":{"ports":[{"name":"http","port":81}]}}]}`)
	if _, err := explain.AskFiles([]string{dir, list}, "api", 80, "", explain.HTTP{}); err == nil || !strings.Contains(err.Error(), "its ports are 81") {
		t.Errorf("an item of a List replaces an object: %v", err)
	}
	for _, c := range []struct {
		paths []string
		want  string
	}{
		{[]string{filepath.Join(dir, "steps")}, "2-second.yaml: document 1: HTTPRoute shop/api: already defined in " + first + ": document 1"},
		{[]string{dir, write("wrong/a.yaml", strings.ReplaceAll(routeTo, "name: RULE,", "nome: x,"))}, "a.yaml: document 1: HTTPRoute shop/api"},
		{[]string{t.TempDir()}, "no .yaml"},
	} {
		if _, err := explain.AskFiles(c.paths, "api", 80, "", explain.HTTP{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %s", c.paths, err, c.want)
		}
	}
}

// What becomes of a request is told, not only that nothing refuses it.
func TestFilesSayWhatARuleDoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop.yaml")
	const text = `apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec: {selector: {app: api}, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: api}]
  rules:
  - {matches: [{path: {value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example, statusCode: 301}}]}
  - {matches: [{path: {value: /split}}], backendRefs: [{name: api, port: 80, weight: 3}, {name: other, port: 80, weight: 1}]}
  - {matches: [{path: {value: /half}}], backendRefs: [{name: api, port: 80}, {name: nobody, port: 80}]}
  - {matches: [{path: {value: /none}}], backendRefs: [{name: nobody, port: 80}]}
  - {matches: [{path: {value: /one}}], backendRefs: [{name: other, port: 80}]}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"/old":   "redirect 301 to http://new.example/old",
		"/split": "sent to api.shop.svc.cluster.local:80 (75 %), other.shop.svc.cluster.local:80 (25 %)",
		"/half":  "sent to api.shop.svc.cluster.local:80 (50 %); 50 % get 500: ",
		"/one":   "sent to other.shop.svc.cluster.local:80",
	} {
		a, err := explain.AskFiles([]string{path}, "api", 80, "", explain.HTTP{Path: at})
		if err != nil {
			t.Fatal(err)
		}
		if why := a.Serves(); why != "" || !strings.HasPrefix(a.Does(), want) {
			t.Errorf("%s: %q, %q, want %q", at, why, a.Does(), want)
		}
	}
	a, err := explain.AskFiles([]string{path}, "api", 80, "", explain.HTTP{Path: "/none"})
	if err != nil || !strings.Contains(a.Serves(), "500") {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := explain.AskFiles([]string{path}, "other", 80, "", explain.HTTP{}); err != nil || a.Does() != "sent to the service itself" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestRequestsThatNobodyCouldSendAreRefusedByTheirFlag(t *testing.T) {
	for _, c := range []struct {
		r    explain.HTTP
		flag string
	}{
		{explain.HTTP{Method: "G T"}, "--method"}, {explain.HTTP{Method: "GET\n"}, "--method"},
		{explain.HTTP{Path: "items"}, "--path"}, {explain.HTTP{Path: "/a b"}, "--path"}, {explain.HTTP{Path: "/a?b c"}, "--path"},
		{explain.HTTP{Authority: "a b"}, "--authority"}, {explain.HTTP{Authority: "web:0"}, "--authority"}, {explain.HTTP{Authority: "web:x"}, "--authority"},
		{explain.HTTP{Headers: []string{"novalue"}}, "--header"}, {explain.HTTP{Headers: []string{"a b:c"}}, "--header"}, {explain.HTTP{Headers: []string{":path:/"}}, "--header"},
		{explain.HTTP{Headers: []string{"x:a\nb"}}, "--header"}, {explain.HTTP{Headers: []string{"Host: web"}}, "--authority"},
	} {
		if err := c.r.Check(); err == nil || !strings.Contains(err.Error(), c.flag) {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
	for _, r := range []explain.HTTP{
		{}, {Method: "PROPFIND", Path: "/a/b?c=d", Authority: "Web.Shop:8080", Headers: []string{"X-Team: blue", "x-empty:"}}, {Authority: "[::1]:80"},
	} {
		if err := r.Check(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, from := range []string{"web", "shop/", "/web", "a/b/c", "spiffe://", "http://x/ns/a/sa/b"} {
		if err := explain.CheckClient(from); err == nil || !strings.Contains(err.Error(), "--from") {
			t.Errorf("--from %s: %v", from, err)
		}
	}
	for _, service := range []string{"", "a/b/c", "shop/", "/web", "a b", "web:80"} {
		if err := explain.CheckService(service); err == nil || !strings.Contains(err.Error(), "--service") {
			t.Errorf("--service %s: %v", service, err)
		}
	}
}

// Nobody asks an authorizer, so that nobody knows what it would say.
func TestWhatAnExternalAuthorizerDecidesIsNotKnown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.yaml")
	custom := func(provider, path string) string {
		return fmt.Sprintf("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: shop}\n"+
			"spec: {targetRefs: [{group: \"\", kind: Service, name: api}], action: CUSTOM, provider: {name: %[1]s}, rules: [{to: [{operation: {paths: [%s]}}]}]}\n", provider, path)
	}
	text := shopFiles + custom("sessions", `"/items/*", /else`) + custom("gone", `/items/gone`) + `---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - {name: sessions, envoyExtAuthzHttp: {service: api.shop.svc.cluster.local, port: 80}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: gates, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: api}]
  rules:
  - name: gate
    matches: [{path: {value: /gate}}]
    filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: api, port: 80}}}]
    backendRefs: [{name: api, port: 80}]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, path      string
		serves, unknown string
	}{
		{"shop/web", "/items", "", ""},
		{"shop/web", "/items/1", "", "provider sessions, which policy shop/sessions asks, decides, and is not asked here"},
		{"shop/web", "/gate", "", "external authorizer shop/api.shop.svc.cluster.local, which rule HTTPRoute/shop/gates/gate asks, decides, and is not asked here"},
		{"shop/other", "/gate", "none matched", ""},
		{"shop/other", "/items/1", "none matched", ""}, // refused, whatever it says
		{"shop/web", "/else", "404", ""},
		{"shop/web", "/items/gone", "provider gone, which is not known", ""},
	} {
		a, err := explain.AskFiles([]string{file}, "api", 80, c.from, explain.HTTP{Path: c.path})
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Serves(); !strings.Contains(got, c.serves) || c.serves == "" && got != "" || a.Unknown() != c.unknown || a.Allowed && a.Undecided {
			t.Errorf("%s by %s: %q, %q, %+v", c.path, c.from, got, a.Unknown(), a)
		}
	}
}
