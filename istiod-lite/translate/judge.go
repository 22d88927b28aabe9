package translate

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Verdict says whether what an operator wrote of traffic has an effect at any
// waypoint.
type Verdict struct {
	// Reason is one of Istio's words: Accepted, TargetNotFound, AncestorNotBound or
	// Overridden.
	Reason string
	// Message is a sentence for people.
	Message string
}

// The reasons of a Verdict.
const (
	Accepted         = "Accepted"
	TargetNotFound   = "TargetNotFound"
	AncestorNotBound = "AncestorNotBound"
	Overridden       = "Overridden"
)

// JudgeRule says whether waypoints act on a DestinationRule.
func (b *Backends) JudgeRule(x *Waypoints, dr *networkingv1.DestinationRule) Verdict {
	host := b.options.fqdn(dr.Spec.GetHost(), dr.Namespace)
	if dr.Spec.GetWorkloadSelector() != nil {
		return Verdict{AncestorNotBound, "It is for clients with a proxy of their own."}
	}
	if strings.HasPrefix(host, "*") {
		return Verdict{Accepted, "Waypoints reach by it the services that it names and no more exact rule."}
	}
	key, _, ok := b.hostOf(host, dr.Namespace)
	if !ok {
		return Verdict{TargetNotFound, fmt.Sprintf("No service has the host %s.", host)}
	}
	waypoint, bound := b.waypointOf(x, key)
	if !bound {
		return Verdict{AncestorNotBound, fmt.Sprintf("%s is behind no waypoint that is ready: only waypoints act on the rule, where their routes lead there.", key)}
	}
	switch dr.Namespace {
	case waypoint.Namespace, key.Namespace, b.options.RootNamespace:
	default:
		return Verdict{AncestorNotBound, fmt.Sprintf("The waypoint %s takes rules of its own namespace, of that of %s and of the root namespace: this one counts where waypoints of namespace %s send requests there.", waypoint, key, dr.Namespace)}
	}
	list := b.traffic().destinationRules(waypoint.Namespace, key.Namespace, host)
	for i, other := range list {
		switch {
		case other.Name != dr.Name || other.Namespace != dr.Namespace:
		case i == 0 || dr.Spec.GetTrafficPolicy() == nil:
			return Verdict{Accepted, fmt.Sprintf("The waypoint %s reaches %s by it.", waypoint, key)}
		default:
			return Verdict{Accepted, fmt.Sprintf("The waypoint %s reaches %s by its subsets; its policy counts only where the rule %s, which is older, has none.", waypoint, key, list[0].Name)}
		}
	}
	if len(list) > 0 {
		return Verdict{Overridden, fmt.Sprintf("The waypoint %s reaches %s by the rule %s/%s, which goes before it.", waypoint, key, list[0].Namespace, list[0].Name)}
	}
	return Verdict{AncestorNotBound, fmt.Sprintf("exportTo hides it from the waypoint %s.", waypoint)}
}

// JudgeVirtual says whether waypoints act on a VirtualService.
func (b *Backends) JudgeVirtual(x *Waypoints, vs *networkingv1.VirtualService) Verdict {
	if !inMesh(vs.Spec.GetGateways()) {
		return Verdict{AncestorNotBound, fmt.Sprintf("It is for the gateways %s and not for the mesh: without the gateway %q, or with no spec.gateways, waypoints do not act on it.", strings.Join(vs.Spec.GetGateways(), ", "), "mesh")}
	}
	verdict := Verdict{TargetNotFound, "It names no host."}
	for _, host := range vs.Spec.GetHosts() {
		is := b.judgeHost(x, vs, b.options.fqdn(host, vs.Namespace))
		if is.Reason == Accepted {
			return is
		}
		verdict = is
	}
	return verdict
}

func (b *Backends) judgeHost(x *Waypoints, vs *networkingv1.VirtualService, host string) Verdict {
	if strings.HasPrefix(host, "*") {
		return Verdict{Accepted, "It decides on what comes to the services that it names, where no route and no more exact VirtualService does."}
	}
	key, _, ok := b.hostOf(host, vs.Namespace)
	if !ok {
		return Verdict{TargetNotFound, fmt.Sprintf("No service has the host %s.", host)}
	}
	waypoint, bound := b.waypointOf(x, key)
	if !bound {
		return Verdict{AncestorNotBound, fmt.Sprintf("%s is behind no waypoint that is ready: the VirtualService has no effect.", key)}
	}
	if b.routed(key) {
		return Verdict{Overridden, fmt.Sprintf("Routes of the Gateway API decide on what comes to %s.", key)}
	}
	list := b.traffic().virtualServices(waypoint.Namespace, key.Namespace, host)
	switch {
	case len(list) > 0 && list[0].Name == vs.Name && list[0].Namespace == vs.Namespace:
		return Verdict{Accepted, fmt.Sprintf("It decides on what comes to %s through the waypoint %s.", key, waypoint)}
	case len(list) > 0:
		return Verdict{Overridden, fmt.Sprintf("VirtualService %s/%s, which is older or more exact, decides on what comes to %s.", list[0].Namespace, list[0].Name, key)}
	}
	return Verdict{AncestorNotBound, fmt.Sprintf("The waypoint %s of %s takes VirtualServices of its own namespace and the service's, as far as exportTo lets it.", waypoint, key)}
}

// JudgeTelemetry says whether a waypoint reports by a Telemetry, all of whose targets
// exist.
func (x *Waypoints) JudgeTelemetry(t *telemetryv1.Telemetry) Verdict {
	if t.Spec.GetSelector() != nil {
		return Verdict{AncestorNotBound, "Its selector takes proxies beside workloads, and there are none: bind it to a Gateway or a service by targetRefs."}
	}
	at := func(o *telemetryv1.Telemetry) []source.Key {
		if targets := TelemetryTargets(o); len(targets) > 0 {
			return targets
		}
		return []source.Key{{Kind: "Namespace", Name: source.Name{Name: o.Namespace}}}
	}
	places := at(t)
	won := slices.Clone(places)
	var winner *telemetryv1.Telemetry
	for name, other := range x.objects.Telemetries {
		if name.Namespace != t.Namespace || other == t || other.Spec.GetSelector() != nil || !older(other, t) {
			continue
		}
		for _, place := range at(other) {
			if i := slices.Index(won, place); i >= 0 && place.Kind != "Service" && place.Kind != "ServiceEntry" {
				won = slices.Delete(won, i, i+1)
				if winner == nil || older(other, winner) {
					winner = other
				}
			}
		}
	}
	if len(won) == 0 {
		return Verdict{Overridden, fmt.Sprintf("Telemetry %s of the same place is older, and counts.", winner.Name)}
	}
	var without []string
	for _, place := range won {
		ready := false
		switch place.Kind {
		case "Namespace":
			for name, w := range x.byName {
				ready = ready || w.ready && (name.Namespace == place.Name.Name || place.Name.Name == x.options.RootNamespace)
			}
		case "GatewayClass":
			ready = t.Namespace == x.options.RootNamespace && x.ClassReady(place.Name.Name)
		default:
			ready = x.Covers([]source.Key{place})
		}
		if !ready {
			without = append(without, place.String())
		}
	}
	if len(without) > 0 {
		return Verdict{AncestorNotBound, fmt.Sprintf("Only waypoints report by it, and none that is ready does for %s.", strings.Join(without, ", "))}
	}
	return Verdict{Accepted, "Waypoints report by it."}
}

// TelemetryGaps returns clauses on what of each Telemetry waypoints do not act on.
func (x *Waypoints) TelemetryGaps(providers *Providers) map[source.Name][]string {
	t := &Translator{options: x.options, providers: providers, waypoints: x}
	for _, w := range x.byName {
		t.telemetryOf(x.objects, w)
	}
	sortWarnings(t.telemetryWarned)
	out := map[source.Name][]string{}
	for _, w := range slices.Compact(t.telemetryWarned) {
		if name, ok := strings.CutPrefix(w.Object, "Telemetry "); ok {
			out[policyName(name)] = append(out[policyName(name)], w.Message)
		}
	}
	return out
}

// waypointOf returns the waypoint that a service is bound to.
func (b *Backends) waypointOf(x *Waypoints, key source.Key) (source.Name, bool) {
	obj := b.objects.Object(key)
	if obj == nil {
		return source.Name{}, false
	}
	binding, asked := x.Of(obj)
	return binding.Gateway, asked && binding.Bound
}

// routed reports whether a route of requests in the service's namespace is attached to
// it.
func (b *Backends) routed(service source.Key) bool {
	b.routes.Do(func() {
		b.attached = map[source.Key]bool{}
		add := func(obj metav1.Object) {
			refs, _ := references(obj)
			for _, p := range Parents(obj.GetNamespace(), refs) {
				if p.Service.Namespace == obj.GetNamespace() {
					b.attached[p.Service] = true
				}
			}
		}
		for _, r := range b.objects.HTTPRoutes {
			add(r)
		}
		for _, r := range b.objects.GRPCRoutes {
			add(r)
		}
	})
	return b.attached[service]
}
