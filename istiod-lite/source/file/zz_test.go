package file_test

import (
	"testing"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
)

func TestZZ(t *testing.T) {
	ns := func(n string) string { return "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + n + "}\n" }
	for name, in := range map[string]string{
		"dots": ns("a") + "...\n" + ns("b"),
		"dots2": ns("a") + "... # end\n" + ns("b"),
		"json2": `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}` + "\n" + `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}`,
		"cr": "apiVersion: v1\rkind: Namespace\rmetadata: {name: a}\r---\r" + "apiVersion: v1\rkind: Namespace\rmetadata: {name: b}\r",
		"nullfrom": "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: x}\nspec:\n  rules:\n  - from:\n    to:\n    - operation: {ports: ['80']}\n",
		"nullaction": "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: x}\nspec:\n  action:\n  rules:\n  - from:\n    - source: {namespaces: [a]}\n",
		"nullsel": "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: x}\nspec:\n  selector:\n    matchLabels:\n  rules:\n  - from:\n    - source: {namespaces: [a], principals: }\n",
		"bracket": "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: x}\nspec:\n  rules: []\n",
		"nullspec": "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: x}\nspec:\n  mtls:\n    mode:\n",
		"topunknown": "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: x}\nspecs:\n  mtls: {mode: STRICT}\n",
		"dupjson": `{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{"name":"a","namespace":"x"},"spec":{"action":"DENY","action":"ALLOW"}}`,
		"case": `{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{"name":"a","namespace":"x"},"Spec":{"action":"DENY"}}`,
		"dupmetaJSON": `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a","labels":{"x":"1","x":"2"}}}`,
		"dupkind": `{"apiVersion":"v1","kind":"Secret","kind":"Namespace","metadata":{"name":"a"}}`,
		"dupkind2": `{"apiVersion":"v1","kind":"Namespace","kind":"Secret","metadata":{"name":"a"}}`,
		"nullitem": "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: x}\nspec:\n  action: DENY\n  rules:\n  -\n",
	} {
		obj, problems := file.Decode("f.yaml", []byte(in), source.Checker{RootNamespace: "istio-system"})
		n := -1
		if obj != nil { n = obj.Len() }
		t.Logf("%s: %d objects, problems %v", name, n, problems)
	}
}
