package status

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// waypointClass is the GatewayClass of waypoints, also where it was not made.
const waypointClass = "istio-waypoint"

// noWaypoints is what there is to say of a Gateway that should be a waypoint.
const noWaypoints = "This version of Tulle runs no waypoints: nothing listens for this Gateway, and traffic goes on without it."

// gatewayClass takes on no class while no waypoints run.
func gatewayClass(class *gatewayv1.GatewayClass) (Wanted, bool) {
	if class.Spec.ControllerName != ControllerName {
		return Wanted{}, false
	}
	return Wanted{Conditions: []Condition{no(string(gatewayv1.GatewayClassConditionStatusAccepted), string(gatewayv1.GatewayClassReasonUnsupported),
		"This version of Tulle runs no waypoints: Gateways of this class are not programmed.")}}, true
}

// ours reports whether a Gateway is for Tulle to program.
func ours(objects *source.Objects, gw *gatewayv1.Gateway) bool {
	name := string(gw.Spec.GatewayClassName)
	if class := objects.GatewayClasses[source.Name{Name: name}]; class != nil {
		return class.Spec.ControllerName == ControllerName
	}
	return name == waypointClass
}

func gateway(objects *source.Objects, gw *gatewayv1.Gateway) (Wanted, bool) {
	if !ours(objects, gw) {
		return Wanted{}, false
	}
	want := Wanted{Conditions: []Condition{
		no(string(gatewayv1.GatewayConditionAccepted), string(gatewayv1.GatewayReasonPending), noWaypoints),
		no(string(gatewayv1.GatewayConditionProgrammed), string(gatewayv1.GatewayReasonPending), noWaypoints),
	}}
	for _, l := range gw.Spec.Listeners {
		want.Listeners = append(want.Listeners, Listener{Name: l.Name, Conditions: []Condition{
			no(string(gatewayv1.ListenerConditionAccepted), string(gatewayv1.ListenerReasonPending), noWaypoints),
			no(string(gatewayv1.ListenerConditionProgrammed), string(gatewayv1.ListenerReasonPending), noWaypoints),
		}})
	}
	return want, true
}

func listenersStand(have []gatewayv1.ListenerStatus, want []Listener, generation int64) bool {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h gatewayv1.ListenerStatus) bool {
			return h.Name == w.Name && stands(w.Conditions, h.Conditions, generation, nil)
		}) {
			return false
		}
	}
	return true
}

// route speaks of the parents that are Tulle's: services of the mesh, and
// Gateways of its classes. A route with none has nothing of ours in its status.
func route(objects *source.Objects, r metav1.Object, refs []gatewayv1.ParentReference, backends []gatewayv1.BackendRef) Wanted {
	var want Wanted
	for _, ref := range refs {
		group, kind, ns := gatewayv1.GroupName, "Gateway", r.GetNamespace()
		if ref.Group != nil {
			group = string(*ref.Group)
		}
		if ref.Kind != nil {
			kind = string(*ref.Kind)
		}
		if ref.Namespace != nil {
			ns = string(*ref.Namespace)
		}
		key := source.Key{Kind: kind, Name: source.Name{Namespace: ns, Name: string(ref.Name)}}
		var conditions []Condition
		switch {
		case kind == "Gateway" && group == gatewayv1.GroupName:
			gw := objects.Gateways[key.Name]
			if gw == nil || !ours(objects, gw) {
				continue
			}
			conditions = append(conditions, notAccepted(gatewayv1.RouteReasonPending, noWaypoints))
		case kind == "Service" && group == "", kind == "ServiceEntry" && group == "networking.istio.io":
			parent := objects.Object(key)
			if parent == nil {
				conditions = append(conditions, notAccepted(gatewayv1.RouteReasonNoMatchingParent, fmt.Sprintf("%s does not exist.", key)))
				break
			}
			conditions = append(conditions,
				notAccepted(gatewayv1.RouteReasonPending, "Routes of a service need a waypoint, and this version of Tulle runs none: the route has no effect."),
				resolvedWaypoints(objects, parent, key))
		default:
			continue // another controller's
		}
		want.Parents = append(want.Parents, Parent{Ref: ref, Conditions: append(conditions, resolvedRefs(objects, r.GetNamespace(), backends))})
	}
	return want
}

func notAccepted(reason gatewayv1.RouteConditionReason, message string) Condition {
	return no(string(gatewayv1.RouteConditionAccepted), string(reason), message)
}

// resolvedWaypoints says whether the parent of a route is behind a waypoint.
func resolvedWaypoints(objects *source.Objects, parent metav1.Object, key source.Key) Condition {
	refusal, asked := translate.Waypoint(objects, parent)
	if !asked {
		return no(ResolvedWaypoints, "NoWaypoint", fmt.Sprintf("%s asks for no waypoint: neither it nor its namespace has the label %s.", key, source.LabelUseWaypoint))
	}
	return no(ResolvedWaypoints, refusal.Reason, refusal.Message)
}

// resolvedRefs looks the backends of a route up. One in another namespace needs
// a ReferenceGrant, which are not read while no route has an effect.
func resolvedRefs(objects *source.Objects, namespace string, backends []gatewayv1.BackendRef) Condition {
	const kind = string(gatewayv1.RouteConditionResolvedRefs)
	unknown := false
	for _, b := range backends {
		at := source.Key{Kind: "Service", Name: source.Name{Namespace: namespace, Name: string(b.Name)}}
		if b.Kind != nil {
			at.Kind = string(*b.Kind)
		}
		group := ""
		if b.Group != nil {
			group = string(*b.Group)
		}
		switch {
		case at.Kind == "Service" && group == "", at.Kind == "ServiceEntry" && group == "networking.istio.io":
		default:
			return no(kind, string(gatewayv1.RouteReasonInvalidKind), fmt.Sprintf("A backend of kind %s in group %q is not supported.", at.Kind, group))
		}
		if b.Namespace != nil && string(*b.Namespace) != namespace {
			unknown = true
			continue
		}
		if objects.Object(at) == nil {
			return no(kind, string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("%s does not exist.", at))
		}
	}
	if unknown {
		return Condition{Type: kind, Status: metav1.ConditionUnknown, Reason: string(gatewayv1.RouteReasonPending),
			Message: "Whether backends in other namespaces may be referred to is not looked at while routes have no effect."}
	}
	return yes(kind, string(gatewayv1.RouteReasonResolvedRefs), "All backends exist.")
}

// parentsStand compares the entries of this controller alone.
func parentsStand(have []gatewayv1.RouteParentStatus, want []Parent, generation int64) bool {
	mine := 0
	for _, h := range have {
		if h.ControllerName == ControllerName {
			mine++
		}
	}
	if mine != len(want) {
		return false
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h gatewayv1.RouteParentStatus) bool {
			return h.ControllerName == ControllerName && sameParent(h.ParentRef, w.Ref) && stands(w.Conditions, h.Conditions, generation, nil) && len(h.Conditions) == len(w.Conditions)
		}) {
			return false
		}
	}
	return true
}
