package status

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// Warner tells by warnings what conditions tell in a cluster, where nobody writes any:
// in a mesh of files. There is no other controller there either, so that what names
// another one's objects is dead. It is not safe for concurrent use.
type Warner struct {
	// Decider decides as for a cluster.
	Decider Decider

	seen *source.Objects
	told []translate.Warning
}

// Warnings returns those of a state, in order and each once. For successive states it
// looks again only when something has changed that conditions depend on.
func (w *Warner) Warnings(objects *source.Objects) []translate.Warning {
	if w.seen != nil && !mayMatter(objects, w.seen) {
		w.seen = objects
		return w.told
	}
	v := w.Decider.view(objects)
	w.seen, w.told = objects, nil
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		for _, key := range objects.Keys(kind) {
			for _, text := range w.of(v, objects.Object(key)) {
				w.told = append(w.told, translate.Warning{Object: key.String(), Message: text})
			}
		}
	}
	slices.SortFunc(w.told, compareWarnings)
	w.told = slices.Compact(w.told)
	return w.told
}

// mayMatter reports whether anything has changed that conditions could depend on; it
// looks at no pods but those that changed.
func mayMatter(objects, since *source.Objects) bool {
	gateways := map[string]bool{}
	for name := range objects.Gateways {
		gateways[name.Namespace] = true
	}
	return slices.ContainsFunc(objects.Changes(since), func(key source.Key) bool {
		return relevant(key.Kind) || key.Kind == "Pod" && gateways[key.Namespace]
	})
}

func compareWarnings(a, b translate.Warning) int {
	if c := strings.Compare(a.Object, b.Object); c != 0 {
		return c
	}
	return strings.Compare(a.Message, b.Message)
}

// With returns the warnings of a state together with those of its translation, but for
// those which say in other words what conditions do.
func (w *Warner) With(translated []translate.Warning, objects *source.Objects) []translate.Warning {
	all := slices.Clone(w.Warnings(objects))
	for _, t := range translated {
		if !t.InStatus {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, compareWarnings)
	return slices.Compact(all)
}

// of returns sentences on what is not as the author of an object wants it.
func (w *Warner) of(v *view, obj metav1.Object) []string {
	want, _ := w.Decider.decide(v, obj)
	var texts []string
	say := func(text string) {
		if text = strings.TrimSuffix(text, "."); text != "" && !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	switch o := obj.(type) {
	case *gatewayv1.GatewayClass:
		return nil
	case *gatewayv1.Gateway:
		// Whether its pods are ready is told of who asks for it.
		if !translate.IsWaypoint(v.objects, o) {
			say(fmt.Sprintf("its class %s is not one of waypoints: nobody runs it here", o.Spec.GatewayClassName))
		}
		for _, l := range want.Listeners {
			for _, c := range l.Conditions {
				if c.Type == string(gatewayv1.ListenerConditionAccepted) && c.Status == metav1.ConditionFalse {
					say(fmt.Sprintf("listener %s: %s", l.Name, c.Message))
				}
			}
		}
		return texts
	case *networkingv1.VirtualService:
		for i, name := range o.Spec.GetGateways() {
			if name != "mesh" && slices.Contains(o.Spec.GetGateways(), "mesh") {
				say(fmt.Sprintf("spec.gateways[%d]: the gateway %s is none of the mesh, and nobody runs it here", i, name))
			}
		}
	}
	if obj.GetLabels()[source.LabelUseWaypoint] == "" {
		// What a namespace's label comes to is told of the namespace.
		want.Conditions = slices.DeleteFunc(want.Conditions, func(c Condition) bool { return c.Type == WaypointBound })
	}
	say(bad(want.Conditions))
	for _, p := range want.Parents {
		i := slices.IndexFunc(p.Conditions, func(c Condition) bool { return c.Type == string(gatewayv1.RouteConditionResolvedRefs) })
		if i >= 0 { // which is the same at all parents
			say(bad(p.Conditions[i : i+1]))
			p.Conditions = slices.Delete(slices.Clone(p.Conditions), i, i+1)
		}
		say(bad(p.Conditions))
	}
	for _, text := range w.elsewhere(v, obj) {
		say(text)
	}
	return texts
}

// bad joins the messages of conditions that tell of something amiss.
func bad(conditions []Condition) string {
	var said []string
	for _, c := range conditions {
		amiss := c.Status == metav1.ConditionFalse
		switch c.Type {
		case WaypointMissing, string(gatewayv1.RouteConditionPartiallyInvalid):
			amiss = !amiss
		}
		// What is not accepted is not enforced: its reason stands in the other condition.
		if (amiss || c.partly) && c.Reason != notAcceptedReason && !slices.Contains(said, c.Message) {
			said = append(said, c.Message)
		}
	}
	return strings.Join(said, " ")
}

// elsewhere speaks of the parents of a route that are not the mesh's: in a cluster they
// are another controller's business, and here nobody's.
func (w *Warner) elsewhere(v *view, obj metav1.Object) []string {
	var refs []gatewayv1.ParentReference
	switch r := obj.(type) {
	case *gatewayv1.HTTPRoute:
		refs = r.Spec.ParentRefs
	case *gatewayv1.GRPCRoute:
		refs = r.Spec.ParentRefs
	case *gatewayv1.TCPRoute:
		refs = r.Spec.ParentRefs
	case *gatewayv1.TLSRoute:
		refs = r.Spec.ParentRefs
	default:
		return nil
	}
	if len(refs) == 0 {
		return []string{"it is attached to nothing: no spec.parentRefs names a Service"}
	}
	var texts []string
	for i, ref := range refs {
		kind, namespace := "Gateway", obj.GetNamespace()
		if ref.Kind != nil {
			kind = string(*ref.Kind)
		}
		if ref.Namespace != nil {
			namespace = string(*ref.Namespace)
		}
		key := source.Key{Kind: kind, Name: source.Name{Namespace: namespace, Name: string(ref.Name)}}
		is := v.objects.Object(key)
		gw, isGateway := is.(*gatewayv1.Gateway)
		switch {
		case len(translate.Parents(obj.GetNamespace(), []gatewayv1.ParentReference{ref})) > 0, isGateway && translate.IsWaypoint(v.objects, gw):
			continue // conditions tell
		case is == nil:
			texts = append(texts, fmt.Sprintf("spec.parentRefs[%d]: %s does not exist", i, key))
		default:
			texts = append(texts, fmt.Sprintf("spec.parentRefs[%d]: %s is none of the mesh, and nobody runs it here: in the mesh, routes are attached to Services and ServiceEntries", i, key))
		}
	}
	return texts
}
