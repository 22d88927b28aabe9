package translate

import (
	"maps"
	"slices"

	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"google.golang.org/protobuf/types/known/emptypb"

	apisecurity "github.com/tulle-mesh/tulle/api/security"
)

// The names of policies made from PeerAuthentications are Istio's. Their
// underscores cannot stand in the name of an object.
const (
	staticStrictName = "istio_converted_static_strict"
	convertedPrefix  = "converted_peer_authentication_"
)

// strictness says which made policies hold for the workloads of a namespace.
// Node proxies know no PeerAuthentication: STRICT is a DENY for connections
// without a peer identity.
type strictness struct {
	// unselected holds for workloads that no selector takes.
	unselected []string
	selectors  selectors[[]string]
}

func (s *strictness) policies(labels map[string]string) []string {
	if hits := s.selectors.find(labels); len(hits) > 0 {
		return hits[0] // the oldest wins
	}
	return s.unselected
}

// noPeer matches connections without a peer identity.
func noPeer() []*apisecurity.StringMatch {
	return []*apisecurity.StringMatch{{MatchType: &apisecurity.StringMatch_Presence{Presence: &emptypb.Empty{}}}}
}

func denyNoPeer(name, namespace string, match *apisecurity.Match) *Resource {
	match.NotPrincipals = noPeer()
	return policyResource(&apisecurity.Authorization{
		Name:      name,
		Namespace: namespace,
		Scope:     apisecurity.Scope_WORKLOAD_SELECTOR,
		Action:    apisecurity.Action_DENY,
		Rules:     []*apisecurity.Rule{{Clauses: []*apisecurity.Clause{{Matches: []*apisecurity.Match{match}}}}},
	})
}

// staticStrict is the one policy that all workloads share which are strict on
// every port.
func staticStrict(o Options) *Resource {
	return denyNoPeer(staticStrictName, o.RootNamespace, &apisecurity.Match{})
}

// resolveStrictness merges the PeerAuthentications of a namespace and of the
// root namespace, each ordered oldest first: the workload's goes before the
// namespace's, and that before the mesh's; at each level the oldest counts.
func resolveStrictness(o Options, namespace string, own, root []*securityv1.PeerAuthentication) (strictness, []*Resource) {
	strict := mode(oldestUnselected(root)) == security.PeerAuthentication_MutualTLS_STRICT
	if namespace != o.RootNamespace {
		if m := mode(oldestUnselected(own)); m != security.PeerAuthentication_MutualTLS_UNSET {
			strict = m == security.PeerAuthentication_MutualTLS_STRICT
		}
	}
	staticName := o.RootNamespace + "/" + staticStrictName
	var s strictness
	if strict {
		s.unselected = []string{staticName}
	}
	var converted []*Resource
	for i, pa := range own {
		labels := pa.Spec.GetSelector().GetMatchLabels()
		if len(labels) == 0 {
			continue
		}
		strict := strict
		if m := mode(pa); m != security.PeerAuthentication_MutualTLS_UNSET {
			strict = m == security.PeerAuthentication_MutualTLS_STRICT
		}
		exceptions := exceptionalPorts(pa, strict)
		switch {
		case len(exceptions) == 0 && strict:
			s.selectors.add(i, labels, []string{staticName})
		case len(exceptions) == 0:
			s.selectors.add(i, labels, nil)
		default:
			match := &apisecurity.Match{DestinationPorts: exceptions}
			if strict {
				match = &apisecurity.Match{NotDestinationPorts: exceptions}
			}
			r := denyNoPeer(convertedPrefix+pa.Name, pa.Namespace, match)
			converted = append(converted, r)
			s.selectors.add(i, labels, []string{r.Name})
		}
	}
	return s, converted
}

// exceptionalPorts returns the ports whose mode differs from the workload's, in order.
func exceptionalPorts(pa *securityv1.PeerAuthentication, strict bool) []uint32 {
	var ports []uint32
	for _, port := range slices.Sorted(maps.Keys(pa.Spec.PortLevelMtls)) {
		m := pa.Spec.PortLevelMtls[port].GetMode()
		if m != security.PeerAuthentication_MutualTLS_UNSET && (m == security.PeerAuthentication_MutualTLS_STRICT) != strict {
			ports = append(ports, port)
		}
	}
	return ports
}

func oldestUnselected(list []*securityv1.PeerAuthentication) *securityv1.PeerAuthentication {
	for _, pa := range list {
		if len(pa.Spec.GetSelector().GetMatchLabels()) == 0 {
			return pa
		}
	}
	return nil
}

// mode returns UNSET for nil. DISABLE is PERMISSIVE to a node proxy: it never
// refuses plaintext for being encrypted.
func mode(pa *securityv1.PeerAuthentication) security.PeerAuthentication_MutualTLS_Mode {
	if pa == nil {
		return security.PeerAuthentication_MutualTLS_UNSET
	}
	return pa.Spec.GetMtls().GetMode()
}
