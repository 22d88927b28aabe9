package status_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// TestRateLimitPoliciesInAnAPIServer: what istiod-lite could not enforce an API server
// refuses, and of what it takes the author is told who enforces it.
func TestRateLimitPoliciesInAnAPIServer(t *testing.T) {
	w := newWorld(t)
	policy := func(name, spec string) string {
		return fmt.Sprintf("apiVersion: policy.tulle.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: %s}\nspec: %s\n", name, spec)
	}
	const rules = "rules: [{limits: [{requests: 10, per: 1s}]}]"
	const targets = `targetRefs: [{group: "", kind: Service, name: web}]`
	for _, c := range []struct{ name, spec, message string }{
		{"no targets", "{targetRefs: [], " + rules + "}", "targetRefs"},
		{"another group", `{targetRefs: [{group: "", kind: HTTPRoute, name: web}], ` + rules + "}", "the group must be that of the kind"},
		{"a section of a Service", `{targetRefs: [{group: "", kind: Service, name: web, sectionName: x}], ` + rules + "}", "sectionName"},
		{"no rules", "{" + targets + ", rules: []}", "rules"},
		{"none at all", "{" + targets + ", rules: [{limits: [{requests: 0, per: 1s}]}]}", "requests"},
		{"a word for a time", "{" + targets + ", rules: [{limits: [{requests: 1, per: minute}]}]}", "per"},
		{"two days", "{" + targets + ", rules: [{limits: [{requests: 1, per: 48h}]}]}", "24h"},
		{"an unknown key", "{" + targets + ", rules: [{key: [{type: Cookie}], limits: [{requests: 1, per: 1s}]}]}", "Cookie"},
		{"a header without a name", "{" + targets + ", rules: [{key: [{type: Header}], limits: [{requests: 1, per: 1s}]}]}", "need a name"},
		{"a path without a slash", "{" + targets + ", rules: [{match: [{path: {value: pay}}], limits: [{requests: 1, per: 1s}]}]}", "starts with /"},
		{"two costs", "{" + targets + ", rules: [{cost: {requestHeader: a, responseHeader: b}, limits: [{requests: 1, per: 1s}]}]}", "not from both"},
		{"Redis without an address", "{" + targets + ", " + rules + ", backend: {type: Redis}}", "required there"},
		{"Redis for leases", "{" + targets + ", " + rules + ", backend: {type: Leases, redis: {address: 'redis:6379'}}}", "redis is for the type Redis"},
		{"a user without a password", "{" + targets + ", " + rules + ", backend: {type: Redis, redis: {address: 'redis:6379', username: u}}}", "passwordFile"},
		{"a failure mode", "{" + targets + ", " + rules + ", failureMode: Deny}", "Deny"},
	} {
		o := &unstructured.Unstructured{}
		must(t, yaml.Unmarshal([]byte(policy("bad", c.spec)), &o.Object))
		if _, err := w.at("RateLimitPolicy").Create(t.Context(), o, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v, want …%s…", c.name, err, c.message)
		}
	}
	w.put(policy("lost", "{"+targets+", "+rules+"}"))
	w.await("RateLimitPolicy", "lost", "Accepted", "TargetNotFound")
	w.put("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n")
	w.await("RateLimitPolicy", "lost", "Accepted", "Accepted")
	w.await("RateLimitPolicy", "lost", "Enforced", "AncestorNotBound")
	w.put(policy("full", `
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: search}]
  failureMode: Closed
  timeout: 20ms
  shadow: true
  backend: {type: RateLimitService, rateLimitService: {domain: shop, backendRef: {name: web, port: 80}}}
  rules:
  - name: per-client
    match: [{path: {type: Exact, value: /pay}, methods: [POST], headers: [{name: X-Kind, value: big}], queryParams: [{name: q, value: a}], principals: ["*"], namespaces: [shop]}]
    key: [{type: Identity}, {type: Header, name: X-Tenant, default: none}, {type: JWTClaim, name: realm.tenant}, {type: SourceIP}]
    limits: [{requests: 100, per: 1s, burst: 200}, {requests: 10000, per: 1h30m}]
    cost: {responseHeader: X-Cost, default: 2}
    local: true
    shadow: true`))
	w.await("RateLimitPolicy", "full", "Accepted", "TargetNotFound") // of the route
}
