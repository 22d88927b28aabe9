package status

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/deploy"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// gatewayClass takes on the classes of waypoints.
func (v *view) gatewayClass(class *gatewayv1.GatewayClass) (Wanted, bool) {
	if class.Spec.ControllerName != ControllerName {
		return Wanted{}, false
	}
	const kind = string(gatewayv1.GatewayClassConditionStatusAccepted)
	return Wanted{Conditions: []Condition{yes(kind, string(gatewayv1.GatewayClassReasonAccepted), "Gateways of this class are waypoints.")}}, true
}

// gateway says whether the waypoint takes traffic. What it says of having served is
// never taken back: see translate.ConditionServing.
func (d Decider) gateway(v *view, gw *gatewayv1.Gateway) (Wanted, bool) {
	if !translate.IsWaypoint(v.objects, gw) {
		return Wanted{}, false
	}
	name := source.Name{Namespace: gw.Namespace, Name: gw.Name}
	var outcome deploy.Outcome
	if d.Deployed != nil {
		outcome = d.Deployed(gw)
	}
	all, ready := v.waypoints.Pods(name)
	accepted := yes(string(gatewayv1.GatewayConditionAccepted), string(gatewayv1.GatewayReasonAccepted), "It is a waypoint.")
	programmed := no(string(gatewayv1.GatewayConditionProgrammed), string(gatewayv1.GatewayReasonPending), "")
	switch {
	case ready > 0:
		programmed = yes(programmed.Type, string(gatewayv1.GatewayReasonProgrammed), "Pods of the waypoint are ready.")
	case v.waypoints.Ready(name):
		programmed.Message = "No pod of the waypoint is ready: connections to what is behind it are refused until one is."
	case all > 0:
		programmed.Message = "No pod of the waypoint is ready yet: traffic goes on without it until one is."
	case outcome.Managed:
		programmed.Message = "The waypoint is being deployed: traffic goes on without it until a pod of it is ready."
	default:
		programmed.Message = fmt.Sprintf("No pod of the waypoint runs, and it is not deployed from here: traffic goes on without it until pods of its own, behind the Service %s, are ready.", v.waypoints.Service(name))
	}
	var want Wanted
	switch {
	case outcome.Refused:
		accepted = no(accepted.Type, outcome.Reason, outcome.Message)
		if ready == 0 {
			programmed.Reason, programmed.Message = string(gatewayv1.GatewayReasonInvalid), outcome.Message
		}
	case outcome.Message != "" && ready == 0:
		programmed.Reason, programmed.Message = outcome.Reason, outcome.Message
	case outcome.Message != "":
		programmed.Message += " What it should be now is not in force. " + outcome.Message
	}
	problems := listenerProblems(gw)
	if len(problems) > 0 && accepted.Status == metav1.ConditionTrue {
		accepted.Reason, accepted.Message = string(gatewayv1.GatewayReasonListenersNotValid), "It is a waypoint. Some of its listeners have no effect."
		if len(problems) == len(gw.Spec.Listeners) {
			accepted.Status = metav1.ConditionFalse
		}
	}
	want.Conditions = []Condition{accepted, programmed}
	if v.waypoints.Ready(name) {
		want.Conditions = append(want.Conditions, yes(translate.ConditionServing, "Serving", "It has taken traffic: what is behind it is reached through it or not at all."))
		if address, ok := v.waypoints.Address(name); ok {
			want.Addresses = []string{address}
		}
	}
	for _, l := range gw.Spec.Listeners {
		want.Listeners = append(want.Listeners, Listener{Name: l.Name, Conditions: listenerConditions(accepted, programmed, problems[l.Name])})
	}
	return want, true
}

// listenerProblems says of the listeners that a waypoint cannot be why not.
func listenerProblems(gw *gatewayv1.Gateway) map[gatewayv1.SectionName]Condition {
	problems := map[gatewayv1.SectionName]Condition{}
	for _, l := range gw.Spec.Listeners {
		kind := string(gatewayv1.ListenerConditionAccepted)
		switch {
		case l.Protocol != "HBONE":
			problems[l.Name] = no(kind, string(gatewayv1.ListenerReasonUnsupportedProtocol), fmt.Sprintf("A waypoint takes the mesh's tunnels: the protocol must be HBONE, not %s.", l.Protocol))
		case l.Port != translate.WaypointPort:
			problems[l.Name] = no(kind, string(gatewayv1.ListenerReasonPortUnavailable), fmt.Sprintf("A waypoint listens on port %d, not on %d.", translate.WaypointPort, l.Port))
		}
	}
	return problems
}

func listenerConditions(accepted, programmed, problem Condition) []Condition {
	const acceptedType, programmedType = string(gatewayv1.ListenerConditionAccepted), string(gatewayv1.ListenerConditionProgrammed)
	if problem.Type != "" {
		return []Condition{problem, no(programmedType, string(gatewayv1.ListenerReasonInvalid), problem.Message)}
	}
	ready := Condition{Type: programmedType, Status: programmed.Status, Reason: programmed.Reason, Message: programmed.Message}
	if ready.Status != metav1.ConditionTrue && ready.Reason != string(gatewayv1.ListenerReasonPending) {
		ready.Reason = string(gatewayv1.ListenerReasonInvalid)
	}
	own := yes(acceptedType, string(gatewayv1.ListenerReasonAccepted), "It takes the mesh's tunnels.")
	if accepted.Status != metav1.ConditionTrue {
		own = no(acceptedType, string(gatewayv1.ListenerReasonPending), accepted.Message)
	}
	return []Condition{own, ready, yes(string(gatewayv1.ListenerConditionResolvedRefs), string(gatewayv1.ListenerReasonResolvedRefs), "It refers to nothing.")}
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
				conditions = append(conditions, notAccepted(gatewayv1.RouteReasonPending, "The waypoint is not ready, and routes in the mesh are attached to services: at its Gateway they have no effect."))
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
		return []Condition{notAccepted(gatewayv1.RouteReasonPending, "Routes of a service need a waypoint that is ready, and it has none: the route has no effect."), resolved}
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
