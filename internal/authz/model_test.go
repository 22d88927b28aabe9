package authz_test

import (
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"pgregory.net/rapid"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	api "github.com/tulle-mesh/tulle/api/security"
	workloadapi "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/authz"
)

// model decides a policy the slow and obvious way, straight from the proto.
type model struct {
	a    authz.Attributes
	deny bool
}

func (m model) policy(p *api.Authorization) bool {
	if len(p.Extensions) > 0 || p.ProtoReflect().GetUnknown() != nil {
		return m.deny
	}
	for _, r := range p.Rules {
		if m.rule(r) {
			return true
		}
	}
	return false
}

func (m model) rule(r *api.Rule) bool {
	if r.ProtoReflect().GetUnknown() != nil {
		return m.deny
	}
	for _, c := range r.Clauses {
		if !m.clause(c) {
			return false
		}
	}
	return true
}

func (m model) clause(c *api.Clause) bool {
	if c.ProtoReflect().GetUnknown() != nil {
		return m.deny
	}
	if len(c.Matches) == 0 {
		return true
	}
	for _, x := range c.Matches {
		if m.match(x) {
			return true
		}
	}
	return false
}

func (m model) match(x *api.Match) bool {
	if proto.Size(x) == 0 {
		return false
	}
	if (len(x.Extensions) > 0 || x.ProtoReflect().GetUnknown() != nil) && !m.deny {
		return false
	}
	id := strings.TrimPrefix(m.a.Identity.String(), "spiffe://")
	var ns, sa string
	if parts := strings.Split(id, "/"); len(parts) == 5 {
		ns, sa = parts[2], parts[4]
	}
	return m.strings(x.Namespaces, ns, false) && m.strings(x.NotNamespaces, ns, true) &&
		m.strings(x.Principals, id, false) && m.strings(x.NotPrincipals, id, true) &&
		m.ips(x.SourceIps, m.a.Source, false) && m.ips(x.NotSourceIps, m.a.Source, true) &&
		m.ips(x.DestinationIps, m.a.Destination.Addr(), false) && m.ips(x.NotDestinationIps, m.a.Destination.Addr(), true) &&
		m.ports(x.DestinationPorts, false) && m.ports(x.NotDestinationPorts, true) &&
		m.accounts(x.ServiceAccounts, ns, sa, false) && m.accounts(x.NotServiceAccounts, ns, sa, true)
}

// field applies OR, the negation and the rule for values that are not
// understood, for which value returns ok = false.
func (m model) field(n int, not bool, value func(i int) (matches, ok bool)) bool {
	if n == 0 {
		return true
	}
	any := false
	for i := range n {
		matches, ok := value(i)
		if !ok {
			matches = m.deny != not
		}
		any = any || matches
	}
	return any != not
}

func (m model) strings(in []*api.StringMatch, v string, not bool) bool {
	has := !m.a.Identity.IsZero()
	return m.field(len(in), not, func(i int) (bool, bool) {
		if in[i].ProtoReflect().GetUnknown() != nil {
			return false, false
		}
		switch t := in[i].MatchType.(type) {
		case *api.StringMatch_Exact:
			return has && v == strings.TrimPrefix(t.Exact, "spiffe://"), true
		case *api.StringMatch_Prefix:
			return has && strings.HasPrefix(v, strings.TrimPrefix(t.Prefix, "spiffe://")), true
		case *api.StringMatch_Suffix:
			return has && strings.HasSuffix(v, t.Suffix), true
		case *api.StringMatch_Presence:
			return has, true
		}
		return false, false
	})
}

func (m model) ips(in []*api.Address, a netip.Addr, not bool) bool {
	return m.field(len(in), not, func(i int) (bool, bool) {
		addr, ok := netip.AddrFromSlice(in[i].Address)
		if !ok || int(in[i].Length) > addr.BitLen() {
			return false, false
		}
		p := netip.PrefixFrom(addr, int(in[i].Length))
		if addr.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(addr.Unmap(), p.Bits()-96)
		}
		return p.Contains(a), true
	})
}

func (m model) ports(in []uint32, not bool) bool {
	return m.field(len(in), not, func(i int) (bool, bool) {
		return in[i] == uint32(m.a.Destination.Port()), in[i] > 0 && in[i] < 65536
	})
}

func (m model) accounts(in []*api.ServiceAccountMatch, ns, sa string, not bool) bool {
	return m.field(len(in), not, func(i int) (bool, bool) {
		if in[i].Namespace == "" || in[i].ServiceAccount == "" {
			return false, false
		}
		return in[i].Namespace == ns && in[i].ServiceAccount == sa, true
	})
}

// decide applies DENY before ALLOW over whole policies.
func decide(a authz.Attributes, policies []*api.Authorization) bool {
	allows, allowed := false, false
	for _, p := range policies {
		if p.DryRun {
			continue
		}
		switch p.Action {
		case api.Action_DENY:
			if (model{a, true}).policy(p) {
				return false
			}
		case api.Action_ALLOW:
			allows = true
			allowed = allowed || (model{a, false}).policy(p)
		default:
			return false
		}
	}
	return !allows || allowed
}

// The generators draw from few values, so that policies do match.
var (
	genNamespace = rapid.SampledFrom([]string{"a", "ab", "b"})
	genPrincipal = rapid.SampledFrom([]string{"td/ns/a/sa/x", "td/ns/ab/sa/x", "spiffe://td/ns/b/sa/y", "td/", "/sa/x", ""})
	genAddr      = rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1", "fd00::2"})
	genPort      = rapid.SampledFrom([]uint32{80, 443, 8080, 0, 70000})
	extension    = []*workloadapi.Extension{{Name: "x"}}
)

func genStrings(values *rapid.Generator[string]) *rapid.Generator[[]*api.StringMatch] {
	return few(rapid.Custom(func(t *rapid.T) *api.StringMatch {
		v := values.Draw(t, "value")
		m := &api.StringMatch{}
		switch rapid.IntRange(0, 12).Draw(t, "kind") {
		case 0:
		case 1:
			m.MatchType = &api.StringMatch_Presence{Presence: &emptypb.Empty{}}
		case 2, 3:
			m.MatchType = &api.StringMatch_Prefix{Prefix: v}
		case 4, 5:
			m.MatchType = &api.StringMatch_Suffix{Suffix: v}
		default:
			m.MatchType = &api.StringMatch_Exact{Exact: v}
		}
		if rapid.IntRange(0, 30).Draw(t, "unknown") == 0 {
			unknownField(m)
		}
		return m
	}))
}

// few makes mostly empty and otherwise short lists.
func few[T any](g *rapid.Generator[T]) *rapid.Generator[[]T] {
	return rapid.Custom(func(t *rapid.T) []T {
		if rapid.IntRange(0, 3).Draw(t, "present") > 0 {
			return nil
		}
		return rapid.SliceOfN(g, 1, 3).Draw(t, "values")
	})
}

func unknownField(m proto.Message) {
	// Field 1000, varint 1.
	m.ProtoReflect().SetUnknown([]byte{0xc0, 0x3e, 0x01})
}

var genAddress = rapid.Custom(func(t *rapid.T) *api.Address {
	a := netip.MustParseAddr(genAddr.Draw(t, "addr"))
	out := &api.Address{Address: a.AsSlice(), Length: uint32(rapid.SampledFrom([]int{0, 8, 16, 31, 32}).Draw(t, "length"))}
	if rapid.IntRange(0, 20).Draw(t, "bad") == 0 {
		out.Length = 129
	}
	return out
})

var genAccount = rapid.Custom(func(t *rapid.T) *api.ServiceAccountMatch {
	return &api.ServiceAccountMatch{
		Namespace:      genNamespace.Draw(t, "ns"),
		ServiceAccount: rapid.SampledFrom([]string{"x", "y", ""}).Draw(t, "sa"),
	}
})

var genMatch = rapid.Custom(func(t *rapid.T) *api.Match {
	m := &api.Match{
		Namespaces: genStrings(genNamespace).Draw(t, "ns"), NotNamespaces: genStrings(genNamespace).Draw(t, "!ns"),
		Principals: genStrings(genPrincipal).Draw(t, "p"), NotPrincipals: genStrings(genPrincipal).Draw(t, "!p"),
		SourceIps: few(genAddress).Draw(t, "src"), NotSourceIps: few(genAddress).Draw(t, "!src"),
		DestinationIps: few(genAddress).Draw(t, "dst"), NotDestinationIps: few(genAddress).Draw(t, "!dst"),
		DestinationPorts: few(genPort).Draw(t, "port"), NotDestinationPorts: few(genPort).Draw(t, "!port"),
		ServiceAccounts: few(genAccount).Draw(t, "sa"), NotServiceAccounts: few(genAccount).Draw(t, "!sa"),
	}
	switch rapid.IntRange(0, 30).Draw(t, "unknown") {
	case 0:
		unknownField(m)
	case 1:
		m.Extensions = extension
	}
	return m
})

var genPolicy = rapid.Custom(func(t *rapid.T) *api.Authorization {
	p := &api.Authorization{
		Name: rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "name"), Namespace: "ns",
		Action: api.Action(rapid.SampledFrom([]int32{0, 0, 0, 1, 1, 1, 9}).Draw(t, "action")),
		DryRun: rapid.IntRange(0, 5).Draw(t, "dry") == 0,
	}
	p.Rules = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *api.Rule {
		r := &api.Rule{Clauses: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *api.Clause {
			c := &api.Clause{Matches: rapid.SliceOfN(genMatch, 0, 3).Draw(t, "matches")}
			if rapid.IntRange(0, 40).Draw(t, "unknown") == 0 {
				unknownField(c)
			}
			return c
		}), 0, 3).Draw(t, "clauses")}
		if rapid.IntRange(0, 40).Draw(t, "unknown") == 0 {
			unknownField(r)
		}
		return r
	}), 0, 3).Draw(t, "rules")
	if rapid.IntRange(0, 40).Draw(t, "unknown") == 0 {
		p.Extensions = extension
	}
	return p
})

var genAttributes = rapid.Custom(func(t *rapid.T) authz.Attributes {
	a := authz.Attributes{
		Source: netip.MustParseAddr(genAddr.Draw(t, "source")),
		Destination: netip.AddrPortFrom(netip.MustParseAddr(genAddr.Draw(t, "dest")),
			uint16(rapid.SampledFrom([]int{80, 443, 9000}).Draw(t, "port"))),
	}
	if id := rapid.SampledFrom([]string{"", "spiffe://td/ns/a/sa/x", "spiffe://td/ns/ab/sa/x", "spiffe://td/ns/b/sa/y"}).Draw(t, "id"); id != "" {
		a.Identity = spiffeid.RequireFromString(id)
	}
	return a
})

func TestDecisionsAgreeWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		protos := rapid.SliceOfN(genPolicy, 0, 3).Draw(t, "policies")
		var policies []*authz.Policy
		for _, p := range protos {
			parsed, err := authz.ParsePolicy(p)
			if err != nil {
				t.Fatal(err)
			}
			policies = append(policies, parsed)
		}
		a := genAttributes.Draw(t, "attributes")
		want := decide(a, protos)
		permit, _, err := authz.NewPolicies(policies...).Authorize(a)
		if got := err == nil; got != want || permit.Valid() != want {
			t.Fatalf("allowed %v (%v), the model says %v", got, err, want)
		}
	})
}

// Removing what is not understood from a policy must never deny more, and
// adding it must never allow more.
func TestUnknownPartsNeverAllowMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPolicy.Draw(t, "policy")
		p.DryRun = false
		base := mustParse(t, p)
		stricter := proto.Clone(p).(*api.Authorization)
		spoil(t, stricter)
		a := genAttributes.Draw(t, "attributes")
		_, _, before := authz.NewPolicies(base).Authorize(a)
		_, _, after := authz.NewPolicies(mustParse(t, stricter)).Authorize(a)
		if before != nil && after == nil {
			t.Fatalf("allowed with an unknown part, denied without: %v", before)
		}
	})
}

// spoil adds something unknown at a drawn place.
func spoil(t *rapid.T, p *api.Authorization) {
	var places []proto.Message
	places = append(places, p)
	for _, r := range p.Rules {
		places = append(places, r)
		for _, c := range r.Clauses {
			places = append(places, c)
			for _, m := range c.Matches {
				if proto.Size(m) > 0 { // an empty Match with something unknown is another Match
					places = append(places, m)
				}
				for _, list := range [][]*api.StringMatch{m.Namespaces, m.NotNamespaces, m.Principals, m.NotPrincipals} {
					for _, s := range list {
						places = append(places, s)
					}
				}
			}
		}
	}
	unknownField(rapid.SampledFrom(places).Draw(t, "place"))
}

func mustParse(t *rapid.T, p *api.Authorization) *authz.Policy {
	out, err := authz.ParsePolicy(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
