package status

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// The types of conditions of Tulle's own policies: whether one can be understood and
// has its targets, and whether a waypoint acts on it.
const (
	policyAccepted = string(gatewayv1.PolicyConditionAccepted)
	Enforced       = "Enforced"
)

// notAcceptedReason is that of Enforced where the other condition says why.
const notAcceptedReason = "NotAccepted"

// partly is a verdict with what of the object is not done as it is written.
func (d Decider) partly(verdict translate.Verdict, key source.Key, gaps []string) Condition {
	if d.Problems != nil {
		for _, p := range d.Problems(key) {
			gaps = append(gaps, strings.TrimPrefix(p.Field+": ", ": ")+p.Message)
		}
	}
	message := verdict.Message
	if len(gaps) > 0 {
		message += " " + strings.Join(gaps, ". ") + "."
	}
	switch {
	case verdict.Reason != translate.Accepted:
		return no(WaypointAccepted, verdict.Reason, message)
	case len(gaps) > 0:
		return no(WaypointAccepted, "PartiallyInvalid", message)
	}
	return yes(WaypointAccepted, verdict.Reason, message)
}

func (d Decider) destinationRule(v *view, dr *networkingv1.DestinationRule) Condition {
	return d.partly(v.backends.JudgeRule(v.waypoints, dr), source.KeyOf(dr), translate.RuleGaps(dr))
}

func (d Decider) virtualService(v *view, vs *networkingv1.VirtualService) Condition {
	gaps := translate.VirtualGaps(vs)
	gaps = append(gaps, v.backends.VirtualFaults(v.waypoints, vs)...)
	return d.partly(v.backends.JudgeVirtual(v.waypoints, vs), source.KeyOf(vs), gaps)
}

// ancestors has the form of a route's parents.
func ancestors(s gatewayv1.PolicyStatus) []gatewayv1.RouteParentStatus {
	out := make([]gatewayv1.RouteParentStatus, 0, len(s.Ancestors))
	for _, a := range s.Ancestors {
		out = append(out, gatewayv1.RouteParentStatus{ParentRef: a.AncestorRef, ControllerName: a.ControllerName, Conditions: a.Conditions})
	}
	return out
}

// ancestor is the reference to a policy's target.
func ancestor(namespace string, group gatewayv1.Group, kind gatewayv1.Kind, name gatewayv1.ObjectName, section *gatewayv1.SectionName) (gatewayv1.ParentReference, source.Key) {
	ns := gatewayv1.Namespace(namespace)
	return gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &ns, Name: name, SectionName: section},
		source.Key{Kind: string(kind), Name: source.Name{Namespace: namespace, Name: string(name)}}
}

// maxAncestors is the Gateway API's.
const maxAncestors = 16

// target says of one target of a policy whether the policy has it.
func (v *view) target(policy metav1.Object, key source.Key, section string) Condition {
	const kind = policyAccepted
	obj := v.objects.Object(key)
	if obj == nil {
		return no(kind, string(gatewayv1.PolicyReasonTargetNotFound), fmt.Sprintf("%s does not exist.", key))
	}
	if section != "" && !(translate.Parent{Ref: gatewayv1.ParentReference{SectionName: (*gatewayv1.SectionName)(&section)}, Service: key}).HasPort(obj) {
		return no(kind, string(gatewayv1.PolicyReasonTargetNotFound), fmt.Sprintf("%s has no TCP port named %s.", key, section))
	}
	if winner := v.backends.Loses(policy, key, section); winner != nil {
		return no(kind, string(gatewayv1.PolicyReasonConflicted), fmt.Sprintf("The policy %s of %s is older, or the first by name, and counts.", winner.GetName(), key))
	}
	message := fmt.Sprintf("Waypoints that send requests to %s do it by this policy.", key)
	if binding, asked := v.waypoints.Of(obj); !asked || !binding.Bound {
		message = fmt.Sprintf("%s is behind no waypoint that is ready: the policy has an effect only where routes of others lead there.", key)
	}
	return yes(kind, string(gatewayv1.PolicyReasonAccepted), message)
}

func (v *view) backendTLS(p *gatewayv1.BackendTLSPolicy) Wanted {
	const resolved = string(gatewayv1.BackendTLSPolicyConditionResolvedRefs)
	_, wrong, none := v.backends.Authorities(p)
	refs := yes(resolved, string(gatewayv1.BackendTLSPolicyReasonResolvedRefs), "It says whom to trust.")
	var said []string
	for _, f := range wrong {
		said = append(said, f.Message)
	}
	if len(wrong) > 0 {
		reason := string(wrong[0].Reason)
		if reason == string(gatewayv1.BackendTLSPolicyReasonNoValidCACertificate) {
			reason = string(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef)
		}
		refs = no(resolved, reason, strings.Join(said, ". ")+".")
	}
	var want Wanted
	for _, t := range p.Spec.TargetRefs {
		ref, key := ancestor(p.Namespace, t.Group, t.Kind, t.Name, t.SectionName)
		if !slices.Contains([]string{"Service", "ServiceEntry"}, key.Kind) || len(want.Parents) == maxAncestors {
			continue
		}
		section := ""
		if t.SectionName != nil {
			section = string(*t.SectionName)
		}
		c := v.target(p, key, section)
		if none && c.Status == metav1.ConditionTrue {
			c = no(c.Type, string(gatewayv1.BackendTLSPolicyReasonNoValidCACertificate), strings.Join(said, ". ")+": requests get 503.")
		}
		want.Parents = append(want.Parents, Parent{Ref: ref, Conditions: []Condition{c, refs}})
	}
	return want
}

func (v *view) backendTraffic(p *gatewayxv1alpha1.XBackendTrafficPolicy) Wanted {
	var want Wanted
	for _, t := range p.Spec.TargetRefs {
		ref, key := ancestor(p.Namespace, t.Group, t.Kind, t.Name, nil)
		if slices.Contains([]string{"Service", "ServiceEntry"}, key.Kind) && len(want.Parents) < maxAncestors {
			want.Parents = append(want.Parents, Parent{Ref: ref, Conditions: []Condition{v.target(p, key, "")}})
		}
	}
	return want
}

func (v *view) backendPolicy(p *policyv1alpha1.BackendPolicy) []Condition {
	return v.own(p, p.Spec.TargetRefs, source.BackendPolicyFaults(p), "")
}

func (v *view) faultPolicy(p *policyv1alpha1.FaultPolicy) []Condition {
	var refused string
	if !translate.FaultsAllowed(v.objects, p.Namespace) {
		refused = fmt.Sprintf("Namespace %s does not allow faults: it has no label %s: \"true\".", p.Namespace, policyv1alpha1.LabelAllowFaults)
	}
	return v.own(p, p.Spec.TargetRefs, source.FaultPolicyFaults(p), refused)
}

// own speaks of a policy of Tulle's; refused says why its namespace does not have it.
func (v *view) own(p metav1.Object, refs []policyv1alpha1.TargetRef, faults field.ErrorList, refused string) []Condition {
	reject := func(reason gatewayv1.PolicyConditionReason, message string) []Condition {
		return []Condition{no(policyAccepted, string(reason), message), no(Enforced, notAcceptedReason, "It is not accepted.")}
	}
	if len(faults) > 0 {
		var said []string
		for _, f := range faults {
			said = append(said, f.Error())
		}
		return reject(gatewayv1.PolicyReasonInvalid, strings.Join(said, ". ")+".")
	}
	if refused != "" {
		return reject("FaultsNotAllowed", refused)
	}
	var wrong, idle []string
	reason := gatewayv1.PolicyReasonTargetNotFound
	for _, t := range refs {
		key, section := source.Key{Kind: t.Kind, Name: source.Name{Namespace: p.GetNamespace(), Name: t.Name}}, ""
		if t.SectionName != nil {
			section = *t.SectionName
		}
		if t.Kind == "HTTPRoute" || t.Kind == "GRPCRoute" {
			route := v.objects.Object(key)
			switch {
			case route == nil:
				wrong = append(wrong, fmt.Sprintf("%s does not exist", key))
			case section != "" && !slices.Contains(ruleNames(route), section):
				wrong = append(wrong, fmt.Sprintf("%s has no rule named %s", key, section))
			case !v.routeBound(route):
				idle = append(idle, fmt.Sprintf("%s is attached to no service behind a waypoint that is ready", key))
			}
			continue
		}
		if c := v.target(p, key, section); c.Status != metav1.ConditionTrue {
			reason = gatewayv1.PolicyConditionReason(c.Reason)
			wrong = append(wrong, strings.TrimSuffix(c.Message, "."))
		} else if binding, asked := v.waypoints.Of(v.objects.Object(key)); !asked || !binding.Bound {
			idle = append(idle, fmt.Sprintf("%s is behind no waypoint that is ready", key))
		}
	}
	if len(wrong) == len(refs) {
		return reject(reason, strings.Join(wrong, ". ")+".")
	}
	accepted := yes(policyAccepted, string(gatewayv1.PolicyReasonAccepted), "It is understood.")
	if len(wrong) > 0 {
		accepted = yes(policyAccepted, string(gatewayv1.PolicyReasonAccepted), "It holds for its other targets. "+strings.Join(wrong, ". ")+".")
		accepted.partly = true
	}
	if len(idle) > 0 {
		return []Condition{accepted, no(Enforced, AncestorNotBound, strings.Join(idle, ". ")+".")}
	}
	return []Condition{accepted, yes(Enforced, Enforced, "Waypoints act on it.")}
}

// AncestorNotBound is the reason of what no waypoint acts on.
const AncestorNotBound = translate.AncestorNotBound

func (v *view) routeBound(route metav1.Object) bool {
	var refs []gatewayv1.ParentReference
	switch r := route.(type) {
	case *gatewayv1.HTTPRoute:
		refs = r.Spec.ParentRefs
	case *gatewayv1.GRPCRoute:
		refs = r.Spec.ParentRefs
	}
	return slices.ContainsFunc(translate.Parents(route.GetNamespace(), refs), func(p translate.Parent) bool {
		parent := v.objects.Object(p.Service)
		if parent == nil {
			return false
		}
		binding, _ := v.waypoints.Of(parent)
		return binding.Bound
	})
}

func ruleNames(route metav1.Object) []string {
	var names []string
	add := func(name *gatewayv1.SectionName) {
		if name != nil {
			names = append(names, string(*name))
		}
	}
	switch r := route.(type) {
	case *gatewayv1.HTTPRoute:
		for i := range r.Spec.Rules {
			add(r.Spec.Rules[i].Name)
		}
	case *gatewayv1.GRPCRoute:
		for i := range r.Spec.Rules {
			add(r.Spec.Rules[i].Name)
		}
	}
	return names
}
