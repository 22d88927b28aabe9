package status

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// noWaypoints is what there is to say of a Gateway that should be a waypoint.
const noWaypoints = "This version of Tulle runs no waypoints: nothing listens for this Gateway, and traffic goes on without it."

// gatewayClass takes on no class while no waypoint of it runs.
func (v *view) gatewayClass(class *gatewayv1.GatewayClass) (Wanted, bool) {
	if class.Spec.ControllerName != ControllerName {
		return Wanted{}, false
	}
	const kind = string(gatewayv1.GatewayClassConditionStatusAccepted)
	for name, gw := range v.objects.Gateways {
		if string(gw.Spec.GatewayClassName) == class.Name && v.waypoints.Ready(name) {
			return Wanted{Conditions: []Condition{yes(kind, string(gatewayv1.GatewayClassReasonAccepted), "Gateways of this class are waypoints.")}}, true
		}
	}
	return Wanted{Conditions: []Condition{no(kind, string(gatewayv1.GatewayClassReasonUnsupported),
		"This version of Tulle runs no waypoints: Gateways of this class are not programmed.")}}, true
}

// gateway says whether the waypoint takes traffic. What it says of having served is
// never taken back: see translate.ConditionServing.
func (v *view) gateway(gw *gatewayv1.Gateway) (Wanted, bool) {
	if !translate.IsWaypoint(v.objects, gw) {
		return Wanted{}, false
	}
	name := source.Name{Namespace: gw.Namespace, Name: gw.Name}
	all, ready := v.waypoints.Pods(name)
	accepted := no(string(gatewayv1.GatewayConditionAccepted), string(gatewayv1.GatewayReasonPending), noWaypoints)
	programmed := no(string(gatewayv1.GatewayConditionProgrammed), string(gatewayv1.GatewayReasonPending), noWaypoints)
	var want Wanted
	switch {
	case ready > 0:
		accepted = yes(accepted.Type, string(gatewayv1.GatewayReasonAccepted), "It is a waypoint.")
		programmed = yes(programmed.Type, string(gatewayv1.GatewayReasonProgrammed), "Pods of the waypoint are ready.")
	case v.waypoints.Ready(name):
		accepted = yes(accepted.Type, string(gatewayv1.GatewayReasonAccepted), "It is a waypoint.")
		programmed.Message = "No pod of the waypoint is ready: connections to what is behind it are refused until one is."
	case all > 0:
		accepted = yes(accepted.Type, string(gatewayv1.GatewayReasonAccepted), "It is a waypoint.")
		programmed.Message = "No pod of the waypoint is ready yet: traffic goes on without it until one is."
	}
	want.Conditions = []Condition{accepted, programmed}
	if v.waypoints.Ready(name) {
		want.Conditions = append(want.Conditions, yes(translate.ConditionServing, "Serving", "It has taken traffic: what is behind it is reached through it or not at all."))
		if address, ok := v.waypoints.Address(name); ok {
			want.Addresses = []string{address}
		}
	}
	for _, l := range gw.Spec.Listeners {
		conditions := []Condition{
			{Type: string(gatewayv1.ListenerConditionAccepted), Status: accepted.Status, Reason: accepted.Reason, Message: accepted.Message},
			{Type: string(gatewayv1.ListenerConditionProgrammed), Status: programmed.Status, Reason: programmed.Reason, Message: programmed.Message},
		}
		if accepted.Status == metav1.ConditionTrue {
			conditions = append(conditions, yes(string(gatewayv1.ListenerConditionResolvedRefs), string(gatewayv1.ListenerReasonResolvedRefs), "It refers to nothing."))
		}
		want.Listeners = append(want.Listeners, Listener{Name: l.Name, Conditions: conditions})
	}
	return want, true
}

// addressesStand is true where none is wanted: others may have written some.
func addressesStand(have []gatewayv1.GatewayStatusAddress, want []string) bool {
	return len(want) == 0 || slices.EqualFunc(have, want, func(h gatewayv1.GatewayStatusAddress, w string) bool {
		return h.Type != nil && *h.Type == gatewayv1.HostnameAddressType && h.Value == w
	})
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
func (v *view) route(r metav1.Object, refs []gatewayv1.ParentReference) Wanted {
	var want Wanted
	backends, rules, total := v.backends.Check(r)
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
		var conditions []Condition
		if kind == "Gateway" && group == gatewayv1.GroupName {
			name := source.Name{Namespace: ns, Name: string(ref.Name)}
			gw := v.objects.Gateways[name]
			if gw == nil || !translate.IsWaypoint(v.objects, gw) {
				continue
			}
			if v.waypoints.Ready(name) {
				conditions = append(conditions, notAccepted(gatewayv1.RouteReasonNotAllowedByListeners, "Routes in the mesh are attached to services; at the Gateway of a waypoint they have no effect."))
			} else {
				conditions = append(conditions, notAccepted(gatewayv1.RouteReasonPending, noWaypoints))
			}
		} else {
			parents := translate.Parents(r.GetNamespace(), []gatewayv1.ParentReference{ref})
			if len(parents) == 0 {
				continue // another controller's
			}
			conditions = v.atService(parents[0], rules, total)
		}
		want.Parents = append(want.Parents, Parent{Ref: ref, Conditions: append(conditions, resolvedRefs(backends))})
	}
	return want
}

// atService says whether a route decides on the traffic of one of its parents. rules
// are those that cannot do what they say, by their index, of total.
func (v *view) atService(p translate.Parent, rules map[int]string, total int) []Condition {
	parent := v.objects.Object(p.Service)
	if parent == nil {
		return []Condition{notAccepted(gatewayv1.RouteReasonNoMatchingParent, fmt.Sprintf("%s does not exist.", p.Service))}
	}
	binding, asked := v.waypoints.Of(parent)
	resolved := no(ResolvedWaypoints, "NoWaypoint", fmt.Sprintf("%s asks for no waypoint: neither it nor its namespace has the label %s.", p.Service, source.LabelUseWaypoint))
	switch {
	case binding.Bound:
		resolved = yes(ResolvedWaypoints, ResolvedWaypoints, binding.Message)
	case asked:
		resolved = no(ResolvedWaypoints, binding.Reason, binding.Message)
	}
	if !p.HasPort(parent) {
		return []Condition{notAccepted(gatewayv1.RouteReasonNoMatchingParent, fmt.Sprintf("%s has no such TCP port.", p.Service)), resolved}
	}
	if !binding.Bound {
		return []Condition{notAccepted(gatewayv1.RouteReasonPending, "Routes of a service need a waypoint, and this version of Tulle runs none: the route has no effect."), resolved}
	}
	var faults []string
	for _, i := range slices.Sorted(maps.Keys(rules)) {
		faults = append(faults, fmt.Sprintf("rule %d: %s", i, rules[i]))
	}
	said := strings.Join(faults, ". ") + ": what they match is answered with 500."
	switch {
	case len(rules) == 0:
		return []Condition{accepted("It decides on what comes to the service."), resolved}
	case len(rules) == total:
		return []Condition{notAccepted(gatewayv1.RouteReasonUnsupportedValue, said), resolved}
	}
	return []Condition{accepted("It decides on what comes to the service."),
		yes(string(gatewayv1.RouteConditionPartiallyInvalid), string(gatewayv1.RouteReasonUnsupportedValue), said), resolved}
}

func accepted(message string) Condition {
	return yes(string(gatewayv1.RouteConditionAccepted), string(gatewayv1.RouteReasonAccepted), message)
}

func notAccepted(reason gatewayv1.RouteConditionReason, message string) Condition {
	return no(string(gatewayv1.RouteConditionAccepted), string(reason), message)
}

// resolvedRefs tells of the backends that are none.
func resolvedRefs(faults []translate.Fault) Condition {
	const kind = string(gatewayv1.RouteConditionResolvedRefs)
	if len(faults) == 0 {
		return yes(kind, string(gatewayv1.RouteReasonResolvedRefs), "All backends exist.")
	}
	var said []string
	for _, f := range faults {
		said = append(said, f.Message)
	}
	return no(kind, string(faults[0].Reason), strings.Join(said, "; ")+".")
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
