package authz_test

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	api "github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/internal/authz"
)

var update = flag.Bool("update", false, "rewrite golden files")

// policy parses a policy in text form; ns/p is its name unless it has another.
func policy(t testing.TB, text string) *authz.Policy {
	t.Helper()
	p := &api.Authorization{Name: "p", Namespace: "ns"}
	if err := (prototext.UnmarshalOptions{}).Unmarshal([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	if p.Name == "" {
		p.Name = "p"
	}
	if p.Namespace == "" {
		p.Namespace = "ns"
	}
	out, err := authz.ParsePolicy(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var client = authz.Attributes{
	Source:      netip.MustParseAddr("10.0.0.1"),
	Identity:    spiffeid.RequireFromString("spiffe://td/ns/shop/sa/web"),
	Destination: netip.MustParseAddrPort("10.0.0.9:8080"),
}

func anonymous() authz.Attributes {
	a := client
	a.Identity = spiffeid.ID{}
	return a
}

func match(m string) string { return "rules{clauses{matches{" + m + "}}}" }

func TestAuthorize(t *testing.T) {
	const allow, deny = "action: ALLOW ", "action: DENY "
	for _, tt := range []struct {
		name     string
		policies []string
		from     authz.Attributes
		allowed  bool
		policy   string // in the permit or the denial
	}{
		{"no policies", nil, client, true, ""},
		{"zero rules allow nothing", []string{allow}, client, false, "ns/p"},
		{"zero rules deny nothing", []string{deny}, client, true, ""},
		{"rule without clauses matches", []string{allow + "rules{}"}, client, true, "ns/p"},
		{"empty clause matches", []string{allow + "rules{clauses{}}"}, client, true, "ns/p"},
		{"empty match never matches", []string{allow + match("")}, client, false, "ns/p"},
		{"empty match never denies", []string{deny + match("")}, client, true, ""},
		{"empty match beside a good one", []string{allow + "rules{clauses{matches{} matches{destination_ports:8080}}}"}, client, true, "ns/p"},
		{"clauses are and-ed", []string{allow + "rules{clauses{matches{destination_ports:8080}} clauses{matches{destination_ports:9}}}"}, client, false, "ns/p"},
		{"rules are or-ed", []string{allow + match("destination_ports:9") + match("destination_ports:8080")}, client, true, "ns/p"},
		{"fields are and-ed", []string{allow + match(`destination_ports:8080 namespaces{exact:"other"}`)}, client, false, "ns/p"},
		{"values are or-ed", []string{allow + match(`namespaces{exact:"other"} namespaces{exact:"shop"}`)}, client, true, "ns/p"},
		{"deny before allow", []string{allow + "rules{}", "name:'d' " + deny + "rules{}"}, client, false, "ns/d"},
		{"allow exists, none matches", []string{allow + match("destination_ports:9")}, client, false, "ns/p"},
		{"second allow matches", []string{allow + match("destination_ports:9"), "name:'q' " + match("destination_ports:8080")}, client, true, "ns/q"},

		{"principal exact", []string{allow + match(`principals{exact:"td/ns/shop/sa/web"}`)}, client, true, "ns/p"},
		{"principal with scheme", []string{allow + match(`principals{exact:"spiffe://td/ns/shop/sa/web"}`)}, client, true, "ns/p"},
		{"principal prefix", []string{allow + match(`principals{prefix:"td/ns/shop/"}`)}, client, true, "ns/p"},
		{"principal suffix", []string{allow + match(`principals{suffix:"/sa/web"}`)}, client, true, "ns/p"},
		{"principal presence", []string{allow + match(`principals{presence{}}`)}, client, true, "ns/p"},
		{"presence without identity", []string{allow + match(`principals{presence{}}`)}, anonymous(), false, "ns/p"},
		{"empty prefix without identity", []string{allow + match(`principals{prefix:""}`)}, anonymous(), false, "ns/p"},
		{"strict: identity", []string{deny + match(`not_principals{presence{}}`)}, client, true, ""},
		{"strict: no identity", []string{deny + match(`not_principals{presence{}}`)}, anonymous(), false, "ns/p"},
		{"not namespace", []string{allow + match(`not_namespaces{exact:"shop"}`)}, client, false, "ns/p"},
		{"not namespace without identity", []string{allow + match(`not_namespaces{exact:"shop"}`)}, anonymous(), true, "ns/p"},
		{"service account", []string{allow + match(`service_accounts{namespace:"shop" serviceAccount:"web"}`)}, client, true, "ns/p"},
		{"service account elsewhere", []string{allow + match(`service_accounts{namespace:"other" serviceAccount:"web"}`)}, client, false, "ns/p"},
		{"not service account", []string{deny + match(`not_service_accounts{namespace:"shop" serviceAccount:"web"}`)}, client, true, ""},

		{"source address", []string{allow + match(`source_ips{address:"\x0a\x00\x00\x00" length:8}`)}, client, true, "ns/p"},
		{"source unmasked", []string{allow + match(`source_ips{address:"\x0a\x09\x09\x09" length:8}`)}, client, true, "ns/p"},
		{"source mapped", []string{allow + match(`source_ips{address:"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x00" length:104}`)}, client, true, "ns/p"},
		{"source other family", []string{allow + match(`source_ips{address:"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" length:0}`)}, client, false, "ns/p"},
		{"destination address", []string{deny + match(`destination_ips{address:"\x0a\x00\x00\x09" length:32}`)}, client, false, "ns/p"},
		{"not destination port", []string{deny + match(`not_destination_ports:8080`)}, client, true, ""},

		{"dry run is not enforced", []string{"dry_run:true " + deny + "rules{}"}, client, true, ""},
		{"dry-run allow leaves default allow", []string{"dry_run:true " + allow}, client, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var set authz.Policies
			for _, p := range tt.policies {
				set = set.With(policy(t, p))
			}
			permit, _, err := set.Authorize(tt.from)
			if permit.Valid() != tt.allowed || (err == nil) != tt.allowed {
				t.Fatalf("valid %v, error %v; want allowed %v", permit.Valid(), err, tt.allowed)
			}
			name := permit.Policy()
			var denial *authz.Denial
			if errors.As(err, &denial) {
				name = denial.Policy
				if !strings.Contains(denial.Reason, name) {
					t.Errorf("reason %q does not name policy %s", denial.Reason, name)
				}
			}
			if name != tt.policy {
				t.Errorf("names policy %q, want %q (%v)", name, tt.policy, err)
			}
		})
	}
}

// Unknown parts, per action: in DENY they count as matched, in ALLOW they never match.
func TestUnknownPartsAreTakenInTheStrictestSense(t *testing.T) {
	unknown := func(p *api.Authorization, at ...proto.Message) *api.Authorization {
		for _, m := range at {
			unknownField(m)
		}
		return p
	}
	for name, build := range map[string]func(action api.Action) *api.Authorization{
		"field of the policy": func(action api.Action) *api.Authorization {
			p := &api.Authorization{Action: action, Rules: []*api.Rule{{}}}
			return unknown(p, p)
		},
		"extension of the policy": func(action api.Action) *api.Authorization {
			return &api.Authorization{Action: action, Rules: []*api.Rule{{}}, Extensions: extension}
		},
		"field of a rule": func(action api.Action) *api.Authorization {
			r := &api.Rule{}
			return unknown(&api.Authorization{Action: action, Rules: []*api.Rule{r}}, r)
		},
		"field of a clause": func(action api.Action) *api.Authorization {
			c := &api.Clause{}
			return unknown(&api.Authorization{Action: action, Rules: []*api.Rule{{Clauses: []*api.Clause{c}}}}, c)
		},
		"field of a match": func(action api.Action) *api.Authorization {
			m := &api.Match{}
			return unknown(withMatch(action, m), m)
		},
		"field of a match that else matches": func(action api.Action) *api.Authorization {
			m := &api.Match{DestinationPorts: []uint32{8080}}
			return unknown(withMatch(action, m), m)
		},
		"extension of a match": func(action api.Action) *api.Authorization {
			return withMatch(action, &api.Match{DestinationPorts: []uint32{8080}, Extensions: extension})
		},
		"unset string match": func(action api.Action) *api.Authorization {
			return withMatch(action, &api.Match{Principals: []*api.StringMatch{{}}})
		},
		"unset negated string match": func(action api.Action) *api.Authorization {
			return withMatch(action, &api.Match{NotPrincipals: []*api.StringMatch{{}}})
		},
		"field of a string match": func(action api.Action) *api.Authorization {
			s := &api.StringMatch{MatchType: &api.StringMatch_Exact{Exact: "shop"}}
			n := &api.StringMatch{MatchType: &api.StringMatch_Exact{Exact: "other"}}
			if action == api.Action_ALLOW {
				return unknown(withMatch(action, &api.Match{Namespaces: []*api.StringMatch{s}}), s)
			}
			return unknown(withMatch(action, &api.Match{Namespaces: []*api.StringMatch{n}}), n)
		},
		"address of five bytes": func(action api.Action) *api.Authorization {
			return withMatch(action, &api.Match{SourceIps: []*api.Address{{Address: make([]byte, 5)}}})
		},
		"negated prefix too long": func(action api.Action) *api.Authorization {
			return withMatch(action, &api.Match{NotSourceIps: []*api.Address{{Address: make([]byte, 4), Length: 33}}})
		},
		"port out of range": func(action api.Action) *api.Authorization {
			return withMatch(action, &api.Match{DestinationPorts: []uint32{65536 + 8080}})
		},
		"service account without namespace": func(action api.Action) *api.Authorization {
			return withMatch(action, &api.Match{ServiceAccounts: []*api.ServiceAccountMatch{{ServiceAccount: "web"}}})
		},
		"scope": func(action api.Action) *api.Authorization {
			return &api.Authorization{Action: action, Scope: 17, Rules: []*api.Rule{{}}}
		},
	} {
		for _, action := range []api.Action{api.Action_ALLOW, api.Action_DENY} {
			t.Run(name+"/"+action.String(), func(t *testing.T) {
				p := build(action)
				p.Name, p.Namespace = "p", "ns"
				parsed, err := authz.ParsePolicy(p)
				if err != nil {
					t.Fatal(err)
				}
				_, _, err = authz.NewPolicies(parsed).Authorize(client)
				if err == nil {
					t.Error("allowed")
				}
				if len(parsed.Warnings()) == 0 {
					t.Error("no warning tells of it")
				}
			})
		}
	}
}

func withMatch(action api.Action, m *api.Match) *api.Authorization {
	return &api.Authorization{Action: action, Rules: []*api.Rule{{Clauses: []*api.Clause{{Matches: []*api.Match{m}}}}}}
}

func TestUnknownActionDeniesWhateverItAppliesTo(t *testing.T) {
	p := policy(t, "action: 7 "+match("destination_ports:9"))
	if p.Action() != authz.Unknown {
		t.Errorf("action is %v", p.Action())
	}
	_, _, err := authz.NewPolicies(p, policy(t, "name:'q' rules{}")).Authorize(client)
	if err == nil || !strings.Contains(err.Error(), "ns/p") || !strings.Contains(err.Error(), "action") {
		t.Errorf("error is %v", err)
	}
}

// A known value beside an unknown one goes on matching: values are or-ed.
func TestKnownValuesBesideUnknownOnes(t *testing.T) {
	if _, _, err := authz.NewPolicies(policy(t, match(`namespaces{} namespaces{exact:"shop"}`))).Authorize(client); err != nil {
		t.Error(err)
	}
}

func TestConnectionsWithoutAttributesAreDenied(t *testing.T) {
	for name, change := range map[string]func(*authz.Attributes){
		"no source":      func(a *authz.Attributes) { a.Source = netip.Addr{} },
		"no destination": func(a *authz.Attributes) { a.Destination = netip.AddrPort{} },
		"no port":        func(a *authz.Attributes) { a.Destination = netip.AddrPortFrom(a.Source, 0) },
		"foreign id":     func(a *authz.Attributes) { a.Identity = spiffeid.RequireFromString("spiffe://td/vm/db") },
		"id with more":   func(a *authz.Attributes) { a.Identity = spiffeid.RequireFromString("spiffe://td/ns/a/sa/b/c") },
		"id with less":   func(a *authz.Attributes) { a.Identity = spiffeid.RequireFromString("spiffe://td/ns/a/sa") },
	} {
		t.Run(name, func(t *testing.T) {
			a := client
			change(&a)
			permit, _, err := authz.Policies{}.Authorize(a)
			if err == nil || permit.Valid() {
				t.Error("allowed by default")
			}
		})
	}
}

func TestMappedAndScopedAddressesCompareAsPlainOnes(t *testing.T) {
	a := client
	a.Source = netip.MustParseAddr("::ffff:10.0.0.1")
	if _, _, err := authz.NewPolicies(policy(t, match(`source_ips{address:"\x0a\x00\x00\x01" length:32}`))).Authorize(a); err != nil {
		t.Error(err)
	}
	a.Source = netip.MustParseAddr("fe80::1%eth0")
	if _, _, err := authz.NewPolicies(policy(t, match(`source_ips{address:"\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" length:64}`))).Authorize(a); err != nil {
		t.Error(err)
	}
}

func TestDryRunIsReportedBesideTheDecision(t *testing.T) {
	set := authz.NewPolicies(
		policy(t, "name:'deny' dry_run:true action:DENY rules{}"),
		policy(t, "name:'deny-other' dry_run:true action:DENY "+match("destination_ports:9")),
		policy(t, "name:'allow-none' dry_run:true"),
	)
	_, got, err := set.Authorize(client)
	if err != nil {
		t.Fatal(err)
	}
	want := []authz.DryRun{
		{Policy: "ns/deny", Action: authz.Deny, Matched: true, WouldDeny: true},
		{Policy: "ns/deny-other", Action: authz.Deny},
		{Policy: "ns/allow-none", WouldDeny: true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// An enforced ALLOW that matches goes on allowing.
	_, got, _ = set.With(policy(t, "name:'real' rules{}")).Authorize(client)
	if got[2].WouldDeny {
		t.Error("allow-none would deny although ns/real allows")
	}
	// It is reported for denied connections as well.
	_, got, err = set.With(policy(t, "name:'real' action:DENY rules{}")).Authorize(client)
	if err == nil || len(got) != 3 {
		t.Errorf("error %v, %d reports", err, len(got))
	}
}

func TestZeroPermitIsNotValid(t *testing.T) {
	if (authz.Permit{}).Valid() {
		t.Error("a permit that Authorize did not make is valid")
	}
}

func TestMissingPolicyDeniesUntilItArrives(t *testing.T) {
	_, _, err := authz.NewPolicies(policy(t, "rules{}")).WithMissing("ns/late").Authorize(client)
	var denial *authz.Denial
	if !errors.As(err, &denial) || !denial.Incomplete || denial.Policy != "ns/late" {
		t.Errorf("error is %#v", err)
	}
	// A DENY policy that matches is a complete decision all the same.
	_, _, err = authz.NewPolicies(policy(t, "action:DENY rules{}")).WithMissing("ns/late").Authorize(client)
	if !errors.As(err, &denial) || denial.Incomplete {
		t.Errorf("error is %#v", err)
	}
}

func TestSetsAreImmutableAndComparable(t *testing.T) {
	p, q := policy(t, "rules{}"), policy(t, "name:'q' action:DENY rules{}")
	a := authz.NewPolicies(p)
	b := a.With(q)
	if a.Len() != 1 || b.Len() != 2 || b.With(p, q).Len() != 2 {
		t.Errorf("sizes %d, %d, %d", a.Len(), b.Len(), b.With(p, q).Len())
	}
	if a.Equal(b) || !b.Equal(a.With(q)) || b.Equal(b.WithMissing("x/y")) || !b.WithMissing("x/y").Equal(b.WithMissing("x/y")) {
		t.Error("Equal is wrong")
	}
	if d := cmp.Diff([]string{"ns/q", "ns/p"}, b.Names()); d != "" {
		t.Error(d)
	}
}

func TestParsePolicyRefusesWhatCannotBeNamed(t *testing.T) {
	for name, p := range map[string]*api.Authorization{
		"no name":      {Namespace: "ns"},
		"no namespace": {Name: "p"},
		"slash":        {Name: "a/b", Namespace: "ns"},
		"line break":   {Name: "a\nb", Namespace: "ns"},
		"long":         {Name: strings.Repeat("a", 254), Namespace: "ns"},
	} {
		if _, err := authz.ParsePolicy(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A policy that is too big must not vanish: without it everything might pass.
func TestPolicyBeyondTheLimitsDenies(t *testing.T) {
	everyone := func() *api.Rule { return &api.Rule{} }
	for name, rules := range map[string][]*api.Rule{
		"rules":   slices.Repeat([]*api.Rule{everyone()}, 4097),
		"matches": {everyone(), {Clauses: []*api.Clause{{Matches: make([]*api.Match, 4097)}}}},
		"values": {everyone(), {Clauses: []*api.Clause{{Matches: []*api.Match{
			{DestinationPorts: make([]uint32, 262145)}}}}}},
	} {
		for _, action := range []api.Action{api.Action_ALLOW, api.Action_DENY} {
			p, err := authz.ParsePolicy(&api.Authorization{Name: "p", Namespace: "ns", Action: action, Rules: rules})
			if err != nil {
				t.Errorf("%v with too many %s: %v", action, name, err)
				continue
			}
			if len(p.Warnings()) == 0 {
				t.Errorf("%v with too many %s: no warning", action, name)
			}
			if _, _, err := authz.NewPolicies(p).Authorize(client); err == nil {
				t.Errorf("%v with too many %s allows", action, name)
			}
		}
	}
}

// What an operator reads is held in a golden file.
func TestReasons(t *testing.T) {
	var out strings.Builder
	say := func(title string, a authz.Attributes, texts ...string) {
		var set authz.Policies
		for _, text := range texts {
			set = set.With(policy(t, text))
		}
		_, _, err := set.Authorize(a)
		out.WriteString(title + "\n    " + err.Error() + "\n")
	}
	web := `principals{exact:"td/ns/shop/sa/api"}`
	say("denied by a policy", client, "action:DENY rules{}")
	say("wrong principal", client, match(web))
	say("no identity", anonymous(), match(web))
	say("wrong port", client, match(web+" destination_ports:80"), "name:'near' "+match(`principals{prefix:"td/ns/shop/"} destination_ports:[80,81,82,83,84]`))
	say("excluded", client, match(`not_namespaces{exact:"shop"}`))
	say("excluded address", client, match(`not_source_ips{address:"\x0a\x00\x00\x00" length:8} namespaces{suffix:"op"}`))
	say("two clauses", client, "rules{clauses{matches{destination_ports:8080}} clauses{matches{"+web+"} matches{}}}")
	say("no rules", client, "")
	say("empty match", client, match(""))
	say("unknown action", client, "action:5")
	say("unknown value", client, match("principals{}"))
	say("unknown deny value", client, "action:DENY "+match("principals{}"))
	say("service account", client, match(`service_accounts{namespace:"shop" serviceAccount:"api"}`))
	golden := filepath.Join("testdata", "reasons.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Error(d)
	}
}
