package manifests_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/tulle-mesh/tulle/manifests"
)

// rights flattens rules: "verb group/resource" or "verb group/resource name".
func rights(rules []rbacv1.PolicyRule) []string {
	var list []string
	for _, r := range rules {
		for _, verb := range r.Verbs {
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					right := fmt.Sprintf("%s %s", verb, strings.TrimPrefix(group+"/"+resource, "/"))
					if len(r.ResourceNames) == 0 {
						list = append(list, right)
					}
					for _, name := range r.ResourceNames {
						list = append(list, right+" "+name)
					}
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

func expand(verbs string, resources ...string) (list []string) {
	for verb := range strings.SplitSeq(verbs, ",") {
		for _, r := range resources {
			list = append(list, verb+" "+r)
		}
	}
	return list
}

// TestRightsAreThoseThatTheBinariesUse is a second place to change when a binary
// needs another right: rights that nobody notices are the ones that stay for ever.
func TestRightsAreThoseThatTheBinariesUse(t *testing.T) {
	objects := render(t, manifests.Release{})
	for _, c := range []struct {
		kind, name string
		want       []string
	}{
		{"ClusterRole", "istiod-istio-system", slices.Concat(
			expand("list,watch", "namespaces", "nodes", "pods", "services", "discovery.k8s.io/endpointslices",
				"gateway.networking.k8s.io/gateways", "gateway.networking.k8s.io/gatewayclasses", "gateway.networking.k8s.io/httproutes",
				"gateway.networking.k8s.io/grpcroutes", "gateway.networking.k8s.io/tcproutes", "gateway.networking.k8s.io/tlsroutes",
				"gateway.networking.k8s.io/referencegrants", "security.istio.io/authorizationpolicies", "security.istio.io/peerauthentications",
				"security.istio.io/requestauthentications", "telemetry.istio.io/telemetries", "configmaps",
				"gateway.networking.k8s.io/backendtlspolicies", "gateway.networking.x-k8s.io/xbackendtrafficpolicies", "policy.tulle.dev/ratelimitpolicies",
				"policy.tulle.dev/faultpolicies", "policy.tulle.dev/backendpolicies", "networking.istio.io/destinationrules", "networking.istio.io/virtualservices",
				"networking.istio.io/serviceentries", "networking.istio.io/workloadentries", "apiextensions.k8s.io/customresourcedefinitions"),
			expand("patch", "services/status", "gateway.networking.k8s.io/gateways/status", "gateway.networking.k8s.io/gatewayclasses/status",
				"gateway.networking.k8s.io/httproutes/status", "gateway.networking.k8s.io/grpcroutes/status",
				"gateway.networking.k8s.io/tcproutes/status", "gateway.networking.k8s.io/tlsroutes/status",
				"security.istio.io/authorizationpolicies/status", "security.istio.io/requestauthentications/status", "telemetry.istio.io/telemetries/status",
				"networking.istio.io/serviceentries/status", "networking.istio.io/workloadentries/status",
				"gateway.networking.k8s.io/backendtlspolicies/status", "gateway.networking.x-k8s.io/xbackendtrafficpolicies/status", "policy.tulle.dev/ratelimitpolicies/status",
				"policy.tulle.dev/faultpolicies/status", "policy.tulle.dev/backendpolicies/status", "networking.istio.io/destinationrules/status",
				"networking.istio.io/virtualservices/status"),
			// Lists in a status that the API does not merge are read anew before they are written.
			expand("get", "gateway.networking.k8s.io/httproutes", "gateway.networking.k8s.io/grpcroutes", "gateway.networking.k8s.io/tcproutes",
				"gateway.networking.k8s.io/tlsroutes", "security.istio.io/authorizationpolicies",
				"security.istio.io/requestauthentications", "telemetry.istio.io/telemetries", "networking.istio.io/serviceentries", "networking.istio.io/workloadentries",
				"gateway.networking.k8s.io/backendtlspolicies", "gateway.networking.x-k8s.io/xbackendtrafficpolicies", "networking.istio.io/destinationrules",
				"networking.istio.io/virtualservices"),
			// What waypoints run as.
			expand("get,list,watch,create,patch,delete", "apps/deployments", "autoscaling/horizontalpodautoscalers", "policy/poddisruptionbudgets", "serviceaccounts"),
			expand("get,list,watch,create,patch,delete", "services"),
			expand("get", "configmaps", "gateway.networking.k8s.io/gateways"), expand("create", "gateway.networking.k8s.io/gatewayclasses"),
			expand("create", "authentication.k8s.io/tokenreviews"),
			expand("create,list,patch,watch", "configmaps istio-ca-root-cert"))},
		{"Role", "istiod", slices.Concat(
			expand("create,get,list,patch,watch", "secrets istio-ca-secret"), expand("get,list,watch", "secrets cacerts"),
			expand("create", "coordination.k8s.io/leases"), expand("get,update", "coordination.k8s.io/leases istiod-lite-leader"))},
		{"ClusterRole", "tulle-agent-istio-system", slices.Concat(
			expand("get,list,watch", "pods", "namespaces"), expand("patch", "pods/status"))},
		{"Role", "tulle-agent", expand("get,list,watch", "apps/daemonsets tulle-agent")},
	} {
		var got []string
		if c.kind == "Role" {
			var r rbacv1.Role
			find(t, objects, c.kind, c.name, &r)
			got = rights(r.Rules)
		} else {
			var r rbacv1.ClusterRole
			find(t, objects, c.kind, c.name, &r)
			got = rights(r.Rules)
		}
		slices.Sort(c.want)
		for _, right := range got {
			if !slices.Contains(c.want, right) {
				t.Errorf("%s %s may %s, which nothing needs", c.kind, c.name, right)
			}
		}
		for _, right := range c.want {
			if !slices.Contains(got, right) {
				t.Errorf("%s %s may not %s", c.kind, c.name, right)
			}
		}
	}
	for _, o := range objects {
		if strings.HasSuffix(o.GetKind(), "RoleBinding") && strings.Contains(o.GetName(), "ztunnel") {
			t.Errorf("%s %s: ztunnel has no rights in the API", o.GetKind(), o.GetName())
		}
	}
}
