package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// WaypointBinding says what became of an object's wish for a waypoint.
type WaypointBinding struct {
	// Gateway is the waypoint asked for.
	Gateway source.Name
	// Bound is set when traffic goes through it.
	Bound bool
	// Reason is one of Istio's words, Message a sentence for people.
	Reason, Message string

	// waypoint is set as soon as only its readiness is missing.
	waypoint *waypoint
}

// Of finds the waypoint that obj, a Service, ServiceEntry or WorkloadEntry of the
// mesh, asks for with its own labels or its namespace's, and whether it is bound to
// it. It is false when the object asks for none.
func (x *Waypoints) Of(obj metav1.Object) (WaypointBinding, bool) {
	namespace := x.objects.Namespaces[source.Name{Name: obj.GetNamespace()}]
	kind, labels := forService, obj.GetLabels()
	switch o := obj.(type) {
	case *networkingv1.WorkloadEntry:
		kind, labels = forWorkload, laidOver(o.Labels, o.Spec.Labels)
	case *networkingv1.ServiceEntry:
		if !carried(o) {
			kind = forNobody
		}
	case *corev1.Service:
		if x.own(source.Name{Namespace: o.Namespace, Name: o.Name}) {
			return WaypointBinding{}, false
		}
		if o.Spec.Type == corev1.ServiceTypeExternalName {
			kind = forNobody
		}
	}
	b, ok := x.bind(labels, obj.GetNamespace(), namespace, kind)
	if !b.Bound || kind == forWorkload {
		return b, ok
	}
	if second := x.canaryOf(obj, namespace, b.Gateway); second.said != "" {
		b.Message += " " + second.said
	}
	if throughIngress(obj.GetLabels(), namespace) {
		b.Message += " Ingress gateways go through it, too."
	}
	if maySkip(namespace) {
		b.Message += " Node proxies go past it while nothing is configured for the service."
	}
	return b, ok
}

// throughIngress reports whether an object asks to have ingress gateways go through
// its waypoint.
func throughIngress(labels map[string]string, namespace *corev1.Namespace) bool {
	value, ok := labels[source.LabelIngressUseWaypoint]
	if !ok && namespace != nil {
		value = namespace.Labels[source.LabelIngressUseWaypoint]
	}
	return value == "true"
}

// own reports whether a Service is that of a waypoint, which has no waypoint itself.
func (x *Waypoints) own(service source.Name) bool {
	for _, w := range x.byName {
		if w.service == service {
			return true
		}
	}
	return false
}

// carried reports whether a waypoint can take the traffic of a ServiceEntry: it
// must be able to tell where it goes.
func carried(se *networkingv1.ServiceEntry) bool {
	return se.Spec.Resolution != networking.ServiceEntry_NONE &&
		!slices.ContainsFunc(se.Spec.Hosts, func(host string) bool { return strings.HasPrefix(host, "*") })
}

// What asks for a waypoint.
type asker int

const (
	forService asker = iota
	forWorkload
	forNobody // a service that no waypoint can carry
)

// bind decides for an object of a namespace, whose own object may be nil.
func (x *Waypoints) bind(own map[string]string, namespace string, object *corev1.Namespace, kind asker) (WaypointBinding, bool) {
	name, itself, ok := waypointName(own, namespace, object)
	if !ok {
		return WaypointBinding{}, false
	}
	refuse := func(reason, format string, args ...any) (WaypointBinding, bool) {
		return WaypointBinding{Gateway: name, Reason: reason, Message: fmt.Sprintf(format, args...)}, true
	}
	gw := x.objects.Gateways[name]
	if gw == nil {
		return refuse(WaypointIsNotReady, "Gateway %s does not exist; traffic goes on without a waypoint", name)
	}
	if !mayAttach(gw, namespace, object) {
		return refuse(AttachmentDenied, "Gateway %s does not let namespace %s attach: see allowedRoutes of its listener", name, namespace)
	}
	if traffic := trafficType(x.objects, gw); !takes(traffic, kind == forWorkload) {
		if kind == forWorkload && !itself {
			return WaypointBinding{}, false // the namespace's waypoint is for its services
		}
		if !itself && traffic == "workload" {
			return refuse(UnsupportedTrafficType, "The namespace's waypoint %s is for workloads alone (label %s): what is addressed to the service goes without one, "+
				"and what is addressed to its pods through it", name, source.LabelWaypointFor)
		}
		return refuse(UnsupportedTrafficType, "Gateway %s is a waypoint for %s alone: see the label %s", name, trafficTypes(traffic), source.LabelWaypointFor)
	}
	w := x.byName[name]
	switch {
	case w == nil:
		return refuse(WaypointIsNotReady, "Gateway %s is of the class %s, which is not that of a waypoint; traffic goes on without a waypoint", name, gw.Spec.GatewayClassName)
	case kind == forNobody:
		return refuse(UnsupportedTrafficType, "Gateway %s cannot carry the traffic of what does not say where it goes: a ServiceEntry with wildcard hosts or the resolution NONE, or a Service that stands for a foreign name", name)
	case !w.ready:
		b, _ := refuse(WaypointIsNotReady, notReady, name)
		b.waypoint = w
		return b, true
	}
	what := "Traffic"
	if kind == forWorkload {
		what = "What is addressed to the workload itself"
	}
	return WaypointBinding{Gateway: name, Bound: true, Reason: WaypointAccepted, waypoint: w,
		Message: fmt.Sprintf("%s goes through the waypoint %s.", what, name)}, true
}

const notReady = "Gateway %s: no pod of the waypoint is ready yet; traffic goes on without, and policies bound to it are enforced, more strictly, by node proxies"

// waypointName returns the waypoint that an object with these labels asks for,
// and whether it does so itself, where its namespace's labels would count
// otherwise; false when none is asked for. Gateways that are waypoints, and what
// was made for one, never have one themselves.
func waypointName(labels map[string]string, namespace string, ns *corev1.Namespace) (name source.Name, own, ok bool) {
	if labels[source.LabelGatewayManaged] != "" {
		return source.Name{}, false, false
	}
	own = true
	value, set := labels[source.LabelUseWaypoint]
	if !set && ns != nil {
		own, labels = false, ns.Labels
		value = labels[source.LabelUseWaypoint]
	}
	if value == "" || value == "none" {
		return source.Name{}, false, false
	}
	if other := labels[source.LabelUseWaypointNamespace]; other != "" {
		namespace = other
	}
	return source.Name{Namespace: namespace, Name: value}, own, true
}

// mayAttach reads the listener that takes the mesh's traffic; one without a word
// about it lets its own namespace in.
func mayAttach(gw *gatewayv1.Gateway, namespace string, object *corev1.Namespace) bool {
	for _, l := range gw.Spec.Listeners {
		if l.Port != WaypointPort {
			continue
		}
		if l.AllowedRoutes == nil || l.AllowedRoutes.Namespaces == nil || l.AllowedRoutes.Namespaces.From == nil {
			break
		}
		switch *l.AllowedRoutes.Namespaces.From {
		case gatewayv1.NamespacesFromAll:
			return true
		case gatewayv1.NamespacesFromSelector:
			selector, err := metav1.LabelSelectorAsSelector(l.AllowedRoutes.Namespaces.Selector)
			return err == nil && object != nil && selector.Matches(labels.Set(object.Labels))
		case gatewayv1.NamespacesFromNone:
			return false
		}
		break
	}
	return gw.Namespace == namespace
}

// trafficType reads the Gateway's label, else its class's, else it is service.
func trafficType(objects *source.Objects, gw *gatewayv1.Gateway) string {
	if v := gw.Labels[source.LabelWaypointFor]; v != "" {
		return v
	}
	if class := objects.GatewayClasses[source.Name{Name: string(gw.Spec.GatewayClassName)}]; class != nil {
		if v := class.Labels[source.LabelWaypointFor]; v != "" {
			return v
		}
	}
	return "service"
}

func trafficTypes(trafficType string) string {
	switch trafficType {
	case "service", "workload":
		return trafficType + "s"
	}
	return strconv.Quote(trafficType) // none, or a value that is not known
}

func takes(trafficType string, workload bool) bool {
	return trafficType == "all" || (trafficType == "workload") == workload && trafficType != "none"
}

// warnWaypoint tells of an object that asks for a waypoint with a label of its
// own and does not get it.
func (ns *namespace) warnWaypoint(object string, labels map[string]string, asked WaypointBinding) {
	waypoint, own, ok := waypointName(labels, ns.name, nil)
	if !ok || !own || asked.Bound {
		return
	}
	w := Warning{Object: object, InStatus: !strings.HasPrefix(object, "Namespace "), Message: fmt.Sprintf("it asks for the waypoint %s, which is not ready: traffic goes on without, "+
		"HTTPRoutes have no effect, and policies bound to the waypoint or its services are enforced, more strictly, by node proxies", waypoint)}
	if asked.waypoint == nil && asked.Reason != "" { // more is missing than its readiness
		w.Message = fmt.Sprintf("it asks for the waypoint %s and does not get it: %s", waypoint, asked.Message)
	}
	if !slices.Contains(ns.warnings, w) { // another host of the same ServiceEntry
		ns.warnings = append(ns.warnings, w)
	}
}
