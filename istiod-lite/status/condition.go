package status

import (
	"slices"
	"strings"

	istiometa "istio.io/api/meta/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
)

// ControllerName is Tulle's name as a controller of the Gateway API, which is
// the one that Istio's waypoints have.
const ControllerName = "istio.io/mesh-controller"

// The types of conditions, beside those of the Gateway API.
const (
	WaypointBound     = "istio.io/WaypointBound"
	WaypointMissing   = "istio.io/WaypointMissing"
	VisibilityApplied = "istio.io/VisibilityApplied"
	ZtunnelAccepted   = "ZtunnelAccepted"
	WaypointAccepted  = "WaypointAccepted"
	ResolvedWaypoints = "ResolvedWaypoints"
)

// Condition is one statement about an object.
type Condition struct {
	Type, Reason, Message string
	Status                metav1.ConditionStatus
	// partly says that the condition is True and its message tells of something that is
	// not as its author wants it.
	partly bool
}

func yes(kind, reason, message string) Condition {
	return Condition{Type: kind, Reason: reason, Message: limit(message), Status: metav1.ConditionTrue}
}

func no(kind, reason, message string) Condition {
	return Condition{Type: kind, Reason: reason, Message: limit(message), Status: metav1.ConditionFalse}
}

// limit cuts between characters: the API server would put another in the place of
// half of one, and the condition would never be as it should.
func limit(message string) string {
	return strings.ToValidUTF8(message[:min(len(message), maxMessageBytes)], "")
}

// Wanted is what should stand in an object's status of ours.
type Wanted struct {
	Conditions []Condition
	Listeners  []Listener // of a Gateway
	Addresses  []string   // of a Gateway: hostnames
	Parents    []Parent   // of a route; of a Gateway API's policy its ancestors
}

// Listener is what is said of a Gateway's listener.
type Listener struct {
	Name       gatewayv1.SectionName
	Conditions []Condition
}

// Parent is what is said of a route at one of its parents.
type Parent struct {
	Ref        gatewayv1.ParentReference
	Conditions []Condition
}

// kinds are those whose status is written, with the types of conditions at the
// top of the status that are ours to take away too.
var kinds = map[string][]string{
	"Service":               {WaypointBound},
	"ServiceEntry":          {WaypointBound, WaypointMissing, VisibilityApplied},
	"WorkloadEntry":         {WaypointBound},
	"AuthorizationPolicy":   {ZtunnelAccepted, WaypointAccepted},
	"RequestAuthentication": {WaypointAccepted},
	"Telemetry":             {WaypointAccepted},
	"GatewayClass":          nil,
	"Gateway":               nil,
	"HTTPRoute":             nil,
	"GRPCRoute":             nil,
	"TCPRoute":              nil,
	"TLSRoute":              nil,
	"DestinationRule":       {WaypointAccepted},
	"VirtualService":        {WaypointAccepted},
	"BackendTLSPolicy":      nil,
	"XBackendTrafficPolicy": nil,
	"FaultPolicy":           {policyAccepted, Enforced},
	"RateLimitPolicy":       {policyAccepted, Enforced},
	"BackendPolicy":         {policyAccepted, Enforced},
}

// relevant are the kinds that decisions depend on, besides the pods of waypoints.
func relevant(kind string) bool {
	_, ok := kinds[kind]
	return ok || kind == "Namespace" || kind == "ReferenceGrant" || kind == "ConfigMap"
}

// present returns the conditions that stand in an object.
func present(obj metav1.Object) []metav1.Condition {
	switch o := obj.(type) {
	case *corev1.Service:
		return o.Status.Conditions
	case *networkingv1.ServiceEntry:
		return fromIstio(o.Status.GetConditions())
	case *networkingv1.WorkloadEntry:
		return fromIstio(o.Status.GetConditions())
	case *securityv1.AuthorizationPolicy:
		return fromIstio(o.Status.GetConditions())
	case *securityv1.RequestAuthentication:
		return fromIstio(o.Status.GetConditions())
	case *telemetryv1.Telemetry:
		return fromIstio(o.Status.GetConditions())
	case *networkingv1.DestinationRule:
		return fromIstio(o.Status.GetConditions())
	case *networkingv1.VirtualService:
		return fromIstio(o.Status.GetConditions())
	case *policyv1alpha1.FaultPolicy:
		return o.Status.Conditions
	case *policyv1alpha1.RateLimitPolicy:
		return o.Status.Conditions
	case *policyv1alpha1.BackendPolicy:
		return o.Status.Conditions
	case *gatewayv1.GatewayClass:
		return o.Status.Conditions
	case *gatewayv1.Gateway:
		return o.Status.Conditions
	}
	return nil
}

func fromIstio(list []*istiometa.IstioCondition) []metav1.Condition {
	out := make([]metav1.Condition, 0, len(list))
	for _, c := range list {
		out = append(out, metav1.Condition{
			Type: c.GetType(), Status: metav1.ConditionStatus(c.GetStatus()), Reason: c.GetReason(), Message: c.GetMessage(),
			ObservedGeneration: c.GetObservedGeneration(), LastTransitionTime: metav1.NewTime(c.GetLastTransitionTime().AsTime()),
		})
	}
	return out
}

// stands reports whether the wanted conditions are among those present, and none
// of ours that is not wanted.
func stands(want []Condition, have []metav1.Condition, generation int64, ours []string) bool {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h metav1.Condition) bool {
			return h.Type == w.Type && h.Status == w.Status && h.Reason == w.Reason && h.Message == w.Message && h.ObservedGeneration == generation
		}) {
			return false
		}
	}
	return !slices.ContainsFunc(have, func(h metav1.Condition) bool {
		return slices.Contains(ours, h.Type) && !slices.ContainsFunc(want, func(w Condition) bool { return w.Type == h.Type })
	})
}

// upToDate reports whether obj's status says what is wanted.
func upToDate(obj metav1.Object, kind string, want Wanted) bool {
	generation := obj.GetGeneration()
	if !stands(want.Conditions, present(obj), generation, kinds[kind]) {
		return false
	}
	switch o := obj.(type) {
	case *gatewayv1.Gateway:
		return listenersStand(o.Status.Listeners, want.Listeners, generation) && addressesStand(o.Status.Addresses, want.Addresses)
	case *gatewayv1.HTTPRoute:
		return parentsStand(o.Status.Parents, want.Parents, generation)
	case *gatewayv1.GRPCRoute:
		return parentsStand(o.Status.Parents, want.Parents, generation)
	case *gatewayv1.TCPRoute:
		return parentsStand(o.Status.Parents, want.Parents, generation)
	case *gatewayv1.TLSRoute:
		return parentsStand(o.Status.Parents, want.Parents, generation)
	case *gatewayv1.BackendTLSPolicy:
		return parentsStand(ancestors(o.Status), want.Parents, generation)
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		return parentsStand(ancestors(o.Status), want.Parents, generation)
	}
	return true
}
