package request_test

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
)

func seed() *api.Policy {
	return &api.Policy{
		Name: "p", Namespace: "ns", Action: api.Action_DENY,
		Rules: []*api.PolicyRule{{
			From: []*api.Source{{Principals: []string{"*/sa/web"}, NotIpBlocks: []string{"10.0.0.0/8"}, RequestPrincipals: []string{"a/*"}}},
			To:   []*api.Operation{{Hosts: []string{"*.x"}, Ports: []string{"80"}, Methods: []string{"GET"}, Paths: []string{"/a/{*}/{**}", "/*"}}},
			When: []*api.Condition{{Key: "request.auth.claims[a][b]", Values: []string{"c"}}, {Key: "request.headers[x]", NotValues: []string{"y"}}},
		}},
	}
}

// FuzzPolicies compiles whatever comes over the wire and decides with it: no panic,
// a permit only without error, and a policy whose parts are not understood is never
// weaker than none at all.
func FuzzPolicies(f *testing.F) {
	b, err := proto.Marshal(seed())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, "/a/b/c", "host:80", "x", "y")
	f.Add(b[:len(b)/2], "/a//b", "", "", "")
	f.Fuzz(func(t *testing.T, wire []byte, path, authority, name, value string) {
		var p api.Policy
		if proto.Unmarshal(wire, &p) != nil {
			return
		}
		policy, err := request.Compile(&p)
		if err != nil {
			return
		}
		a := &request.Attributes{
			Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddrPort("10.0.0.2:80"),
			Request: &request.Request{
				Method: value, Authority: authority, Path: path, Folded: name, Fields: fields{{name, value}},
				Token: token{"iss": text(name), "sub": text(value), name: text(value)},
			},
		}
		set := request.NewPolicies(policy)
		permit, _, err := set.Authorize(a, set.Consult(a))
		if permit.Valid() != (err == nil) {
			t.Fatalf("permit %v, error %v", permit, err)
		}
		set.Verdicts(a)
	})
}

// FuzzTemplate holds a template against paths that it was made of.
func FuzzTemplate(f *testing.F) {
	f.Add("/a/{*}/{**}", "/a/b/c")
	f.Add("/{**}/x", "//x")
	f.Fuzz(func(t *testing.T, value, path string) {
		a := &request.Attributes{
			Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddrPort("10.0.0.2:80"),
			Request: &request.Request{Method: "GET", Authority: "x", Path: path, Folded: path},
		}
		rule := to(&api.Operation{Paths: []string{value}})
		if fits(t, api.Action_ALLOW, rule, a) && !fits(t, api.Action_DENY, rule, a) {
			t.Fatalf("%q fits %q in ALLOW and not in DENY", value, path)
		}
	})
}

// TestTruncatedPolicies cuts a policy short at every byte: what is left must never
// compile to a DENY policy that is understood wholly and fits less than it said.
func TestTruncatedPolicies(t *testing.T) {
	b, err := proto.Marshal(seed())
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		var p api.Policy
		if proto.Unmarshal(b[:i], &p) != nil {
			continue
		}
		if policy, err := request.Compile(&p); err == nil && len(policy.Key()) < len("ns/p") {
			t.Errorf("%d bytes: %q", i, policy.Key())
		}
	}
}
