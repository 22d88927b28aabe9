package authz_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	api "github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/internal/authz"
)

func verdictPolicy(t *testing.T, name string, action api.Action, dryRun bool, matches ...*api.Match) *authz.Policy {
	t.Helper()
	a := &api.Authorization{Name: name, Namespace: "shop", Action: action, Scope: api.Scope_NAMESPACE, DryRun: dryRun}
	for _, m := range matches {
		a.Rules = append(a.Rules, &api.Rule{Clauses: []*api.Clause{{Matches: []*api.Match{m}}}})
	}
	p, err := authz.ParsePolicy(a)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func namespaces(names ...string) []*api.StringMatch {
	var out []*api.StringMatch
	for _, n := range names {
		out = append(out, &api.StringMatch{MatchType: &api.StringMatch_Exact{Exact: n}})
	}
	return out
}

func TestVerdictsTellOfEveryPolicyWhyItMatchedOrNot(t *testing.T) {
	set := authz.NewPolicies(
		verdictPolicy(t, "by-port", api.Action_ALLOW, false, &api.Match{DestinationPorts: []uint32{80}}, &api.Match{Namespaces: namespaces("front")}),
		verdictPolicy(t, "other-port", api.Action_ALLOW, false, &api.Match{DestinationPorts: []uint32{81}}),
		verdictPolicy(t, "no-strangers", api.Action_DENY, false, &api.Match{NotNamespaces: namespaces("front")}),
		verdictPolicy(t, "nothing", api.Action_ALLOW, false),
		verdictPolicy(t, "silent", api.Action_DENY, false),
		verdictPolicy(t, "trial", api.Action_DENY, true, &api.Match{Namespaces: namespaces("front")}),
	)
	for _, tt := range []struct {
		name, identity string
		want           []string
	}{
		{"of a member", "spiffe://cluster.local/ns/front/sa/web", []string{
			`shop/no-strangers Deny false source namespace "front" is excluded, being front`,
			`shop/silent Deny false it has no rules, so it denies nothing`,
			`shop/by-port Allow true rule 2 matches: source namespace is "front"`,
			`shop/other-port Allow false destination port "8080" is not 81`,
			`shop/nothing Allow false it has no rules, so it allows nothing`,
			`shop/trial Deny true rule 1 matches: source namespace is "front"`,
		}},
		{"of nobody", "", []string{
			`shop/no-strangers Deny true rule 1 matches: source namespace is none (the client has no mesh identity)`,
			`shop/silent Deny false it has no rules, so it denies nothing`,
			`shop/by-port Allow false destination port "8080" is not 80`,
			`shop/other-port Allow false destination port "8080" is not 81`,
			`shop/nothing Allow false it has no rules, so it allows nothing`,
			`shop/trial Deny false source namespace is none (the client has no mesh identity), and the policy wants front`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := authz.Attributes{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddrPort("10.0.0.2:8080")}
			if tt.identity != "" {
				a.Identity = spiffeid.RequireFromString(tt.identity)
			}
			var got []string
			for _, v := range set.Verdicts(a) {
				got = append(got, strings.Join([]string{v.Policy, v.Action.String(), map[bool]string{true: "true", false: "false"}[v.Matched], v.Reason}, " "))
			}
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			_, _, err := set.Authorize(a)
			if denied := err != nil; denied != (tt.identity == "") {
				t.Errorf("authorized with %v", err)
			}
		})
	}
	if v := set.Verdicts(authz.Attributes{}); v != nil {
		t.Errorf("of no connection: %v", v)
	}
}
