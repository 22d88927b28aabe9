package status_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/status"
)

func TestRateLimitsSayWhoKeepsThem(t *testing.T) {
	const limits = "rules: [{limits: [{requests: 1, per: 1s}]}]"
	policy := func(name, spec string) string {
		return "---\napiVersion: policy.tulle.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: " + name + ", namespace: shop}\nspec: {" + spec + "}\n"
	}
	target := func(group, kind, name string) string {
		return fmt.Sprintf("{group: %q, kind: %s, name: %s}", group, kind, name)
	}
	mesh := strings.NewReplacer("READY", "True", "STATUS", "").Replace(behind) + `
---
apiVersion: v1
kind: Service
metadata: {name: alone, namespace: shop, labels: {istio.io/use-waypoint: none}}
spec: {clusterIP: 10.96.0.33, selector: {app: alone}, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{name: search, backendRefs: [{name: web, port: 80}]}]}
` + policy("service", "targetRefs: ["+target("", "Service", "web")+"], "+limits) +
		policy("namespace", "targetRefs: ["+target("", "Namespace", "shop")+"], "+limits) +
		policy("gateway", "targetRefs: ["+target("gateway.networking.k8s.io", "Gateway", "wp")+"], "+limits) +
		policy("route", "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: search}], "+limits) +
		policy("section", "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: gone}], "+limits) +
		policy("bare", "targetRefs: ["+target("", "Service", "alone")+"], "+limits) +
		policy("partly", "targetRefs: ["+target("", "Service", "alone")+", "+target("", "Service", "web")+"], "+limits) +
		policy("lost", "targetRefs: ["+target("", "Service", "gone")+"], "+limits) +
		policy("backend", "targetRefs: ["+target("", "Service", "web")+"], backend: {type: RateLimitService, rateLimitService: {domain: d, backendRef: {name: gone, port: 1}}}, "+limits)
	objects, problems := file.Decode("objects.yaml", []byte(mesh), source.Checker{RootNamespace: "istio-system"})
	for _, p := range problems {
		t.Fatal(p.Error())
	}
	var decider status.Decider
	for name, want := range map[string][]string{
		"service":   {"Accepted True Accepted", "Enforced True Enforced"},
		"namespace": {"Accepted True Accepted", "Enforced True Enforced"},
		"gateway":   {"Accepted True Accepted", "Enforced True Enforced"},
		"route":     {"Accepted True Accepted", "Enforced True Enforced"},
		"section":   {"Accepted False TargetNotFound", "Enforced False NotAccepted"},
		"bare":      {"Accepted True Accepted", "Enforced False AncestorNotBound"},
		"partly":    {"Accepted True Accepted", "Enforced False PartiallyEnforced"},
		"lost":      {"Accepted False TargetNotFound", "Enforced False NotAccepted"},
		"backend":   {"Accepted False BackendNotResolved", "Enforced False NotAccepted"},
	} {
		key := source.Key{Kind: "RateLimitPolicy", Name: source.Name{Namespace: "shop", Name: name}}
		decided, ok := decider.Decide(objects, objects.Object(key))
		var got []string
		for _, c := range decided.Conditions {
			got = append(got, fmt.Sprintf("%s %s %s", c.Type, c.Status, c.Reason))
		}
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %q", name, decided.Conditions, want)
		}
	}
}
