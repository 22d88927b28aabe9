package request_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
)

// fields is a header as a codec keeps it.
type fields [][2]string

func (f fields) Next(name string, from int) (string, int, bool) {
	for i := from; i < len(f); i++ {
		if f[i][0] == name {
			return f[i][1], i + 1, true
		}
	}
	return "", len(f), false
}

func (f fields) Names(yield func(string) bool) {
	for _, line := range f {
		if !yield(line[0]) {
			return
		}
	}
}

// token has claims by their names, joined with dots.
type token map[string]request.Claim

func (t token) Claim(names []string) (request.Claim, bool) {
	c, ok := t[strings.Join(names, ".")]
	return c, ok
}

func text(values ...string) request.Claim { return request.Claim{Strings: values} }

func peer(t testing.TB, id string) request.Peer {
	t.Helper()
	p, err := request.NewPeer(spiffeid.RequireFromString(id))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shopper is GET http://books.example.com:8080/catalog/1?all from shop/web.
func shopper(t testing.TB) *request.Attributes {
	return &request.Attributes{
		Source:      netip.MustParseAddr("10.0.0.1"),
		Remote:      netip.MustParseAddr("203.0.113.4"),
		Peer:        peer(t, "spiffe://cluster.local/ns/shop/sa/web"),
		Destination: netip.MustParseAddrPort("10.96.0.9:8080"),
		Request: &request.Request{
			Method: "GET", Scheme: "http", Authority: "books.example.com:8080",
			Path: "/catalog/1", Folded: "/catalog/1", Query: "all", HasQuery: true,
			Fields: fields{{"user-agent", "curl/8"}, {"x-tier", "gold"}, {"x-empty", ""}},
			Token: token{
				"iss": text("https://issuer.example.com"), "sub": text("alice"), "aud": text("books", "films"),
				"azp": text("portal"), "group": text("staff", "readers"), "realm.role": text("admin"),
				"age": {Others: []string{"42"}}, "object": {},
			},
		},
	}
}

func compile(t testing.TB, p *api.Policy) *request.Policy {
	t.Helper()
	if p.Name == "" {
		p.Name = "p"
	}
	if p.Namespace == "" {
		p.Namespace = "ns"
	}
	out, err := request.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fits tells whether a policy with one rule fits, by what it does alone in a set.
func fits(t testing.TB, action api.Action, r *api.PolicyRule, a *request.Attributes) bool {
	t.Helper()
	set := request.NewPolicies(compile(t, &api.Policy{Action: action, Rules: []*api.PolicyRule{r}}))
	permit, _, err := set.Authorize(a, set.Consult(a))
	if permit.Valid() != (err == nil) {
		t.Fatalf("permit %v with error %v", permit, err)
	}
	return (err == nil) == (action == api.Action_ALLOW)
}

func from(s *api.Source) *api.PolicyRule  { return &api.PolicyRule{From: []*api.Source{s}} }
func to(o *api.Operation) *api.PolicyRule { return &api.PolicyRule{To: []*api.Operation{o}} }
func when(key string, values ...string) *api.PolicyRule {
	return &api.PolicyRule{When: []*api.Condition{{Key: key, Values: values}}}
}
func whenNot(key string, values ...string) *api.PolicyRule {
	return &api.PolicyRule{When: []*api.Condition{{Key: key, NotValues: values}}}
}

// TestConditions says of each rule whether it fits the shopper, in ALLOW and DENY.
func TestConditions(t *testing.T) {
	type want struct{ allow, deny bool }
	both, none, strict := want{true, true}, want{}, want{false, true}
	for name, test := range map[string]struct {
		rule *api.PolicyRule
		want want
	}{
		"empty rule": {&api.PolicyRule{}, both},

		"principal":                {from(&api.Source{Principals: []string{"cluster.local/ns/shop/sa/web"}}), both},
		"principal with scheme":    {from(&api.Source{Principals: []string{"spiffe://cluster.local/ns/shop/*"}}), both},
		"principal by suffix":      {from(&api.Source{Principals: []string{"*/sa/web"}}), both},
		"any principal":            {from(&api.Source{Principals: []string{"*"}}), both},
		"another principal":        {from(&api.Source{Principals: []string{"cluster.local/ns/shop/sa/webb"}}), none},
		"not another principal":    {from(&api.Source{NotPrincipals: []string{"cluster.local/ns/shop/sa/webb"}}), both},
		"not the principal":        {from(&api.Source{NotPrincipals: []string{"cluster.local/ns/shop/sa/web"}}), none},
		"namespace":                {from(&api.Source{Namespaces: []string{"sh*"}}), both},
		"not the namespace":        {from(&api.Source{NotNamespaces: []string{"shop"}}), none},
		"account":                  {from(&api.Source{ServiceAccounts: []string{"shop/web"}}), both},
		"account of the policy's":  {from(&api.Source{ServiceAccounts: []string{"web"}}), none},
		"account with a star":      {from(&api.Source{ServiceAccounts: []string{"shop/*"}}), strict},
		"not the account":          {from(&api.Source{NotServiceAccounts: []string{"shop/web"}}), none},
		"trust domain":             {from(&api.Source{TrustDomains: []string{"cluster.*"}}), both},
		"another trust domain":     {from(&api.Source{TrustDomains: []string{"other"}}), none},
		"ip block":                 {from(&api.Source{IpBlocks: []string{"10.0.0.0/8"}}), both},
		"ip":                       {from(&api.Source{IpBlocks: []string{"10.0.0.2", "10.0.0.1"}}), both},
		"mapped ip":                {from(&api.Source{IpBlocks: []string{"::ffff:10.0.0.1"}}), both},
		"not the ip":               {from(&api.Source{NotIpBlocks: []string{"10.0.0.0/8"}}), none},
		"bad ip":                   {from(&api.Source{IpBlocks: []string{"10.0.0.0/33"}}), strict},
		"bad ip that is excluded":  {from(&api.Source{NotIpBlocks: []string{"banana"}}), strict},
		"remote ip":                {from(&api.Source{RemoteIpBlocks: []string{"203.0.113.4"}}), both},
		"not the remote ip":        {from(&api.Source{NotRemoteIpBlocks: []string{"203.0.113.4"}}), none},
		"empty source":             {from(&api.Source{}), strict},
		"both must hold":           {from(&api.Source{Namespaces: []string{"shop"}, IpBlocks: []string{"10.9.0.0/16"}}), none},
		"one of several":           {&api.PolicyRule{From: []*api.Source{{Namespaces: []string{"x"}}, {Namespaces: []string{"shop"}}}}, both},
		"star within a namespace":  {from(&api.Source{Namespaces: []string{"s*p"}}), strict},
		"value without characters": {from(&api.Source{Namespaces: []string{""}}), strict},

		"request principal":             {from(&api.Source{RequestPrincipals: []string{"https://issuer.example.com/alice"}}), both},
		"any request principal":         {from(&api.Source{RequestPrincipals: []string{"*"}}), both},
		"request principal by issuer":   {from(&api.Source{RequestPrincipals: []string{"https://issuer.example.com/*"}}), both},
		"request principal by prefix":   {from(&api.Source{RequestPrincipals: []string{"https://issuer.example.com/al*"}}), both},
		"request principal by subject":  {from(&api.Source{RequestPrincipals: []string{"*/alice"}}), both},
		"request principal by suffix":   {from(&api.Source{RequestPrincipals: []string{"*.example.com/alice"}}), both},
		"request principal by end":      {from(&api.Source{RequestPrincipals: []string{"*ice"}}), both},
		"an issuer within an issuer":    {from(&api.Source{RequestPrincipals: []string{"https:/*"}}), strict},
		"not the request principal":     {from(&api.Source{NotRequestPrincipals: []string{"*"}}), none},
		"not another request principal": {from(&api.Source{NotRequestPrincipals: []string{"x/y"}}), both},

		"port":                       {to(&api.Operation{Ports: []string{"80", "8080"}}), both},
		"not the port":               {to(&api.Operation{NotPorts: []string{"8080"}}), none},
		"bad port":                   {to(&api.Operation{Ports: []string{"http"}}), strict},
		"port beyond":                {to(&api.Operation{Ports: []string{"70000"}}), strict},
		"method":                     {to(&api.Operation{Methods: []string{"GET", "HEAD"}}), both},
		"method by prefix":           {to(&api.Operation{Methods: []string{"G*"}}), both},
		"not the method":             {to(&api.Operation{NotMethods: []string{"GET"}}), none},
		"host and port":              {to(&api.Operation{Hosts: []string{"Books.Example.com:8080"}}), both},
		"host with any port":         {to(&api.Operation{Hosts: []string{"books.example.com:*"}}), both},
		"host without its port":      {to(&api.Operation{Hosts: []string{"books.example.com"}}), strict},
		"host by suffix without":     {to(&api.Operation{Hosts: []string{"*.example.com"}}), strict},
		"not the host without port":  {to(&api.Operation{NotHosts: []string{"books.example.com"}}), strict},
		"another host":               {to(&api.Operation{Hosts: []string{"films.example.com:8080"}}), none},
		"path":                       {to(&api.Operation{Paths: []string{"/catalog/1"}}), both},
		"path by prefix":             {to(&api.Operation{Paths: []string{"/catalog*"}}), both},
		"path by suffix":             {to(&api.Operation{Paths: []string{"*/1"}}), both},
		"path written otherwise":     {to(&api.Operation{Paths: []string{"/%63atalog/1"}}), both},
		"path with a query":          {to(&api.Operation{Paths: []string{"/catalog/1?all"}}), strict},
		"path with a star within":    {to(&api.Operation{Paths: []string{"/*/1"}}), strict},
		"path with a variable":       {to(&api.Operation{Paths: []string{"/catalog/{id}"}}), strict},
		"path by template":           {to(&api.Operation{Paths: []string{"/catalog/{*}"}}), both},
		"path by long template":      {to(&api.Operation{Paths: []string{"/{**}"}}), both},
		"path by another template":   {to(&api.Operation{Paths: []string{"/{*}"}}), none},
		"path by a bad template":     {to(&api.Operation{Paths: []string{"/{**}/x/{*}"}}), strict},
		"not the path":               {to(&api.Operation{NotPaths: []string{"/catalog/*"}}), none},
		"not another path":           {to(&api.Operation{NotPaths: []string{"/admin*"}}), both},
		"not a path by bad template": {to(&api.Operation{NotPaths: []string{"/foo/{*}.txt"}}), strict},
		"empty operation":            {to(&api.Operation{}), strict},

		"header":                       {when("request.headers[X-Tier]", "gold"), both},
		"header by prefix":             {when("request.headers[user-agent]", "curl/*"), both},
		"header that is there":         {when("request.headers[x-tier]", "*"), both},
		"header that is empty":         {when("request.headers[x-empty]", "*"), strict},
		"header that is not there":     {when("request.headers[x-none]", "*"), none},
		"not a header that is not":     {whenNot("request.headers[x-none]", "*"), both},
		"authority as header":          {when("request.headers[:authority]", "books.example.com:*"), both},
		"host as header":               {when("request.headers[Host]", "BOOKS.example.com:8080"), both},
		"method as header":             {when("request.headers[:method]", "GET"), both},
		"path as header":               {when("request.headers[:path]", "/catalog/1?all"), both},
		"path as header, no query":     {when("request.headers[:path]", "/catalog/1"), strict},
		"scheme as header":             {when("request.headers[:scheme]", "http"), both},
		"upgrade":                      {when("request.headers[upgrade]", "websocket"), none},
		"framing header":               {when("request.headers[Transfer-Encoding]", "chunked"), strict},
		"framing header, excluded":     {whenNot("request.headers[content-length]", "7"), strict},
		"header without name":          {when("request.headers[]", "x"), strict},
		"header without brackets":      {when("request.headers", "x"), strict},
		"source ip":                    {when("source.ip", "10.0.0.0/24"), both},
		"source namespace":             {when("source.namespace", "shop"), both},
		"source principal":             {when("source.principal", "cluster.local/ns/shop/sa/web"), both},
		"source account":               {when("source.serviceAccount", "shop/web"), both},
		"source trust domain":          {when("source.trustDomain", "cluster.local"), both},
		"remote ip as condition":       {when("remote.ip", "203.0.113.0/24"), both},
		"destination ip":               {when("destination.ip", "10.96.0.0/16"), both},
		"destination port":             {when("destination.port", "8080"), both},
		"server name":                  {when("connection.sni", "books.example.com"), none},
		"not the server name":          {whenNot("connection.sni", "books.example.com"), both},
		"token principal":              {when("request.auth.principal", "https://issuer.example.com/alice"), both},
		"audience":                     {when("request.auth.audiences", "films"), both},
		"another audience":             {when("request.auth.audiences", "music"), none},
		"presenter":                    {when("request.auth.presenter", "port*"), both},
		"claim":                        {when("request.auth.claims[group]", "readers"), both},
		"claim within a claim":         {when("request.auth.claims[realm][role]", "admin"), both},
		"claim that is a number":       {when("request.auth.claims[age]", "42"), strict},
		"claim that is an object":      {when("request.auth.claims[object]", "*"), strict},
		"claim that is not there":      {when("request.auth.claims[none]", "*"), none},
		"not the claim":                {whenNot("request.auth.claims[group]", "staff"), none},
		"claim without name":           {when("request.auth.claims[]", "*"), strict},
		"claim with half a bracket":    {when("request.auth.claims[a][b", "*"), strict},
		"metadata of Envoy":            {when("experimental.envoy.filters.network.mysql_proxy[db.t]", "[update]"), strict},
		"unknown key":                  {when("request.color", "red"), strict},
		"unknown key, excluded":        {whenNot("request.color", "red"), strict},
		"condition without values":     {when("source.namespace"), strict},
		"values and excluded values":   {&api.PolicyRule{When: []*api.Condition{{Key: "source.namespace", Values: []string{"sh*"}, NotValues: []string{"shop"}}}}, none},
		"one condition of two":         {&api.PolicyRule{When: []*api.Condition{{Key: "source.namespace", Values: []string{"shop"}}, {Key: "destination.port", Values: []string{"1"}}}}, none},
		"unknown key beside one known": {&api.PolicyRule{When: []*api.Condition{{Key: "source.namespace", Values: []string{"other"}}, {Key: "request.color", Values: []string{"1"}}}}, none},
	} {
		got := want{fits(t, api.Action_ALLOW, test.rule, shopper(t)), fits(t, api.Action_DENY, test.rule, shopper(t))}
		if got != test.want {
			t.Errorf("%s: fits in ALLOW, DENY = %v, want %v", name, got, test.want)
		}
	}
}

func TestTemplates(t *testing.T) {
	for _, test := range []struct {
		template, path string
		allow, deny    bool
	}{
		{"/foo/{*}", "/foo/bar", true, true},
		{"/foo/{*}", "/foo/bar/baz", false, false},
		{"/foo/{*}", "/foo/", false, false},
		{"/foo/{*}", "/foo/a=b", true, true},
		{"/foo/{*}/", "/foo/bar/", true, true},
		{"/foo/{*}/", "/foo/bar", false, false},
		{"/foo/{**}", "/foo/", true, true},
		{"/foo/{**}", "/foo/a/b/c", true, true},
		{"/foo/{**}", "/foo", false, true},
		{"/foo/{**}", "/foobar", false, false},
		{"/foo/{**}/", "/foo/bar/", true, true},
		{"/foo/{**}/", "/foo//", true, true},
		{"/foo/{**}/", "/foo/bar", false, true},
		{"/foo/{**}/", "/foo/bar/baz.txt", false, true},
		{"/foo/{*}/bar/{**}", "/foo/buzz/bar/", true, true},
		{"/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", true, true},
		{"/foo/{*}/bar/{**}", "/foo/buzz/bor/baz", false, false},
		{"/a/{**}/b", "/a//b", true, true},
		{"/a/{**}/b", "/a/x/y/b", true, true},
		{"/a/{**}/b", "/a/b", false, true},
		{"/{*}/{*}", "/a/b", true, true},
		{"/{*}/{*}", "/a", false, false},
		{"/%7euser/{*}", "/~user/x", true, true},
		// Not valid, so never in ALLOW and always in DENY.
		{"/*/baz/{*}", "/a/baz/b", false, true},
		{"/**/baz/{*}", "/x", false, true},
		{"/{**}/foo/{*}", "/x", false, true},
		{"/foo/{*}.txt", "/foo/a.txt", false, true},
		{"{*}", "/x", false, true},
		{"/{a}/{*}", "/x", false, true},
	} {
		a := shopper(t)
		a.Request.Path, a.Request.Folded = test.path, test.path
		rule := to(&api.Operation{Paths: []string{test.template}})
		if got := fits(t, api.Action_ALLOW, rule, a); got != test.allow {
			t.Errorf("ALLOW %s fits %s = %v", test.template, test.path, got)
		}
		if got := fits(t, api.Action_DENY, rule, a); got != test.deny {
			t.Errorf("DENY %s fits %s = %v", test.template, test.path, got)
		}
	}
}

func TestBothFormsOfAPathMustPass(t *testing.T) {
	a := shopper(t)
	a.Request.Path, a.Request.Folded = "/public//..%2Fadmin", "/admin"
	for path, want := range map[string][2]bool{
		"/public/*": {false, true},
		"/admin":    {false, true},
		"/other":    {false, false},
	} {
		rule := to(&api.Operation{Paths: []string{path}})
		if got := [2]bool{fits(t, api.Action_ALLOW, rule, a), fits(t, api.Action_DENY, rule, a)}; got != want {
			t.Errorf("%s: fits in ALLOW, DENY = %v, want %v", path, got, want)
		}
	}
	// Two ALLOW policies may take one form each.
	set := request.NewPolicies(
		compile(t, &api.Policy{Name: "one", Rules: []*api.PolicyRule{to(&api.Operation{Paths: []string{"/public/*"}})}}),
		compile(t, &api.Policy{Name: "two", Rules: []*api.PolicyRule{to(&api.Operation{Paths: []string{"/admin"}})}}),
	)
	if permit, _, err := set.Authorize(a, request.Consent{}); err != nil || permit.Policy() != "ns/one" {
		t.Errorf("two ALLOW policies for a form each: %q, %v", permit.Policy(), err)
	}
}

func TestBothFormsOfAPathAreAskedAboutAndObserved(t *testing.T) {
	a := shopper(t)
	a.Request.Path, a.Request.Folded = "/public//..%2Fadmin", "/admin"
	policy := func(name string, action api.Action, dry bool, path string) *request.Policy {
		return compile(t, &api.Policy{
			Name: name, Action: action, DryRun: dry, Provider: name, ExternalAuth: &api.ExternalAuth{},
			Rules: []*api.PolicyRule{to(&api.Operation{Paths: []string{path}})},
		})
	}
	set := request.NewPolicies(
		policy("custom", api.Action_CUSTOM, false, "/admin"), policy("audit", api.Action_AUDIT, false, "/admin"),
		policy("deny", api.Action_DENY, true, "/admin"), policy("allow", api.Action_ALLOW, true, "/public/*"),
	)
	consent := set.Consult(a)
	if len(consent.Asks()) != 1 {
		t.Fatalf("asks %v", consent.Asks())
	}
	consent.Agree(0)
	_, seen, err := set.Authorize(a, consent)
	want := []request.Observation{
		{Policy: "ns/audit", Action: request.Audit, Matched: true},
		{Policy: "ns/deny", Action: request.Deny, DryRun: true, Matched: true, WouldDeny: true},
		{Policy: "ns/allow", Action: request.Allow, DryRun: true, WouldDeny: true},
	}
	if err != nil || !slices.Equal(seen, want) {
		t.Errorf("%+v, %v; want %+v", seen, err, want)
	}
}

func TestLinesOfAHeaderField(t *testing.T) {
	a := shopper(t)
	a.Request.Fields = fields{{"x-role", "guest"}, {"x-other", "1"}, {"x-role", "admin"}}
	for value, want := range map[string][2]bool{
		"guest,admin": {true, true},
		"guest":       {false, true},
		"admin":       {false, true},
		"guest*":      {true, true},
		"1":           {false, false},
	} {
		rule := when("request.headers[x-role]", value)
		if got := [2]bool{fits(t, api.Action_ALLOW, rule, a), fits(t, api.Action_DENY, rule, a)}; got != want {
			t.Errorf("%s: fits in ALLOW, DENY = %v, want %v", value, got, want)
		}
	}
}

func TestHostsInOtherWords(t *testing.T) {
	for _, test := range []struct {
		authority, value string
		allow, deny      bool
	}{
		{"books.example.com.:8080", "books.example.com:8080", false, true},
		{"books.example.com.", "books.example.com", false, true},
		{"[2001:db8::1]:80", "[2001:db8::1]", false, true},
		{"[2001:db8::1]", "[2001:db8::1]", true, true},
		{"books.example.com", "books.example.com:*", false, true},
		{"books.example.com", "books.example.com:80", false, true},
		{"books.example.com", "books.example.com:8080", false, true},
		{"books.example.com", "books.example.com:9090", false, false},
		{"books.example.com:80", "books.example.com:8080", false, false},
		{"[2001:db8::1]", "[2001:db8::1]:8080", false, true},
		{"", "books.example.com", false, true},
	} {
		a := shopper(t)
		a.Request.Authority = test.authority
		rule := to(&api.Operation{Hosts: []string{test.value}})
		if got := fits(t, api.Action_ALLOW, rule, a); got != test.allow {
			t.Errorf("ALLOW %s fits %s = %v", test.value, test.authority, got)
		}
		if got := fits(t, api.Action_DENY, rule, a); got != test.deny {
			t.Errorf("DENY %s fits %s = %v", test.value, test.authority, got)
		}
	}
}

func TestMethodsInLowerCase(t *testing.T) {
	a := shopper(t)
	a.Request.Method = "delete"
	rule := to(&api.Operation{Methods: []string{"DELETE"}})
	if fits(t, api.Action_ALLOW, rule, a) || !fits(t, api.Action_DENY, rule, a) {
		t.Error("a method in lower case must be denied by its name in upper case, and not allowed")
	}
}

func TestBytesHaveNoRequest(t *testing.T) {
	a := shopper(t)
	a.Request = nil
	for name, rule := range map[string]*api.PolicyRule{
		"method":            to(&api.Operation{Methods: []string{"GET"}}),
		"not method":        to(&api.Operation{NotMethods: []string{"GET"}}),
		"path":              to(&api.Operation{Paths: []string{"/x"}}),
		"not path":          to(&api.Operation{NotPaths: []string{"/x"}}),
		"host":              to(&api.Operation{Hosts: []string{"x"}}),
		"header":            when("request.headers[x]", "1"),
		"not header":        whenNot("request.headers[x]", "1"),
		"request principal": from(&api.Source{RequestPrincipals: []string{"*"}}),
		"claim":             whenNot("request.auth.claims[x]", "1"),
	} {
		if fits(t, api.Action_ALLOW, rule, a) || !fits(t, api.Action_DENY, rule, a) {
			t.Errorf("%s: a condition on requests must never fit bytes in ALLOW and always in DENY", name)
		}
	}
	rule := to(&api.Operation{Ports: []string{"8080"}, NotPaths: []string{"/x"}})
	if fits(t, api.Action_ALLOW, rule, a) || !fits(t, api.Action_DENY, rule, a) {
		t.Error("the port must decide a DENY rule for bytes")
	}
	rule = to(&api.Operation{Ports: []string{"9"}, NotPaths: []string{"/x"}})
	if fits(t, api.Action_DENY, rule, a) {
		t.Error("another port must save bytes from a DENY rule")
	}
	if !fits(t, api.Action_ALLOW, from(&api.Source{Namespaces: []string{"shop"}}), a) {
		t.Error("a condition on the source must hold for bytes")
	}
}

func TestWhatIsNotKnownOfAConnection(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*request.Attributes)
		rule   *api.PolicyRule
	}{
		"remote address":      {func(a *request.Attributes) { a.Remote = netip.Addr{} }, when("remote.ip", "1.1.1.1")},
		"destination address": {func(a *request.Attributes) { a.Destination = netip.AddrPortFrom(netip.Addr{}, 80) }, whenNot("destination.ip", "1.1.1.1")},
		"path of CONNECT":     {func(a *request.Attributes) { a.Request.Path, a.Request.Folded = "", "" }, to(&api.Operation{Paths: []string{"/x"}})},
	} {
		a := shopper(t)
		test.change(a)
		if fits(t, api.Action_ALLOW, test.rule, a) || !fits(t, api.Action_DENY, test.rule, a) {
			t.Errorf("%s: what is not known must never fit in ALLOW and always in DENY", name)
		}
	}
}

func TestClientsWithoutIdentityOrToken(t *testing.T) {
	a := shopper(t)
	a.Peer, a.Request.Token = request.Peer{}, nil
	for name, rule := range map[string]*api.PolicyRule{
		"principal":         from(&api.Source{Principals: []string{"*"}}),
		"namespace":         from(&api.Source{Namespaces: []string{"*"}}),
		"account":           from(&api.Source{ServiceAccounts: []string{"shop/web"}}),
		"request principal": from(&api.Source{RequestPrincipals: []string{"*"}}),
		"audience":          when("request.auth.audiences", "*"),
		"claim":             when("request.auth.claims[x]", "*"),
	} {
		if fits(t, api.Action_ALLOW, rule, a) || fits(t, api.Action_DENY, rule, a) {
			t.Errorf("%s: fits although there is none", name)
		}
	}
	// The usual way to want a token.
	if !fits(t, api.Action_DENY, from(&api.Source{NotRequestPrincipals: []string{"*"}}), a) {
		t.Error("a request without token must fit notRequestPrincipals")
	}
	a.Request.Token = token{"iss": text("i")}
	if !fits(t, api.Action_DENY, from(&api.Source{NotRequestPrincipals: []string{"*"}}), a) {
		t.Error("a token without subject has no principal")
	}
}

func TestIdentitiesOfAnotherForm(t *testing.T) {
	for _, id := range []string{"spiffe://td/x", "spiffe://td/ns/a", "spiffe://td/ns/a/sa/b/c", "spiffe://td/ns/a/b/sa/c"} {
		if p, err := request.NewPeer(spiffeid.RequireFromString(id)); err == nil {
			t.Errorf("%s: %+v", id, p)
		}
	}
	if p, err := request.NewPeer(spiffeid.ID{}); err != nil || !p.IsZero() {
		t.Errorf("no identity: %+v, %v", p, err)
	}
	p := peer(t, "spiffe://td/ns/a/sa/b")
	if p.Principal() != "td/ns/a/sa/b" || p.Namespace() != "a" || p.Account() != "b" {
		t.Errorf("%+v", p)
	}
}

func TestAttributesThatCannotBeJudged(t *testing.T) {
	for name, change := range map[string]func(*request.Attributes){
		"no source": func(a *request.Attributes) { a.Source = netip.Addr{} },
		"no port":   func(a *request.Attributes) { a.Destination = netip.AddrPort{} },
	} {
		a := shopper(t)
		change(a)
		if permit, _, err := request.NewPolicies().Authorize(a, request.Consent{}); err == nil || permit.Valid() {
			t.Errorf("%s: was permitted", name)
		}
		if v := request.NewPolicies(compile(t, &api.Policy{})).Verdicts(a); v != nil {
			t.Errorf("%s: verdicts %v", name, v)
		}
	}
}

func TestOrderOfActions(t *testing.T) {
	everything := []*api.PolicyRule{{}}
	nothing := []*api.PolicyRule{from(&api.Source{Namespaces: []string{"other"}})}
	auth := &api.ExternalAuth{}
	allow := func(r []*api.PolicyRule) *api.Policy { return &api.Policy{Name: "allow", Rules: r} }
	deny := func(r []*api.PolicyRule) *api.Policy {
		return &api.Policy{Name: "deny", Action: api.Action_DENY, Rules: r}
	}
	custom := func(r []*api.PolicyRule) *api.Policy {
		return &api.Policy{Name: "custom", Action: api.Action_CUSTOM, Provider: "opa", ExternalAuth: auth, Rules: r}
	}
	for name, test := range map[string]struct {
		policies []*api.Policy
		agree    bool
		want     string // policy of the permit, or "!" and that of the denial
	}{
		"none":                              {nil, false, ""},
		"ALLOW fits":                        {[]*api.Policy{allow(everything)}, false, "ns/allow"},
		"ALLOW does not fit":                {[]*api.Policy{allow(nothing)}, false, "!ns/allow"},
		"ALLOW without rules":               {[]*api.Policy{allow(nil)}, false, "!ns/allow"},
		"DENY fits":                         {[]*api.Policy{allow(everything), deny(everything)}, false, "!ns/deny"},
		"DENY does not fit":                 {[]*api.Policy{deny(nothing)}, false, ""},
		"DENY without rules":                {[]*api.Policy{deny(nil)}, false, ""},
		"CUSTOM fits, refused":              {[]*api.Policy{allow(everything), custom(everything)}, false, "!ns/custom"},
		"CUSTOM fits, agreed":               {[]*api.Policy{allow(everything), custom(everything)}, true, "ns/allow"},
		"CUSTOM does not fit":               {[]*api.Policy{custom(nothing)}, false, ""},
		"CUSTOM cannot overrule DENY":       {[]*api.Policy{custom(everything), deny(everything)}, true, "!ns/deny"},
		"CUSTOM cannot stand in for ALLOW":  {[]*api.Policy{custom(everything), allow(nothing)}, true, "!ns/allow"},
		"CUSTOM comes before DENY":          {[]*api.Policy{deny(everything), custom(everything)}, false, "!ns/custom"},
		"CUSTOM of a provider that is none": {[]*api.Policy{{Name: "custom", Action: api.Action_CUSTOM, Provider: "x", Rules: everything}}, true, "!ns/custom"},
		"an action that is none":            {[]*api.Policy{allow(everything), {Name: "new", Action: 9, Rules: nothing}}, false, "!ns/new"},
	} {
		var compiled []*request.Policy
		for _, p := range test.policies {
			compiled = append(compiled, compile(t, p))
		}
		set, a := request.NewPolicies(compiled...), shopper(t)
		consent := set.Consult(a)
		for i := range consent.Asks() {
			if test.agree {
				consent.Agree(i)
			}
		}
		permit, seen, err := set.Authorize(a, consent)
		got := permit.Policy()
		if err != nil {
			got = "!" + err.(*request.Denial).Policy
		}
		if got != test.want || permit.Valid() != (err == nil) || seen != nil {
			t.Errorf("%s: %q (%v), want %q; observations %v", name, got, err, test.want, seen)
		}
	}
}

func TestConsent(t *testing.T) {
	custom := func(name, provider, key string) *request.Policy {
		return compile(t, &api.Policy{
			Name: name, Action: api.Action_CUSTOM, Provider: provider, ExternalAuth: &api.ExternalAuth{},
			Rules: []*api.PolicyRule{when(key, "no")},
		})
	}
	a := shopper(t)
	// Conditions on the token count as holding, for nobody has looked at it.
	set := request.NewPolicies(
		custom("one", "opa", "request.auth.claims[x]"), custom("two", "opa", "request.auth.presenter"),
		custom("three", "other", "request.auth.principal"), custom("four", "third", "source.namespace"),
	)
	consent := set.Consult(a)
	var names []string
	for _, ask := range consent.Asks() {
		names = append(names, ask.Policy+" "+ask.Provider)
	}
	if want := []string{"ns/one opa", "ns/three other"}; !slices.Equal(names, want) {
		t.Fatalf("asks %v, want %v", names, want)
	}
	consent.Agree(0)
	if _, _, err := set.Authorize(a, consent); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("one of two agreed: %v", err)
	}
	consent.Agree(1)
	if _, _, err := set.Authorize(a, consent); err != nil {
		t.Errorf("both agreed: %v", err)
	}
	if _, _, err := set.Authorize(a, request.Consent{}); err == nil {
		t.Error("a set with CUSTOM policies permits without having been consulted")
	}
	if _, _, err := set.With(custom("five", "opa", "source.ip")).Authorize(a, consent); err == nil {
		t.Error("the consent of another set counts")
	}
}

func TestWhatIsNotEnforcedIsObserved(t *testing.T) {
	everything := []*api.PolicyRule{{}}
	set := request.NewPolicies(
		compile(t, &api.Policy{Name: "audit", Action: api.Action_AUDIT, Rules: everything}),
		compile(t, &api.Policy{Name: "silent", Action: api.Action_AUDIT}),
		compile(t, &api.Policy{Name: "dry-allow", DryRun: true}),
		compile(t, &api.Policy{Name: "dry-deny", Action: api.Action_DENY, DryRun: true, Rules: everything}),
		compile(t, &api.Policy{Name: "dry-custom", Action: api.Action_CUSTOM, DryRun: true, Rules: everything}),
	)
	_, seen, err := set.Authorize(shopper(t), request.Consent{})
	want := []request.Observation{
		{Policy: "ns/audit", Action: request.Audit, Matched: true},
		{Policy: "ns/dry-custom", Action: request.Custom, DryRun: true, Matched: true},
		{Policy: "ns/dry-deny", Action: request.Deny, DryRun: true, Matched: true, WouldDeny: true},
		{Policy: "ns/dry-allow", Action: request.Allow, DryRun: true, WouldDeny: true},
	}
	if err != nil || !slices.Equal(seen, want) {
		t.Errorf("%+v, %v; want %+v", seen, err, want)
	}
	// An ALLOW that is enforced and fits saves the request from the one in rehearsal.
	set = set.With(compile(t, &api.Policy{Name: "allow", Rules: everything}))
	if _, seen, _ = set.Authorize(shopper(t), request.Consent{}); seen[3].WouldDeny {
		t.Errorf("%+v", seen[3])
	}
	// What is denied is observed too.
	if _, seen, err = set.With(compile(t, &api.Policy{Name: "deny", Action: api.Action_DENY, Rules: everything})).
		Authorize(shopper(t), request.Consent{}); err == nil || len(seen) != 4 {
		t.Errorf("%+v, %v", seen, err)
	}
}

func TestSetsAreImmutableAndComparable(t *testing.T) {
	one, two := compile(t, &api.Policy{Name: "one"}), compile(t, &api.Policy{Name: "two"})
	a := request.NewPolicies(one)
	b, c := a.With(two), a.With(two, two, one)
	if a.Len() != 1 || b.Len() != 2 || !b.Equal(c) || a.Equal(b) {
		t.Error("With changes its receiver or counts twice")
	}
	if b.WithMissing("ns/x").Equal(b) || !b.WithMissing("ns/x").Equal(c.WithMissing("ns/x")) {
		t.Error("a missing policy does not make a difference")
	}
	if all := b.All(); len(all) != 2 || all[0].Key() != "ns/one" {
		t.Error(all)
	}
}

func TestSetsOfOnePeer(t *testing.T) {
	other := compile(t, &api.Policy{Name: "other", Rules: []*api.PolicyRule{from(&api.Source{Namespaces: []string{"x"}})}})
	deny := compile(t, &api.Policy{Name: "deny", Action: api.Action_DENY, Rules: []*api.PolicyRule{when("source.namespace", "x")}})
	ours := compile(t, &api.Policy{Name: "ours", Rules: []*api.PolicyRule{from(&api.Source{Namespaces: []string{"shop"}})}})
	a := shopper(t)
	// That none of the ALLOW policies can fit does not make them go away.
	set := request.NewPolicies(other, deny).For(a.Peer)
	if _, _, err := set.Authorize(a, request.Consent{}); err == nil || !strings.Contains(err.Error(), "ns/other") || set.Len() != 0 {
		t.Errorf("%v, %d policies", err, set.Len())
	}
	if permit, _, err := set.With(ours).For(a.Peer).Authorize(a, request.Consent{}); err != nil || permit.Policy() != "ns/ours" {
		t.Error(err)
	}
	all := request.NewPolicies(ours)
	if !all.For(a.Peer).Equal(all) || set.Equal(request.NewPolicies()) {
		t.Error("sets are not compared with what they left out")
	}
}

func TestIncompleteSetsDeny(t *testing.T) {
	allow := compile(t, &api.Policy{Name: "allow", Rules: []*api.PolicyRule{{}}})
	var denial *request.Denial
	_, _, err := request.NewPolicies(allow).WithMissing("ns/late").Authorize(shopper(t), request.Consent{})
	if denial, _ = err.(*request.Denial); denial == nil || !denial.Incomplete || denial.Policy != "ns/late" {
		t.Errorf("%v", err)
	}
	_, _, err = request.Closed("no state").Authorize(shopper(t), request.Consent{})
	if denial, _ = err.(*request.Denial); denial == nil || denial.Incomplete || denial.Reason != "no state" {
		t.Errorf("%v", err)
	}
}

// unknown is a field that no version of the schema has.
func unknown(m proto.Message) {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
}

func TestFieldsOfTheFuture(t *testing.T) {
	for name, change := range map[string]func(*api.Policy){
		"policy":    func(p *api.Policy) { unknown(p) },
		"rule":      func(p *api.Policy) { unknown(p.Rules[0]) },
		"source":    func(p *api.Policy) { unknown(p.Rules[0].From[0]) },
		"operation": func(p *api.Policy) { unknown(p.Rules[0].To[0]) },
		"condition": func(p *api.Policy) { unknown(p.Rules[0].When[0]) },
	} {
		for _, action := range []api.Action{api.Action_ALLOW, api.Action_DENY} {
			p := &api.Policy{Action: action, Rules: []*api.PolicyRule{{
				From: []*api.Source{{Namespaces: []string{"shop"}}},
				To:   []*api.Operation{{Methods: []string{"GET"}}},
				When: []*api.Condition{{Key: "destination.port", Values: []string{"8080"}}},
			}}}
			change(p)
			compiled := compile(t, p)
			if _, _, err := request.NewPolicies(compiled).Authorize(shopper(t), request.Consent{}); err == nil {
				t.Errorf("%s of %v with an unknown field: permitted", name, action)
			}
			if len(compiled.Warnings()) == 0 {
				t.Errorf("%s of %v with an unknown field: no warning", name, action)
			}
		}
	}
	// In a DENY source with an unknown condition the known ones still decide.
	s := &api.Source{Namespaces: []string{"other"}}
	unknown(s)
	if fits(t, api.Action_DENY, from(s), shopper(t)) {
		t.Error("the known condition of a DENY source was passed over")
	}
}

func TestLimits(t *testing.T) {
	many := func(n int) []string { return slices.Repeat([]string{"x"}, n) }
	for name, rules := range map[string][]*api.PolicyRule{
		"rules":   slices.Repeat([]*api.PolicyRule{{}}, 4097),
		"sources": {{From: slices.Repeat([]*api.Source{{Namespaces: []string{"shop"}}}, 4097)}},
		"values":  {from(&api.Source{Namespaces: append(many(262144), "shop")})},
		"value":   {from(&api.Source{Namespaces: []string{strings.Repeat("x", 8193)}})},
		"key":     {when("request.headers["+strings.Repeat("x", 8192)+"]", "1")},
		"depth":   {when("request.auth.claims"+strings.Repeat("[x]", 17), "1")},
	} {
		for _, action := range []api.Action{api.Action_ALLOW, api.Action_DENY} {
			p := compile(t, &api.Policy{Action: action, Rules: rules})
			if _, _, err := request.NewPolicies(p).Authorize(shopper(t), request.Consent{}); err == nil || len(p.Warnings()) == 0 {
				t.Errorf("%s beyond the limit in %v: %v, warnings %v", name, action, err, p.Warnings())
			}
		}
	}
	if w := compile(t, &api.Policy{Rules: slices.Repeat([]*api.PolicyRule{when("x", "y")}, 100)}).Warnings(); len(w) != 16 {
		t.Errorf("%d warnings", len(w))
	}
}

func TestNames(t *testing.T) {
	for _, p := range []*api.Policy{
		{Namespace: "ns"}, {Name: "p"}, {Name: "a/b", Namespace: "ns"}, {Name: "p", Namespace: strings.Repeat("x", 254)},
		{Name: "a\nb", Namespace: "ns"},
	} {
		if _, err := request.Compile(p); err == nil {
			t.Errorf("%v: no error", p)
		}
	}
}

func TestReasonsNameWhatFailed(t *testing.T) {
	for want, rules := range map[string][]*api.PolicyRule{
		`nearest is ns/p: method "GET" is not one of POST, PUT`: {to(&api.Operation{Methods: []string{"PUT", "POST"}})},
		`path "/catalog/1" is excluded, being /catalog/*`:       {to(&api.Operation{NotPaths: []string{"/catalog/*"}})},
		`it has no rules, so it allows nothing`:                 nil,
		`it has a condition that is not understood and never holds: rules[0].when[0]: key "color" is not known`: {
			when("color", "red")},
		`header field x-tier does not have a value that the policy wants`: {when("request.headers[x-tier]", "platinum")},
		`claim realm.role has a value that the policy excludes`:           {whenNot("request.auth.claims[realm][role]", "admin")},
		`request principal "https://issuer.example.com/alice" is not x/*`: {from(&api.Source{RequestPrincipals: []string{"x/*"}})},
		`server name is none, and the policy wants a.example.com`:         {when("connection.sni", "a.example.com")},
		// The nearer of two rules is the one told of.
		`destination port "8080" is not 1`: {
			from(&api.Source{Namespaces: []string{"x"}, IpBlocks: []string{"1.1.1.1"}}),
			{From: []*api.Source{{Namespaces: []string{"shop"}}}, To: []*api.Operation{{Ports: []string{"1"}}}},
		},
		`source namespace "shop" is not one of a, b, c and 2 more`: {from(&api.Source{Namespaces: []string{"e", "d", "c", "b", "a"}})},
	} {
		set := request.NewPolicies(compile(t, &api.Policy{Rules: rules}))
		_, _, err := set.Authorize(shopper(t), request.Consent{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %s", err, want)
		}
	}
	a := shopper(t)
	a.Request.Path = "/" + strings.Repeat("x", 300)
	a.Request.Folded = a.Request.Path
	set := request.NewPolicies(compile(t, &api.Policy{Rules: []*api.PolicyRule{to(&api.Operation{Paths: []string{"/"}})}}))
	if _, _, err := set.Authorize(a, request.Consent{}); err == nil || len(err.Error()) > 300 {
		t.Errorf("%v quotes too much", err)
	}
}

func TestVerdicts(t *testing.T) {
	set := request.NewPolicies(
		compile(t, &api.Policy{Name: "allow", Rules: []*api.PolicyRule{{}, from(&api.Source{Namespaces: []string{"x"}})}}),
		compile(t, &api.Policy{Name: "deny", Action: api.Action_DENY, Rules: []*api.PolicyRule{to(&api.Operation{Methods: []string{"PUT"}})}}),
		compile(t, &api.Policy{Name: "audit", Action: api.Action_AUDIT, Rules: []*api.PolicyRule{{
			From: []*api.Source{{NotNamespaces: []string{"x"}}},
			When: []*api.Condition{{Key: "request.headers[x-tier]", Values: []string{"gold"}}, {Key: "color", Values: []string{"1"}}},
		}}}),
	)
	want := []request.Verdict{
		{Policy: "ns/deny", Action: request.Deny, Reason: `method "GET" is not PUT`},
		{Policy: "ns/allow", Action: request.Allow, Matched: true, Reason: "rule 1 matches everything"},
		{Policy: "ns/audit", Action: request.Audit, Matched: true,
			Reason: `rule 1 matches: source namespace is not x but "shop", header field x-tier has a value that is named, a part that is not understood`},
	}
	if got := set.Verdicts(shopper(t)); !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestPoliciesMarshalAsTheyArrived(t *testing.T) {
	b, err := compile(t, &api.Policy{Rules: []*api.PolicyRule{when("color", "red")}}).MarshalJSON()
	if err != nil || !strings.Contains(string(b), "color") {
		t.Errorf("%s, %v", b, err)
	}
}
