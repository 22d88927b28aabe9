package translate_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// TestWarningsOfDeadReferencesGoWhenTheyAreMended has what is named come and go, one by
// one, under one translator.
func TestWarningsOfDeadReferencesGoWhenTheyAreMended(t *testing.T) {
	text, err := os.ReadFile("testdata/waypoint-dead-references.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const gateway = "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gone, namespace: shop, labels: {istio.io/waypoint-for: all}}\n" +
		"spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\nstatus: {conditions: [{type: waypoint.tulle.dev/Serving, status: \"True\", reason: Serving, message: x, lastTransitionTime: \"2026-01-01T00:00:00Z\"}]}\n"
	const service = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: gone, namespace: shop}\nspec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}\n"
	const route = "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: gone, namespace: shop}\nspec: {parentRefs: [{group: \"\", kind: Service, name: web}]}\n"
	translator := translate.New(translate.Options{})
	store := source.NewStore()
	var before *source.Objects
	for _, c := range []struct {
		more string
		told []string // of what is not there
	}{
		{"", []string{"AuthorizationPolicy shop/adrift", "AuthorizationPolicy shop/half", "Pod shop/lost-1", "RateLimitPolicy shop/adrift", "RequestAuthentication shop/adrift"}},
		{route, []string{"AuthorizationPolicy shop/adrift", "AuthorizationPolicy shop/half", "Pod shop/lost-1", "RequestAuthentication shop/adrift"}},
		{route + service, []string{"AuthorizationPolicy shop/adrift", "Pod shop/lost-1"}},
		{route + service + gateway, []string{"AuthorizationPolicy shop/adrift"}}, // its ServiceEntry
		{gateway, []string{"AuthorizationPolicy shop/adrift", "AuthorizationPolicy shop/half", "RateLimitPolicy shop/adrift", "RequestAuthentication shop/adrift"}},
	} {
		objects, problems := file.Decode("mesh.yaml", append(slices.Clip(text), c.more...), source.Checker{RootNamespace: "istio-system"})
		for _, p := range problems {
			t.Fatal(p.Error())
		}
		for _, key := range objects.Changes(before) {
			if obj := objects.Object(key); obj != nil {
				store.Put(obj)
			} else {
				store.Delete(key)
			}
		}
		before = objects
		var told []string
		warnings := translator.Translate(store.Objects()).Warnings
		for _, w := range warnings {
			if strings.Contains(w.Message, "not exist") {
				told = append(told, w.Object)
			}
		}
		if !slices.Equal(told, c.told) {
			t.Errorf("with%s: told of %q, want %q", c.more, told, c.told)
		}
		if fresh := translate.Translate(objects, translate.Options{}).Warnings; !slices.Equal(fresh, warnings) {
			t.Errorf("with%s: %v, want as from scratch: %v", c.more, warnings, fresh)
		}
	}
}
