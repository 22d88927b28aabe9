package status

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	security "istio.io/api/security/v1beta1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/istiod-lite/deploy"
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
	// Deployed says what became of the deployment of a Gateway's waypoint; nil where
	// nobody deploys any.
	Deployed func(*gatewayv1.Gateway) deploy.Outcome
}

// view is what decisions about one state have in common. It is immutable.
type view struct {
	objects   *source.Objects
	waypoints *translate.Waypoints
	backends  *translate.Backends
	providers func() *translate.Providers
	// telemetry is what of each Telemetry waypoints do not act on.
	telemetry func() map[source.Name][]string
}

func (d Decider) view(objects *source.Objects) *view {
	v := &view{objects: objects, waypoints: translate.WaypointsOf(objects, d.Options), backends: translate.NewBackends(objects, d.Options),
		providers: sync.OnceValue(func() *translate.Providers { return translate.ProvidersOf(objects, d.Options) })}
	v.telemetry = sync.OnceValue(func() map[source.Name][]string { return v.waypoints.TelemetryGaps(v.providers()) })
	return v
}

// Decide returns what should stand in the status of obj, one of objects, and
// false when nothing in it is ours.
func (d Decider) Decide(objects *source.Objects, obj metav1.Object) (Wanted, bool) {
	return d.decide(d.view(objects), obj)
}

func (d Decider) decide(v *view, obj metav1.Object) (Wanted, bool) {
	switch o := obj.(type) {
	case *corev1.Service, *networkingv1.WorkloadEntry:
		return Wanted{Conditions: v.waypointBound(o)}, true
	case *networkingv1.ServiceEntry:
		return Wanted{Conditions: append(v.waypointBound(o), serviceEntry(o)...)}, true
	case *securityv1.AuthorizationPolicy:
		return Wanted{Conditions: []Condition{d.policy(v, o)}}, true
	case *securityv1.RequestAuthentication:
		return Wanted{Conditions: []Condition{d.request(v, o)}}, true
	case *telemetryv1.Telemetry:
		return Wanted{Conditions: []Condition{d.telemetry(v, o)}}, true
	case *gatewayv1.GatewayClass:
		return v.gatewayClass(o)
	case *gatewayv1.Gateway:
		return d.gateway(v, o)
	case *gatewayv1.HTTPRoute:
		return v.route(o, o.Spec.ParentRefs), true
	case *gatewayv1.GRPCRoute:
		return v.route(o, o.Spec.ParentRefs), true
	case *gatewayv1.TCPRoute:
		return v.route(o, o.Spec.ParentRefs), true
	case *gatewayv1.TLSRoute:
		return v.route(o, o.Spec.ParentRefs), true
	case *networkingv1.DestinationRule:
		return Wanted{Conditions: []Condition{d.destinationRule(v, o)}}, true
	case *networkingv1.VirtualService:
		return Wanted{Conditions: []Condition{d.virtualService(v, o)}}, true
	case *gatewayv1.BackendTLSPolicy:
		return v.backendTLS(o), true
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		return v.backendTraffic(o), true
	case *policyv1alpha1.RateLimitPolicy:
		return Wanted{Conditions: v.rateLimit(o)}, true
	case *policyv1alpha1.FaultPolicy:
		return Wanted{Conditions: v.faultPolicy(o)}, true
	case *policyv1alpha1.BackendPolicy:
		return Wanted{Conditions: v.backendPolicy(o)}, true
	}
	return Wanted{}, false
}

// waypointBound is empty for an object that asks for no waypoint.
func (v *view) waypointBound(obj metav1.Object) []Condition {
	binding, asked := v.waypoints.Of(obj)
	switch {
	case !asked:
		return nil
	case binding.Bound:
		return []Condition{yes(WaypointBound, binding.Reason, binding.Message)}
	}
	return []Condition{no(WaypointBound, binding.Reason, binding.Message)}
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
func (d Decider) policy(v *view, ap *securityv1.AuthorizationPolicy) Condition {
	targets := translate.Targets(ap)
	covered := v.waypoints.Covers(targets)
	gaps := d.gaps(v, ap, covered)
	if len(targets) == 0 {
		if len(gaps) > 0 {
			return no(ZtunnelAccepted, "UnsupportedValue", strings.Join(gaps, ". ")+".")
		}
		return yes(ZtunnelAccepted, "Accepted", "Node proxies enforce it.")
	}
	if c, missing := v.missing(targets); missing {
		return c
	}
	if covered {
		message := "Waypoints enforce it, and node proxies do on what does not come through them."
		if len(gaps) > 0 {
			return no(WaypointAccepted, "PartiallyInvalid", message+" "+strings.Join(gaps, ". ")+".")
		}
		return yes(WaypointAccepted, "Accepted", message)
	}
	message := "Not all targets are behind a waypoint that is ready: node proxies enforce the policy for all connections to the pods behind its targets, " +
		"and what only a waypoint can decide makes it stricter."
	if ap.Spec.Action == security.AuthorizationPolicy_AUDIT {
		message = "Not all targets are behind a waypoint that is ready."
	}
	if len(gaps) > 0 {
		message += " " + strings.Join(gaps, ". ") + "."
	}
	return no(WaypointAccepted, "AncestorNotBound", message)
}

// missing tells of targets that do not exist.
func (v *view) missing(targets []source.Key) (Condition, bool) {
	missing := translate.Missing(v.objects, targets)
	if len(missing) == 0 {
		return Condition{}, false
	}
	return no(WaypointAccepted, "TargetNotFound", translate.NotThere(missing)+"."), true
}

// request says whether anybody checks the tokens that a RequestAuthentication is
// about; of one without targets it depends on the service.
func (d Decider) request(v *view, ra *securityv1.RequestAuthentication) Condition {
	var gaps []string
	if d.Problems != nil {
		for _, p := range d.Problems(source.Key{Kind: "RequestAuthentication", Name: source.Name{Namespace: ra.Namespace, Name: ra.Name}}) {
			gaps = append(gaps, strings.TrimPrefix(p.Field+": ", ": ")+p.Message)
		}
	}
	targets := translate.RequestTargets(ra)
	c, missing := v.missing(targets)
	switch {
	case missing:
		return c
	case len(gaps) > 0:
		return no(WaypointAccepted, "Invalid", strings.Join(gaps, ". ")+".")
	case len(targets) == 0:
		return yes(WaypointAccepted, "Accepted", "Waypoints check tokens of the requests to the services behind them; nobody else does.")
	case !v.waypoints.Covers(targets):
		return no(WaypointAccepted, "AncestorNotBound", "Only waypoints check tokens, and not all targets are behind one that is ready: requests with any token pass, and nobody has a request principal.")
	}
	return yes(WaypointAccepted, "Accepted", "Waypoints check tokens by it.")
}

// gaps returns sentences, without their stops, on what is not enforced as it is
// written: by node proxies, or, where the policy is covered, by waypoints.
func (d Decider) gaps(v *view, ap *securityv1.AuthorizationPolicy, covered bool) []string {
	var said []string
	if d.Problems != nil {
		for _, p := range d.Problems(source.Key{Kind: "AuthorizationPolicy", Name: source.Name{Namespace: ap.Namespace, Name: ap.Name}}) {
			said = append(said, strings.TrimPrefix(p.Field+": ", ": ")+p.Message)
		}
	}
	if covered {
		if fault := v.providers().Fault(ap); fault != "" {
			said = append(said, strings.ToUpper(fault[:1])+fault[1:]+": requests that it would be asked about are refused")
		}
		return said
	}
	switch ap.Spec.Action {
	case security.AuthorizationPolicy_AUDIT:
		said = append(said, "Action AUDIT has no effect: nobody keeps the audit, and no connection is denied for it")
	case security.AuthorizationPolicy_CUSTOM:
		said = append(said, "Only waypoints ask external authorizers: connections that its provider would be asked about are denied")
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
