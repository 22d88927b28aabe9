package status

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// rateLimit says whether a policy is understood, and which waypoints keep its limits.
func (v *view) rateLimit(p *policyv1alpha1.RateLimitPolicy) []Condition {
	reject := func(reason gatewayv1.PolicyConditionReason, said []string) []Condition {
		return []Condition{no(policyAccepted, string(reason), strings.Join(said, ". ")+"."), no(Enforced, notAcceptedReason, "It is not accepted.")}
	}
	if faults := source.RateLimitFaults(p); len(faults) > 0 {
		var said []string
		for _, f := range faults {
			said = append(said, f.Error())
		}
		return reject(gatewayv1.PolicyReasonInvalid, said)
	}
	if b := p.Spec.Backend; b != nil && b.RateLimitService != nil {
		from := translate.Referrer{Group: policyv1alpha1.GroupName, Kind: "RateLimitPolicy", Namespace: p.Namespace}
		if _, _, fault := v.backends.Resolve(from, b.RateLimitService.BackendRef); fault != nil {
			return reject("BackendNotResolved", []string{fault.Message})
		}
	}
	var missing []string
	for _, ref := range p.Spec.TargetRefs {
		key := source.Key{Kind: ref.Kind, Name: source.Name{Namespace: p.Namespace, Name: ref.Name}}
		if ref.Kind == "Namespace" {
			continue // its own, which is there even where nobody reads Namespaces
		}
		obj := v.objects.Object(key)
		switch {
		case obj == nil:
			missing = append(missing, fmt.Sprintf("%s does not exist", key))
		case ref.SectionName != nil && !slices.Contains(ruleNames(obj), *ref.SectionName):
			missing = append(missing, fmt.Sprintf("%s has no rule named %s", key, *ref.SectionName))
		}
	}
	if len(missing) == len(p.Spec.TargetRefs) {
		return reject(gatewayv1.PolicyReasonTargetNotFound, missing)
	}
	accepted := yes(policyAccepted, string(gatewayv1.PolicyReasonAccepted), "It is understood.")
	if len(missing) > 0 {
		accepted.partly = true
		accepted.Message = "It holds for its other targets. " + strings.Join(missing, ". ") + "."
	}
	ready, without := v.waypoints.RateLimiters(p, func(route source.Key) []source.Key { return translate.ParentsOf(v.objects, route) })
	var by, idle []string
	for _, name := range ready {
		by = append(by, name.String())
	}
	for _, key := range without {
		idle = append(idle, key.String())
	}
	switch {
	case len(by) == 0:
		return []Condition{accepted, no(Enforced, AncestorNotBound, "Only waypoints keep limits, and none of its targets is behind one that is ready: nothing is limited.")}
	case len(idle) > 0:
		return []Condition{accepted, no(Enforced, "PartiallyEnforced", fmt.Sprintf("Waypoints keep it: %s. No waypoint that is ready stands before %s.", strings.Join(by, ", "), strings.Join(idle, ", ")))}
	}
	return []Condition{accepted, yes(Enforced, Enforced, fmt.Sprintf("Waypoints keep it: %s.", strings.Join(by, ", ")))}
}
