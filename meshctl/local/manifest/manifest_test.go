package manifest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
)

func write(t *testing.T, files ...string) []string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for i, text := range files {
		path := filepath.Join(dir, string(rune('a'+i))+".yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

const namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n"

func pod(extra string) string {
	return namespace + "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec:\n  containers:\n  - name: web\n    command: [sleep]\n" + extra
}

func virtual(spec string) string {
	return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\nspec: " + spec + "\n"
}

func TestMistakesNameFileDocumentObjectAndField(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"unknown field":        {pod("    comand: [x]\n"), []string{"a.yaml: document 2", "Pod shop/web", `spec.containers[0].comand`}},
		"wrong type":           {pod("    ports: [{containerPort: eighty}]\n"), []string{"document 2", "Pod shop/web", "containerPort"}},
		"no command":           {namespace + "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {containers: [{name: web, image: nginx}]}\n", []string{"Pod shop/web: spec.containers[0].command", "runs commands"}},
		"host network":         {pod("  hostNetwork: true\n"), []string{"spec.hostNetwork"}},
		"undeclared namespace": {"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: nowhere}\n", []string{"ServiceAccount nowhere/web", "metadata.namespace", "add a Namespace object"}},
		"undeclared account":   {pod("  serviceAccountName: who\n"), []string{"spec.serviceAccountName", `"who"`, "add a ServiceAccount"}},
		"unknown kind":         {"apiVersion: v1\nkind: Secret\nmetadata: {name: c}\n", []string{"Secret", "not supported", "Pod, Deployment"}},
		"wrong version":        {"apiVersion: v1\nkind: Deployment\nmetadata: {name: c}\n", []string{"Deployment", `use "apps/v1"`}},
		"duplicate":            {pod("") + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {containers: [{name: a, command: [b]}]}\n", []string{"document 3", "Pod shop/web", "already defined in", "document 2"}},
		"duplicate key":        {"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\nkind: Namespace\n", []string{"document 1", "kind"}},
		"object behind dots":   {"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n...\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n", []string{"document 1", "more follows", "---"}},
		"two JSON objects":     {`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}} {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}`, []string{"document 1", "more follows"}},
		"object on the line":   {namespace[:len(namespace)-1] + " {apiVersion: v1, kind: Namespace, metadata: {name: b}, spek: {}}\n", []string{"spek"}},
		"misspelt policy":      {namespace + "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  rules: [{from: [{source: {notPrincipls: [a]}}]}]\n", []string{"AuthorizationPolicy shop/p", "spec", "notPrincipls"}},
		"bad policy value":     {namespace + "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: STRICTER}}\n", []string{"PeerAuthentication shop/p", "STRICTER"}},
		"bad duration":         {namespace + virtual("{hosts: [web], http: [{}, {timeout: abc}]}"), []string{"a.yaml: document 2: VirtualService shop/v: spec.http[1].timeout: \"abc\": want a duration"}},
		"two bad values": {namespace + virtual("{hosts: web, http: [{timeout: 5}]}"), []string{"a.yaml: document 2: VirtualService shop/v: spec.hosts: \"web\": want a list",
			"a.yaml: document 2: VirtualService shop/v: spec.http[0].timeout: 5: want a duration"}},
		"limit in quotes": {namespace + "apiVersion: policy.tulle.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: l, namespace: shop}\nspec: {rules: [{limits: [{requests: \"2\", per: 1s}]}]}\n",
			[]string{"RateLimitPolicy shop/l: spec.rules[0].limits[0].requests: \"2\": want a whole number without quotes"}},
		"not an object":         {"hello: world\n", []string{"document 1", "apiVersion and kind"}},
		"selector of others":    {namespace + "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: shop}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {spec: {containers: [{name: x, command: [cat]}]}}\n", []string{"Deployment shop/d", "spec.selector"}},
		"service without ports": {namespace + "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {selector: {a: b}}\n", []string{"Service shop/s", "spec.ports"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := manifest.Load(write(t, c.text))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestAllMistakesAreReportedTogether(t *testing.T) {
	_, err := manifest.Load(write(t, pod("    comand: [x]\n"), "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {}\n"))
	if err == nil || !strings.Contains(err.Error(), "comand") || !strings.Contains(err.Error(), "Pod default/b") {
		t.Fatalf("error %v, want both files' mistakes", err)
	}
}

func TestALaterLayerReplacesAnEarlierOne(t *testing.T) {
	set, err := manifest.Load(write(t, pod(""), "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Find("Namespace", "", "shop").Meta.Labels["a"]; got != "b" {
		t.Errorf("label %q, want the later layer's", got)
	}
	if n := len(set.OfKind("Namespace")); n != 3 { // and those that every cluster with a mesh has
		t.Errorf("%d namespaces, want 3", n)
	}
}

// What is for the whole mesh needs no Namespace object, as none has to be made for it in a
// cluster; one that is given counts.
func TestTheMeshsOwnNamespaceIsThere(t *testing.T) {
	const settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: ''}\n"
	set, err := manifest.Load(write(t, settings))
	if err != nil {
		t.Fatal(err)
	}
	if set.Find("Namespace", "", manifest.RootNamespace) == nil || set.Find("ConfigMap", manifest.RootNamespace, "istio") == nil {
		t.Errorf("%v", set.Objects())
	}
	set, err = manifest.Load(write(t, settings, "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system, labels: {a: b}}\n"))
	if err != nil || set.Find("Namespace", "", "istio-system").Meta.Labels["a"] != "b" {
		t.Errorf("with an object of its own: %v", err)
	}
}

func TestAFolderIsReadWithoutItsSubFolders(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{
		"a.yaml": pod(""), "README.md": "no", ".hidden.yaml": "{", "sub/b.yaml": "{",
	} {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700)
		os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600)
	}
	set, err := manifest.Load([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	p, ok := set.Find("Pod", "shop", "web").Value.(*corev1.Pod)
	if !ok || p.Spec.Containers[0].Command[0] != "sleep" {
		t.Fatalf("pod %+v", p)
	}
	if got := set.Find("Pod", "shop", "web").Place.Dir; got != dir {
		t.Errorf("Dir %q, want %q", got, dir)
	}
}

func TestWhatIsNotThereSaysWhichArgument(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "none.yaml"), t.TempDir()} {
		if _, err := manifest.Load([]string{path}); err == nil || !strings.Contains(err.Error(), "-f "+path) {
			t.Errorf("error %v does not name -f %s", err, path)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(pod(""))
	f.Add("a: [")
	f.Add("---\n---\n{}\n---\nkind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {ports: [{port: 99999}]}")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		set, err := manifest.Load([]string{path})
		if err != nil {
			return
		}
		for _, o := range set.Objects() {
			if o.Name == "" || o.Value == nil {
				t.Errorf("object without name or value: %+v", o)
			}
		}
	})
}

// A Gateway of the waypoints' class brings what runs it, but for what the user has
// declared himself.
func TestAWaypointBringsItsPods(t *testing.T) {
	gateway := `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop, annotations: {gateway.istio.io/service-account: l7}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other, namespace: shop}
spec: {gatewayClassName: somebody-elses, listeners: [{name: http, port: 80, protocol: HTTP}]}
`
	own := `---
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: shop}
spec: {selector: {app: mine}, ports: [{port: 15008}]}
`
	for _, tt := range []struct {
		name, text, selector string
	}{
		{"made", gateway, "gateway.networking.k8s.io/gateway-name"},
		{"declared", gateway + own, "app"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "objects.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			set, err := manifest.Load([]string{path})
			if err != nil {
				t.Fatal(err)
			}
			spec, _ := manifest.PodSpec(set.Find("Deployment", "shop", "wp"))
			if spec.ServiceAccountName != "l7" || spec.Containers[0].Command[0] != "waypoint" {
				t.Errorf("pods %+v", spec)
			}
			if svc, ok := set.Find("Service", "shop", "wp").Value.(*corev1.Service); !ok || svc.Spec.Selector[tt.selector] == "" {
				t.Errorf("service %+v", svc)
			}
			if set.Find("ServiceAccount", "shop", "l7") == nil || set.Find("Deployment", "shop", "other") != nil {
				t.Errorf("objects %v", set.Objects())
			}
		})
	}
}
