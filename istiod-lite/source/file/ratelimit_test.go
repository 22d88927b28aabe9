package file_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
)

const limitPolicy = "apiVersion: policy.tulle.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: p, namespace: shop}\nspec: %s\n"

func TestMistakesOfRateLimitsNameTheirField(t *testing.T) {
	rule := func(s string) string {
		return fmt.Sprintf(limitPolicy, "{targetRefs: [{group: '', kind: Service, name: web}], rules: ["+s+"]}")
	}
	limits := "limits: [{requests: 10, per: 1s}]"
	backend := func(s string) string {
		return fmt.Sprintf(limitPolicy, "{targetRefs: [{group: '', kind: Service, name: web}], rules: [{"+limits+"}], backend: {"+s+"}}")
	}
	for _, c := range []struct{ name, yaml, field, message string }{
		{"no targets", fmt.Sprintf(limitPolicy, "{targetRefs: [], rules: [{"+limits+"}]}"), "spec.targetRefs", "applies to nothing"},
		{"an unknown target", fmt.Sprintf(limitPolicy, "{targetRefs: [{group: apps, kind: Deployment, name: web}], rules: [{"+limits+"}]}"), "spec.targetRefs[0].kind", "Service"},
		{"another group", fmt.Sprintf(limitPolicy, "{targetRefs: [{group: '', kind: HTTPRoute, name: web}], rules: [{"+limits+"}]}"), "spec.targetRefs[0].group", "gateway.networking.k8s.io"},
		{"another namespace", fmt.Sprintf(limitPolicy, "{targetRefs: [{group: '', kind: Namespace, name: pay}], rules: [{"+limits+"}]}"), "spec.targetRefs[0].name", "own namespace"},
		{"a section of a Service", fmt.Sprintf(limitPolicy, "{targetRefs: [{group: '', kind: Service, name: web, sectionName: http}], rules: [{"+limits+"}]}"), "spec.targetRefs[0].sectionName", "routes"},
		{"no rules", fmt.Sprintf(limitPolicy, "{targetRefs: [{group: '', kind: Service, name: web}], rules: []}"), "spec.rules", "limits nothing"},
		{"an unknown field", rule("{" + limits + ", burst: 3}"), "spec.rules[0].burst", "unknown field"},
		{"no limits", rule("{limits: []}"), "spec.rules[0].limits", "limits nothing"},
		{"none at all", rule("{limits: [{requests: 0, per: 1s}]}"), "spec.rules[0].limits[0].requests", "between 1"},
		{"a year", rule("{limits: [{requests: 1, per: 8760h}]}"), "spec.rules[0].limits[0].per", "24h"},
		{"a word for a time", rule("{limits: [{requests: 1, per: minute}]}"), "spec.rules[0].limits[0].per", "1m"},
		{"no burst", rule("{limits: [{requests: 1, per: 1s, burst: 0}]}"), "spec.rules[0].limits[0].burst", "between 1"},
		{"the same name twice", rule("{name: a, " + limits + "}, {name: a, " + limits + "}"), "spec.rules[1].name", "Duplicate"},
		{"a name in capitals", rule("{name: A, " + limits + "}"), "spec.rules[0].name", "lower case"},
		{"an unknown key", rule("{key: [{type: Cookie}], " + limits + "}"), "spec.rules[0].key[0].type", "JWTClaim"},
		{"a header without a name", rule("{key: [{type: Header}], " + limits + "}"), "spec.rules[0].key[0].name", "header"},
		{"a claim without a name", rule("{key: [{type: JWTClaim}], " + limits + "}"), "spec.rules[0].key[0].name", ""},
		{"a path with a name", rule("{key: [{type: Path, name: x}], " + limits + "}"), "spec.rules[0].key[0].name", "only Header"},
		{"two stars", rule("{match: [{namespaces: ['*a*']}], " + limits + "}"), "spec.rules[0].match[0].namespaces[0]", "one"},
		{"a broken expression", rule("{match: [{path: {type: RegularExpression, value: '['}}], " + limits + "}"), "spec.rules[0].match[0].path.value", "missing"},
		{"two costs", rule("{cost: {requestHeader: a, responseHeader: b}, " + limits + "}"), "spec.rules[0].cost.responseHeader", "not from both"},
		{"an unknown backend", backend("type: Memcached"), "spec.backend.type", "Redis"},
		{"Redis without an address", backend("type: Redis"), "spec.backend.redis", "names"},
		{"Redis without a port", backend("type: Redis, redis: {address: redis}"), "spec.backend.redis.address", "host:port"},
		{"Redis of the waypoint's machine", backend("type: Redis, redis: {address: '[::ffff:127.0.0.1]:6379'}"), "spec.backend.redis.address", "own machine"},
		{"Redis of the waypoint's link", backend("type: Redis, redis: {address: '169.254.169.254:80'}"), "spec.backend.redis.address", "own machine"},
		{"Redis for leases", backend("type: Leases, redis: {address: 'redis:6379'}"), "spec.backend.redis", "type Redis"},
		{"another namespace's password", backend("type: Redis, redis: {address: 'redis:6379', passwordFile: /etc/redis/bank/password}"), "spec.backend.redis.passwordFile", "below /etc/redis/shop/"},
		{"a password by a detour", backend("type: Redis, redis: {address: 'redis:6379', passwordFile: /etc/redis/shop/../bank/password}"), "spec.backend.redis.passwordFile", "below /etc/redis/shop/"},
		{"a user without a password", backend("type: Redis, redis: {address: 'redis:6379', username: u}"), "spec.backend.redis.passwordFile", "password"},
		{"a service without a port", backend("type: RateLimitService, rateLimitService: {domain: d, backendRef: {name: rl}}"), "spec.backend.rateLimitService.backendRef.port", "port"},
		{"a failure mode", fmt.Sprintf(limitPolicy, "{targetRefs: [{group: '', kind: Service, name: web}], rules: [{"+limits+"}], failureMode: Deny}"), "spec.failureMode", "Closed"},
		{"a long timeout", fmt.Sprintf(limitPolicy, "{targetRefs: [{group: '', kind: Service, name: web}], rules: [{"+limits+"}], timeout: 1m}"), "spec.timeout", "10s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, problems := file.Decode("p.yaml", []byte(c.yaml), checker)
			for _, p := range problems {
				if p.Object == "RateLimitPolicy shop/p" && p.Field == c.field && strings.Contains(p.Message, c.message) {
					return
				}
			}
			t.Errorf("%v, want %s: …%s…", problems, c.field, c.message)
		})
	}
}
