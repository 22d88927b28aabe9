package status

import (
	"fmt"
	"slices"
	"strings"

	security "istio.io/api/security/v1beta1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// Decider says what should stand in the status of objects.
type Decider struct {
	// Options are those of the translation.
	Options translate.Options
	// Problems returns what of an object the source did not understand; nil
	// when it understands all.
	Problems func(source.Key) []source.Problem
}

// Decide returns what should stand in the status of obj, one of objects, and
// false when nothing in it is ours.
func (d Decider) Decide(objects *source.Objects, obj metav1.Object) (Wanted, bool) {
	switch o := obj.(type) {
	case *corev1.Service, *networkingv1.WorkloadEntry:
		return Wanted{Conditions: waypointBound(objects, o)}, true
	case *networkingv1.ServiceEntry:
		return Wanted{Conditions: append(waypointBound(objects, o), serviceEntry(o)...)}, true
	case *securityv1.AuthorizationPolicy:
		return Wanted{Conditions: []Condition{d.policy(objects, o)}}, true
	case *gatewayv1.GatewayClass:
		return gatewayClass(o)
	case *gatewayv1.Gateway:
		return gateway(objects, o)
	case *gatewayv1.HTTPRoute:
		var backends []gatewayv1.BackendRef
		for _, rule := range o.Spec.Rules {
			for _, b := range rule.BackendRefs {
				backends = append(backends, b.BackendRef)
			}
		}
		return route(objects, o, o.Spec.ParentRefs, backends), true
	case *gatewayv1.GRPCRoute:
		var backends []gatewayv1.BackendRef
		for _, rule := range o.Spec.Rules {
			for _, b := range rule.BackendRefs {
				backends = append(backends, b.BackendRef)
			}
		}
		return route(objects, o, o.Spec.ParentRefs, backends), true
	}
	return Wanted{}, false
}

// waypointBound is empty for an object that asks for no waypoint.
func waypointBound(objects *source.Objects, obj metav1.Object) []Condition {
	refusal, asked := translate.Waypoint(objects, obj)
	if !asked {
		return nil
	}
	return []Condition{no(WaypointBound, refusal.Reason, refusal.Message)}
}

func serviceEntry(se *networkingv1.ServiceEntry) []Condition {
	visibility := "It is visible in all namespaces."
	if len(se.Spec.ExportTo) > 0 && !slices.Contains(se.Spec.ExportTo, "*") {
		visibility += " exportTo has no effect in ambient mode."
	}
	conditions := []Condition{yes(VisibilityApplied, "Public", visibility)}
	var wild []string
	for _, host := range se.Spec.Hosts {
		if strings.HasPrefix(host, "*") {
			wild = append(wild, host)
		}
	}
	if len(wild) > 0 && len(se.Spec.Addresses) == 0 {
		conditions = append(conditions, yes(WaypointMissing, "NoWaypointForWildcardService",
			fmt.Sprintf("Only a waypoint tells requests to %s by their names; without one, and without addresses, the entry takes no traffic.", strings.Join(wild, ", "))))
	}
	return conditions
}

// policy says who enforces a policy, and whether all of it.
func (d Decider) policy(objects *source.Objects, ap *securityv1.AuthorizationPolicy) Condition {
	gaps := d.gaps(ap)
	targets := translate.Targets(ap)
	if len(targets) == 0 {
		if len(gaps) > 0 {
			return no(ZtunnelAccepted, "UnsupportedValue", strings.Join(gaps, ". ")+".")
		}
		return yes(ZtunnelAccepted, "Accepted", "Node proxies enforce it.")
	}
	var missing []string
	for _, key := range targets {
		if objects.Object(key) == nil {
			missing = append(missing, key.String())
		}
	}
	if len(missing) > 0 {
		return no(WaypointAccepted, "TargetNotFound", fmt.Sprintf("It does not exist: %s.", strings.Join(missing, ", ")))
	}
	message := "This version of Tulle runs no waypoints: node proxies enforce the policy for all connections to the pods behind its targets, " +
		"and what only a waypoint can decide makes it stricter."
	if ap.Spec.Action == security.AuthorizationPolicy_AUDIT {
		message = "This version of Tulle runs no waypoints."
	}
	if len(gaps) > 0 {
		message += " " + strings.Join(gaps, ". ") + "."
	}
	return no(WaypointAccepted, "AncestorNotBound", message)
}

// gaps returns sentences, without their stops, on what node proxies do not
// enforce as it is written.
func (d Decider) gaps(ap *securityv1.AuthorizationPolicy) []string {
	var said []string
	if d.Problems != nil {
		for _, p := range d.Problems(source.Key{Kind: "AuthorizationPolicy", Name: source.Name{Namespace: ap.Namespace, Name: ap.Name}}) {
			said = append(said, strings.TrimPrefix(p.Field+": ", ": ")+p.Message)
		}
	}
	switch ap.Spec.Action {
	case security.AuthorizationPolicy_AUDIT:
		said = append(said, "Action AUDIT has no effect: nobody keeps the audit, and no connection is denied for it")
	case security.AuthorizationPolicy_CUSTOM:
		said = append(said, "External authorization is not supported yet: connections that its provider would be asked about are denied")
	}
	if attributes := translate.Unsupported(d.Options, ap); len(attributes) > 0 {
		consequence := "rules of the ALLOW policy with them are left out, so that it allows less than it says"
		if ap.Spec.Action != security.AuthorizationPolicy_ALLOW {
			consequence = "they count as met, so that the policy denies more than it says"
		}
		said = append(said, fmt.Sprintf("Node proxies cannot decide on %s; %s. A waypoint could", strings.Join(attributes, ", "), consequence))
	}
	return said
}
