package translate

import (
	"maps"
	"slices"

	security "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// bindings says which policies are bound to what by targetRefs. Waypoints would
// enforce them. While none run, the node proxies do, for all pods that the
// waypoint would stand before: no traffic gets around a policy because the proxy
// that should know it is not there.
type bindings struct {
	services map[source.Key][]string  // of Services and ServiceEntries
	gateways map[source.Name][]string // of Gateways, those of their classes included
	// unknown holds the policies of the class that a Gateway counts to which does
	// not exist.
	unknown []string
}

func (b bindings) sameGateways(c bindings) bool {
	return slices.Equal(b.unknown, c.unknown) && maps.EqualFunc(b.gateways, c.gateways, slices.Equal[[]string])
}

// picks reports whether the policy holds for some workloads of its scope only,
// which then list it. It is false for nil.
func picks(ap *securityv1.AuthorizationPolicy) bool {
	return ap != nil && (len(ap.Spec.GetSelector().GetMatchLabels()) > 0 || bound(ap))
}

// bound reports whether the policy has targets. It is false for nil.
func bound(ap *securityv1.AuthorizationPolicy) bool {
	return ap != nil && len(targets(&ap.Spec)) > 0
}

func targets(spec *security.AuthorizationPolicy) []*typev1beta1.PolicyTargetReference {
	if spec.TargetRef != nil {
		return append(slices.Clip(spec.TargetRefs), spec.TargetRef)
	}
	return spec.TargetRefs
}

// bind reads the targets of all policies. Sources let in no other kinds.
func bind(objects *source.Objects) bindings {
	b := bindings{services: map[source.Key][]string{}, gateways: map[source.Name][]string{}}
	classes := map[string][]string{}
	for _, name := range slices.SortedFunc(maps.Keys(objects.AuthorizationPolicies), compareNames) {
		ap := objects.AuthorizationPolicies[name]
		if !enforced(ap) {
			continue
		}
		policy := name.Namespace + "/" + name.Name
		for _, ref := range targets(&ap.Spec) {
			at := source.Name{Namespace: name.Namespace, Name: ref.GetName()}
			switch kind := ref.GetKind(); kind {
			case "Service", "ServiceEntry":
				key := source.Key{Kind: kind, Name: at}
				b.services[key] = append(b.services[key], policy)
			case "Gateway":
				b.gateways[at] = append(b.gateways[at], policy)
			case "GatewayClass":
				classes[ref.GetName()] = append(classes[ref.GetName()], policy)
			}
		}
	}
	if len(classes) == 0 {
		return b
	}
	b.unknown = classes[waypointClass]
	for name, policies := range b.gateways {
		if objects.Gateways[name] == nil {
			b.gateways[name] = append(slices.Clip(policies), b.unknown...)
		}
	}
	for name, gw := range objects.Gateways {
		b.gateways[name] = append(slices.Clip(b.gateways[name]), classes[string(gw.Spec.GatewayClassName)]...)
	}
	return b
}

// gatewayPolicies returns the policies bound to the waypoint that an object of
// the namespace with these labels asks for.
func (ns *namespace) gatewayPolicies(labels map[string]string, namespace string) []string {
	if len(ns.bindings.gateways) == 0 && len(ns.bindings.unknown) == 0 {
		return nil
	}
	waypoint, _, ok := waypointName(labels, namespace, ns.object)
	if !ok {
		return nil
	}
	if policies, ok := ns.bindings.gateways[waypoint]; ok {
		return policies
	}
	return ns.bindings.unknown
}
