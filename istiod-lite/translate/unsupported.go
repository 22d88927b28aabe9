package translate

import (
	"slices"

	security "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"

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
	return targetKeys(ap.Namespace, targets(&ap.Spec))
}

// RequestTargets returns what a RequestAuthentication is bound to.
func RequestTargets(ra *securityv1.RequestAuthentication) []source.Key {
	return targetKeys(ra.Namespace, requestTargets(&ra.Spec))
}

// TelemetryTargets returns what a Telemetry is bound to.
func TelemetryTargets(t *telemetryv1.Telemetry) []source.Key {
	return targetKeys(t.Namespace, telemetryTargets(t))
}

func targetKeys(namespace string, refs []*typev1beta1.PolicyTargetReference) []source.Key {
	var keys []source.Key
	for _, ref := range refs {
		key := source.Key{Kind: ref.GetKind(), Name: source.Name{Namespace: namespace, Name: ref.GetName()}}
		if key.Kind == "GatewayClass" {
			key.Namespace = ""
		}
		keys = append(keys, key)
	}
	return keys
}
