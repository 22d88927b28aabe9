package translate

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// The words of Istio's for what is wrong with a second waypoint. They stand in the
// message of a binding that holds: the first waypoint takes all.
const (
	CanaryInvalidWeight = "CanaryInvalidWeight"
	CanarySameAsPrimary = "CanarySameAsPrimary"
)

// canary is a second waypoint before a service, which takes a share of the new
// connections. It does what the first one does: what is bound to either Gateway holds
// at both.
type canary struct {
	// waypoint is nil when none is asked for, or none can be had; it need not be ready.
	waypoint *waypoint
	// percent of the connections, from 0 to 100; zero while it is not ready.
	percent uint32
	// said is what there is to say of it, empty without one.
	said string
}

// canaryOf finds the second waypoint that an object bound to the first one asks for:
// by its own labels and annotation, or else by its namespace's.
func (x *Waypoints) canaryOf(obj metav1.Object, object *corev1.Namespace, first source.Name) canary {
	var at metav1.Object = obj
	if at.GetLabels()[source.LabelUseWaypointCanary] == "" && object != nil {
		at = object
	}
	name := source.Name{Namespace: obj.GetNamespace(), Name: at.GetLabels()[source.LabelUseWaypointCanary]}
	if name.Name == "" || name.Name == "none" {
		return canary{}
	}
	if ns := at.GetLabels()[source.LabelUseWaypointCanaryNamespace]; ns != "" {
		name.Namespace = ns
	}
	fail := func(reason, format string, args ...any) canary {
		return canary{said: fmt.Sprintf("%s: "+format+"; all traffic goes through %s.", append(append([]any{reason}, args...), first)...)}
	}
	if name == first {
		return fail(CanarySameAsPrimary, "the second waypoint is the first one")
	}
	text := at.GetAnnotations()[source.AnnotationUseWaypointCanaryWeight]
	percent, err := strconv.ParseUint(text, 10, 32)
	if err != nil || percent > 100 {
		return fail(CanaryInvalidWeight, "the annotation %s is %q and must be a whole number from 0 to 100", source.AnnotationUseWaypointCanaryWeight, text)
	}
	gw, w := x.objects.Gateways[name], x.byName[name]
	switch {
	case gw == nil || w == nil:
		return fail(WaypointIsNotReady, "Gateway %s, the second waypoint, is not there or is none", name)
	case !mayAttach(gw, obj.GetNamespace(), object):
		return fail(AttachmentDenied, "Gateway %s, the second waypoint, does not let namespace %s attach", name, obj.GetNamespace())
	case !takes(trafficType(x.objects, gw), false):
		return fail(UnsupportedTrafficType, "Gateway %s, the second waypoint, is not for services", name)
	case !w.ready:
		c := fail(WaypointIsNotReady, "no pod of Gateway %s, the second waypoint, is ready", name)
		c.waypoint = w
		return c
	}
	return canary{waypoint: w, percent: uint32(percent), said: fmt.Sprintf("%d%% of new connections go through the waypoint %s.", percent, name)}
}

// divide has a service's connections be shared out among its waypoints.
func (c canary) divide(o Options, s *apiworkload.Service) {
	if c.percent == 0 || s.Waypoint == nil {
		return
	}
	s.WeightedWaypoints = []*apiworkload.WeightedWaypoint{{Destination: c.waypoint.address(o), Weight: c.percent}}
	if rest := 100 - c.percent; rest > 0 {
		s.WeightedWaypoints = append(s.WeightedWaypoints, &apiworkload.WeightedWaypoint{Destination: s.Waypoint, Weight: rest})
	}
}

// waypoints are those before the service, in their order.
func (s *service) waypoints() []*waypoint {
	switch {
	case s.waypoint == nil:
		return nil
	case s.canary == nil:
		return []*waypoint{s.waypoint}
	}
	return []*waypoint{s.waypoint, s.canary}
}
