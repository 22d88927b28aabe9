package translate

import (
	"maps"
	"slices"

	security "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// bindings says which policies are bound to what by targetRefs. Waypoints enforce
// them, and node proxies do, for all pods that the waypoint stands before or
// should, on what does not come from it: no traffic gets around a policy because
// it gets around the proxy that knows it, or because that is not there.
type bindings struct {
	services map[source.Key][]string  // of Services and ServiceEntries
	gateways map[source.Name][]string // of Gateways, those of their classes included
	// unknown holds the policies of the class that a Gateway counts to which does
	// not exist.
	unknown []string
	// allowing are those that allow something, and so keep out others.
	allowing map[string]bool
}

func (b bindings) sameGateways(c bindings) bool {
	return slices.Equal(b.unknown, c.unknown) && maps.Equal(b.allowing, c.allowing) && maps.EqualFunc(b.gateways, c.gateways, slices.Equal[[]string])
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

// bind reads the targets of all policies that count. Sources let in no other kinds.
// Waypoints for which standing is true get their own form of what is bound to their
// class: see classPolicy.
func bind(objects *source.Objects, counts func(*securityv1.AuthorizationPolicy) bool, standing func(source.Name) bool) bindings {
	b := bindings{services: map[source.Key][]string{}, gateways: map[source.Name][]string{}, allowing: map[string]bool{}}
	classes, denying := map[string][]string{}, map[string]bool{}
	for _, name := range slices.SortedFunc(maps.Keys(objects.AuthorizationPolicies), compareNames) {
		ap := objects.AuthorizationPolicies[name]
		if !counts(ap) {
			continue
		}
		policy := name.Namespace + "/" + name.Name
		if bound(ap) && allowed(ap) {
			b.allowing[policy] = true
		}
		denying[policy] = deniesByClass(ap)
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
	b.unknown = classes[WaypointClass]
	for name, policies := range b.gateways {
		if objects.Gateways[name] == nil {
			b.gateways[name] = append(slices.Clip(policies), b.unknown...)
		}
	}
	for name, gw := range objects.Gateways {
		list := slices.Clip(b.gateways[name])
		for _, policy := range classes[string(gw.Spec.GatewayClassName)] {
			if denying[policy] && standing(name) {
				own := classPolicy(policyName(policy), name)
				policy = own.Namespace + "/" + own.Name
			}
			list = append(list, policy)
		}
		b.gateways[name] = list
	}
	return b
}

// gatewayPolicies returns the policies bound to the waypoint that an object of
// the namespace with these labels asks for.
func (ns *namespace) gatewayPolicies(labels map[string]string, namespace string) []string {
	return ns.bindings.atGateway(labels, namespace, ns.object)
}

// atGateway is gatewayPolicies; object, of the namespace, may be nil.
func (b bindings) atGateway(labels map[string]string, namespace string, object *corev1.Namespace) []string {
	if len(b.gateways) == 0 && len(b.unknown) == 0 {
		return nil
	}
	waypoint, _, ok := waypointName(labels, namespace, object)
	if !ok {
		return nil
	}
	if policies, ok := b.gateways[waypoint]; ok {
		return policies
	}
	return b.unknown
}
