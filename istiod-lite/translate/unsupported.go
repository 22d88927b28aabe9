package translate

import (
	"slices"

	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Unsupported returns the attributes of a policy, sorted, on which node proxies
// cannot decide; none when they enforce it as it is written.
func Unsupported(o Options, ap *securityv1.AuthorizationPolicy) []string {
	r := &ruleTranslation{namespace: ap.Namespace, trustDomain: o.withDefaults().TrustDomain, deny: ap.Spec.Action != security.AuthorizationPolicy_ALLOW}
	for _, rule := range ap.Spec.Rules {
		r.rule(rule)
	}
	slices.Sort(r.unknown)
	return slices.Compact(r.unknown)
}

// Targets returns what a policy is bound to by targetRefs; none when it is one
// of workloads.
func Targets(ap *securityv1.AuthorizationPolicy) []source.Key {
	var keys []source.Key
	for _, ref := range targets(&ap.Spec) {
		key := source.Key{Kind: ref.GetKind(), Name: source.Name{Namespace: ap.Namespace, Name: ref.GetName()}}
		if key.Kind == "GatewayClass" {
			key.Namespace = ""
		}
		keys = append(keys, key)
	}
	return keys
}
