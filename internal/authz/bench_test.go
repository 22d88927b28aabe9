package authz_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"

	api "github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/internal/authz"
)

// manyPrincipals is an ALLOW policy with n principals, n ports and n networks,
// of which the client matches the last of each.
func manyPrincipals(b testing.TB, n int) *authz.Policy {
	m := &api.Match{}
	for i := range n {
		m.Principals = append(m.Principals, &api.StringMatch{MatchType: &api.StringMatch_Exact{Exact: fmt.Sprintf("td/ns/shop/sa/x%d", i)}})
		m.DestinationPorts = append(m.DestinationPorts, uint32(9000+i))
		m.SourceIps = append(m.SourceIps, &api.Address{Address: []byte{172, 16, byte(i >> 8), byte(i)}, Length: 32})
	}
	m.Principals = append(m.Principals, &api.StringMatch{MatchType: &api.StringMatch_Exact{Exact: "td/ns/shop/sa/web"}})
	m.DestinationPorts = append(m.DestinationPorts, 8080)
	m.SourceIps = append(m.SourceIps, &api.Address{Address: []byte{10, 0, 0, 1}, Length: 32})
	p, err := authz.ParsePolicy(&api.Authorization{Name: "p", Namespace: "ns", Rules: []*api.Rule{{Clauses: []*api.Clause{{Matches: []*api.Match{m}}}}}})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func strict(b testing.TB) *authz.Policy {
	p, err := authz.ParsePolicy(&api.Authorization{Name: "strict", Namespace: "istio-system", Action: api.Action_DENY,
		Rules: []*api.Rule{{Clauses: []*api.Clause{{Matches: []*api.Match{{
			NotPrincipals: []*api.StringMatch{{MatchType: &api.StringMatch_Presence{Presence: &emptypb.Empty{}}}}}}}}}}})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func BenchmarkAuthorize(b *testing.B) {
	for _, bm := range []struct {
		name string
		set  authz.Policies
		from authz.Attributes
	}{
		{"none", authz.Policies{}, client},
		{"strict+allow/1", authz.NewPolicies(strict(b), manyPrincipals(b, 0)), client},
		{"strict+allow/1000", authz.NewPolicies(strict(b), manyPrincipals(b, 1000)), client},
		{"denied", authz.NewPolicies(strict(b)), anonymous()},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = bm.set.Authorize(bm.from)
			}
		})
	}
}

func TestDecisionsDoNotAllocate(t *testing.T) {
	for name, set := range map[string]authz.Policies{
		"allowed": authz.NewPolicies(strict(t), manyPrincipals(t, 100)),
		"none":    {},
	} {
		if n := testing.AllocsPerRun(100, func() { _, _, _ = set.Authorize(client) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	set := authz.NewPolicies(strict(t))
	if n := testing.AllocsPerRun(100, func() { _, _, _ = set.Authorize(anonymous()) }); n != 0 {
		t.Errorf("denied: %v allocations", n)
	}
}
