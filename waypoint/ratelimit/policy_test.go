package ratelimit_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
)

// claims is a token.
type claims map[string][]string

func (c claims) Claim(names []string) (request.Claim, bool) {
	values, ok := c[strings.Join(names, ".")]
	return request.Claim{Strings: values}, ok
}

func local(rules ...*api.RateLimitRule) *api.RateLimit {
	for _, r := range rules {
		if r.Local = true; len(r.Limits) == 0 {
			r.Limits = amount(1, time.Hour)
		}
	}
	return &api.RateLimit{Rules: rules}
}

func (r *replica) request(q ratelimit.Request) ratelimit.Verdict {
	t := r.limiter.Ticket()
	defer t.Release()
	t.Count(r.policy, &q)
	return *t.Decide(context.Background())
}

func peer(account string) request.Peer {
	p, err := request.NewPeer(spiffeid.RequireFromString("spiffe://cluster.local/ns/" + strings.Replace(account, "/", "/sa/", 1)))
	if err != nil {
		panic(err)
	}
	return p
}

func post(path string) *message.Request {
	path, query, has := strings.Cut(path, "?")
	return &message.Request{Method: "POST", Path: path, Query: query, HasQuery: has, Authority: "web.shop:80", Header: message.Header{{Name: "x-tenant", Value: "a"}, {Name: "x-tenant", Value: "b"}}}
}

// TestKeysAreWhatRequestsAre shows each kind of key.
func TestKeysAreWhatRequestsAre(t *testing.T) {
	long := strings.Repeat("x", 5000)
	q := ratelimit.Request{Message: post("/pay?page=a%20b"), Peer: peer("shop/web"), Source: netip.MustParseAddr("::ffff:10.0.0.1"), Token: claims{"realm.roles": {"r", "s"}}}
	q.Message.Header.Add("x-long", long)
	for _, c := range []struct {
		key  *api.RateLimitKey
		want string
	}{
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Identity{}}, "cluster.local/ns/shop/sa/web"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_ServiceAccount{}}, "shop/web"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Namespace{}}, "shop"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_SourceIp{}}, "10.0.0.1"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Header{Header: "X-Tenant"}}, "a,b"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Path{}}, "/pay"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Method{}}, "POST"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Host{}}, "web.shop"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Query{Query: "page"}}, "a b"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_JwtClaim{JwtClaim: "realm.roles"}}, "r,s"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Header{Header: "absent"}, Default: "none", HasDefault: true}, "none"},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Header{Header: "absent"}}, ""}, // not counted
		{&api.RateLimitKey{Kind: &api.RateLimitKey_JwtClaim{JwtClaim: "sub"}}, ""},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Query{Query: "absent"}}, ""},
		{&api.RateLimitKey{Kind: &api.RateLimitKey_Header{Header: "x-long"}}, "sha256:"},
	} {
		r := newReplica(t, ratelimit.Config{}, local(&api.RateLimitRule{Name: "r", Key: []*api.RateLimitKey{{Kind: &api.RateLimitKey_Method{}}, c.key}}))
		v := r.request(q)
		keys := r.limiter.Status(ratelimit.Filter{}).Rules[0].Keys
		switch {
		case c.want == "":
			if !v.Allowed || v.Rule != "" || len(keys) != 0 {
				t.Errorf("%v: counted as %v", c.key, keys)
			}
		case len(keys) != 1 || len(keys[0].Key) != 2 || keys[0].Key[0] != "POST" || keys[0].Key[1] != c.want && !(c.want == "sha256:" && strings.HasPrefix(keys[0].Key[1], c.want)):
			t.Errorf("%v: keys %v, want %q", c.key, keys, c.want)
		}
	}
}

func TestPartsOfAKeyDoNotRunTogether(t *testing.T) {
	r := newReplica(t, ratelimit.Config{}, local(&api.RateLimitRule{Key: []*api.RateLimitKey{
		{Kind: &api.RateLimitKey_Query{Query: "a"}}, {Kind: &api.RateLimitKey_Query{Query: "b"}}}}))
	for _, path := range []string{"/?a=x&b=yz", "/?a=xy&b=z", "/?a=&b=xyz", "/?a=x%00y&b=z"} {
		if v := r.request(ratelimit.Request{Message: post(path)}); !v.Allowed || v.Rule != "0" {
			t.Errorf("%s: %+v", path, v)
		}
	}
}

func TestMatchesSayWhichRequestsAreCounted(t *testing.T) {
	for _, c := range []struct {
		name  string
		match *api.RateLimitMatch
		fits  bool
	}{
		{"a path", &api.RateLimitMatch{Path: &api.PathMatch{Kind: &api.PathMatch_Prefix{Prefix: "/pay"}}}, true},
		{"another path", &api.RateLimitMatch{Path: &api.PathMatch{Kind: &api.PathMatch_Prefix{Prefix: "/p"}}}, false},
		{"an expression", &api.RateLimitMatch{Path: &api.PathMatch{Kind: &api.PathMatch_Regex{Regex: "/p.y"}}}, true},
		{"methods", &api.RateLimitMatch{Methods: []string{"GET", "POST"}}, true},
		{"other methods", &api.RateLimitMatch{Methods: []string{"GET"}}, false},
		{"a header", &api.RateLimitMatch{Headers: []*api.FieldMatch{{Name: "x-tenant", Kind: &api.FieldMatch_Exact{Exact: "a,b"}}}}, true},
		{"another header", &api.RateLimitMatch{Headers: []*api.FieldMatch{{Name: "x-tenant", Kind: &api.FieldMatch_Exact{Exact: "a"}}}}, false},
		{"a parameter", &api.RateLimitMatch{Query: []*api.FieldMatch{{Name: "q", Kind: &api.FieldMatch_Exact{Exact: "1"}}}}, true},
		{"another parameter", &api.RateLimitMatch{Query: []*api.FieldMatch{{Name: "q", Kind: &api.FieldMatch_Exact{Exact: "2"}}}}, false},
		{"a principal", &api.RateLimitMatch{Principals: []string{"cluster.local/ns/shop/*"}}, true},
		{"the end of a principal", &api.RateLimitMatch{Principals: []string{"*/sa/web"}}, true},
		{"anybody with an identity", &api.RateLimitMatch{Principals: []string{"*"}}, true},
		{"another principal", &api.RateLimitMatch{Principals: []string{"cluster.local/ns/shop/sa/api"}}, false},
		{"a namespace", &api.RateLimitMatch{Namespaces: []string{"pay", "shop"}}, true},
		{"another namespace", &api.RateLimitMatch{Namespaces: []string{"sho"}}, false},
		{"all of several", &api.RateLimitMatch{Methods: []string{"POST"}, Namespaces: []string{"pay"}}, false},
	} {
		r := newReplica(t, ratelimit.Config{}, local(&api.RateLimitRule{Match: []*api.RateLimitMatch{c.match}}))
		if v := r.request(ratelimit.Request{Message: post("/pay?q=1"), Peer: peer("shop/web")}); (v.Rule != "") != c.fits {
			t.Errorf("%s: counted %v, want %v", c.name, v.Rule != "", c.fits)
		}
	}
}

func TestConnectionsAreCountedByWhatIsKnownOfThem(t *testing.T) {
	r := newReplica(t, ratelimit.Config{}, local(
		&api.RateLimitRule{Name: "identity", Key: byIdentity(), Limits: amount(2, time.Hour)},
		&api.RateLimitRule{Name: "path", Key: []*api.RateLimitKey{{Kind: &api.RateLimitKey_Path{}}}},
		&api.RateLimitRule{Name: "methods", Match: []*api.RateLimitMatch{{Methods: []string{"GET"}}}},
		&api.RateLimitRule{Name: "header", Cost: &api.RateLimitCost{RequestHeader: "x-cost"}, Limits: amount(9, time.Hour)},
	))
	for i, want := range []bool{true, true, false} {
		if v := r.request(ratelimit.Request{Peer: peer("shop/web")}); v.Allowed != want || v.Rule != "identity" {
			t.Errorf("connection %d: %+v", i, v)
		}
	}
}

func TestAChangeKeepsWhatWasCountedUnlessTheCountIsAnother(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{})
	t.Cleanup(l.Close)
	compile := func(old *ratelimit.Policy, requests uint64, timeout time.Duration) *ratelimit.Policy {
		p := l.Compile(&api.RateLimit{Namespace: "shop", Name: "p", Timeout: durationpb.New(timeout),
			Rules: []*api.RateLimitRule{{Name: "r", Local: true, Limits: amount(requests, time.Hour)}}}, old)
		l.Retire(old, p)
		return p
	}
	r := &replica{limiter: l, policy: compile(nil, 1, time.Second)}
	if v := r.ask(); !v.Allowed {
		t.Fatal("the first is refused")
	}
	if r.policy = compile(r.policy, 1, 2*time.Second); r.ask().Allowed {
		t.Error("another timeout made the limit begin anew")
	}
	if r.policy = compile(r.policy, 2, time.Second); !r.ask().Allowed {
		t.Error("another limit did not begin anew")
	}
	l.Retire(r.policy, nil)
	if s := l.Status(ratelimit.Filter{}); len(s.Rules) != 0 || s.Keys != 0 {
		t.Errorf("of a policy that is gone is left %+v", s)
	}
}

func TestWhatIsNotUnderstoodCountsNothing(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{})
	t.Cleanup(l.Close)
	for name, in := range map[string]*api.RateLimit{
		"a fault":       {Fault: "in a hurry"},
		"no limits":     {Rules: []*api.RateLimitRule{{}}},
		"no key":        {Rules: []*api.RateLimitRule{{Key: []*api.RateLimitKey{{}}, Limits: amount(1, time.Hour)}}},
		"no time":       {Rules: []*api.RateLimitRule{{Limits: amount(1, 0)}}},
		"a broken path": {Rules: []*api.RateLimitRule{{Match: []*api.RateLimitMatch{{Path: &api.PathMatch{Kind: &api.PathMatch_Regex{Regex: "["}}}}, Limits: amount(1, time.Hour)}}},
		"no backend":    {Backend: &api.RateLimitBackend{}, Rules: []*api.RateLimitRule{{Local: true, Limits: amount(1, time.Hour)}}},
		"no service":    {Backend: serviceBackend(), Rules: []*api.RateLimitRule{{Limits: amount(1, time.Hour)}}},
	} {
		in.Namespace, in.Name = "shop", "p"
		for _, open := range []bool{true, false} {
			in.FailOpen = open
			p := l.Compile(in, nil)
			r := &replica{limiter: l, policy: p}
			v := r.ask()
			if name == "no backend" {
				if p.Fault() != nil {
					t.Errorf("%s: %v; without a word it is leases", name, p.Fault())
				}
			} else if p.Fault() == nil || v.Allowed != open || v.Failed == open {
				t.Errorf("%s, open %v: %v, %+v", name, open, p.Fault(), v)
			}
			l.Retire(p, nil)
		}
	}
}

func TestStatusShowsTheMostLimitedKeysFirst(t *testing.T) {
	r := newReplica(t, ratelimit.Config{}, local(&api.RateLimitRule{Name: "r", Key: byIdentity(), Limits: amount(2, time.Hour)}))
	for _, name := range []string{"shop/a", "shop/b", "shop/b", "shop/b", "shop/c", "shop/c"} {
		r.request(ratelimit.Request{Peer: peer(name)})
	}
	s := r.limiter.Status(ratelimit.Filter{Policy: "shop/", Rule: "r", Keys: 2})
	var got []string
	for _, k := range s.Rules[0].Keys {
		got = append(got, k.Key[0])
	}
	if !slices.Equal(got, []string{"cluster.local/ns/shop/sa/b", "cluster.local/ns/shop/sa/c"}) || s.Keys != 3 {
		t.Errorf("keys %v of %d", got, s.Keys)
	}
	if d := s.Rules[0].Decisions; d.Allowed != 5 || d.Limited != 1 {
		t.Errorf("%+v", d)
	}
	if s := r.limiter.Status(ratelimit.Filter{Policy: "pay/"}); len(s.Rules) != 0 {
		t.Errorf("%+v", s.Rules)
	}
}
