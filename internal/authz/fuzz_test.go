package authz_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/internal/authz"
)

func sample() *api.Authorization {
	return &api.Authorization{Name: "p", Namespace: "ns", Action: api.Action_DENY, Rules: []*api.Rule{{Clauses: []*api.Clause{{Matches: []*api.Match{{
		Principals:       []*api.StringMatch{{MatchType: &api.StringMatch_Prefix{Prefix: "td/"}}},
		NotNamespaces:    []*api.StringMatch{{MatchType: &api.StringMatch_Exact{Exact: "a"}}},
		SourceIps:        []*api.Address{{Address: []byte{10, 0, 0, 0}, Length: 8}},
		DestinationPorts: []uint32{80, 8080},
		ServiceAccounts:  []*api.ServiceAccountMatch{{Namespace: "shop", ServiceAccount: "web"}},
	}}}}}}}
}

// Whatever the bytes are, a policy that parses decides like the model.
func FuzzParsePolicy(f *testing.F) {
	b, err := proto.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for i := range b {
		f.Add(b[:i])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p api.Authorization
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		parsed, err := authz.ParsePolicy(&p)
		if err != nil {
			return
		}
		for _, a := range []authz.Attributes{client, anonymous()} {
			permit, _, err := authz.NewPolicies(parsed).Authorize(a)
			if permit.Valid() != (err == nil) {
				t.Fatalf("valid %v with error %v", permit.Valid(), err)
			}
			if err == nil && !decide(a, []*api.Authorization{&p}) && p.Scope <= api.Scope_WORKLOAD_SELECTOR {
				t.Fatalf("allowed against the model: %v", &p)
			}
		}
	})
}

// A policy cut anywhere must not allow more than deny by default would: it
// either fails to parse or decides without a panic.
func TestTruncatedPolicies(t *testing.T) {
	b, err := proto.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		var p api.Authorization
		if proto.Unmarshal(b[:n], &p) != nil {
			continue
		}
		parsed, err := authz.ParsePolicy(&p)
		if err != nil {
			continue
		}
		if _, _, err := authz.NewPolicies(parsed).Authorize(client); err == nil != decide(client, []*api.Authorization{&p}) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}
