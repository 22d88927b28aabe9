package translate

import (
	"fmt"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// waypointClass is the GatewayClass of waypoints.
const waypointClass = "istio-waypoint"

// waypointPort is the port of the listener that says who may use a waypoint.
const waypointPort = 15008

// The reasons of the condition istio.io/WaypointBound, which are Istio's.
const (
	WaypointIsNotReady     = "WaypointIsNotReady"
	AttachmentDenied       = "AttachmentDenied"
	UnsupportedTrafficType = "UnsupportedTrafficType"
)

// WaypointRefusal says why an object that asks for a waypoint has none.
type WaypointRefusal struct {
	// Gateway is the waypoint asked for.
	Gateway source.Name
	// Reason is one of Istio's words, Message a sentence for people.
	Reason, Message string
}

// Waypoint finds the waypoint that obj, a Service, ServiceEntry or
// WorkloadEntry, asks for with its own labels or its namespace's, and why it is
// not bound to it: no waypoints run yet, so none ever is. It is false when the
// object asks for none. It is a function of the objects alone.
func Waypoint(objects *source.Objects, obj metav1.Object) (WaypointRefusal, bool) {
	namespace := objects.Namespaces[source.Name{Name: obj.GetNamespace()}]
	name, own, ok := waypointName(obj.GetLabels(), obj.GetNamespace(), namespace)
	if !ok {
		return WaypointRefusal{}, false
	}
	refuse := func(reason, format string, args ...any) (WaypointRefusal, bool) {
		return WaypointRefusal{Gateway: name, Reason: reason, Message: fmt.Sprintf(format, args...)}, true
	}
	gw := objects.Gateways[name]
	if gw == nil {
		return refuse(WaypointIsNotReady, "Gateway %s does not exist; traffic goes on without a waypoint", name)
	}
	if !mayAttach(gw, obj.GetNamespace(), namespace) {
		return refuse(AttachmentDenied, "Gateway %s does not let namespace %s attach: see allowedRoutes of its listener", name, obj.GetNamespace())
	}
	_, workload := obj.(*networkingv1.WorkloadEntry)
	if kind := trafficType(objects, gw); !takes(kind, workload) {
		if workload && !own {
			return WaypointRefusal{}, false // the namespace's waypoint is for its services
		}
		return refuse(UnsupportedTrafficType, "Gateway %s is a waypoint for %s: see the label %s", name, kind, source.LabelWaypointFor)
	}
	return refuse(WaypointIsNotReady, "Gateway %s: this version of Tulle runs no waypoints; traffic goes on without, and policies bound to it are enforced, more strictly, by node proxies", name)
}

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
		if l.Port != waypointPort {
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

func takes(trafficType string, workload bool) bool {
	return trafficType == "all" || (trafficType == "workload") == workload && trafficType != "none"
}

// warnWaypoint tells of an object that asks for a waypoint with a label of its own.
func (ns *namespace) warnWaypoint(object string, labels map[string]string) {
	if waypoint, own, ok := waypointName(labels, ns.name, nil); ok && own {
		w := Warning{Object: object, Message: fmt.Sprintf("it asks for the waypoint %s, and this version of Tulle runs no waypoints: traffic goes on without, "+
			"HTTPRoutes have no effect, and policies bound to the waypoint or its services are enforced, more strictly, by node proxies", waypoint)}
		for _, have := range ns.warnings {
			if have == w {
				return // another host of the same ServiceEntry
			}
		}
		ns.warnings = append(ns.warnings, w)
	}
}
