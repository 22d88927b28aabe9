package route_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// rewritten returns the path that a request gets by a rewrite behind a match.
func rewritten(t *testing.T, p *api.PathMatch, change *api.PathChange, path string) string {
	t.Helper()
	r := &api.Rule{Backends: to("a"), Filters: []*api.Filter{{Kind: &api.Filter_Rewrite{Rewrite: &api.Rewrite{Path: change}}}}}
	table := &api.RouteTable{Rules: []*api.Rule{r}, Matches: []*api.Match{{Path: p}}}
	request := get(path)
	d := compile(t, service(table)).Port(80).Match("", request)
	if d.Kind != route.Routed || d.Fault() != "" {
		t.Fatalf("%s: %v, %s", path, d.Kind, d.Fault())
	}
	d.Apply(nil, request)
	return request.Path
}

func TestRewritesOfVirtualServices(t *testing.T) {
	text := func(s string) *api.PathMatch { return &api.PathMatch{Kind: &api.PathMatch_TextPrefix{TextPrefix: s}} }
	folded := func(s string) *api.PathMatch {
		return &api.PathMatch{Kind: &api.PathMatch_Exact{Exact: s}, IgnoreCase: true}
	}
	prefix := func(s string) *api.PathChange { return &api.PathChange{Kind: &api.PathChange_Prefix{Prefix: s}} }
	regex := func(match, to string) *api.PathChange {
		return &api.PathChange{Kind: &api.PathChange_Regex{Regex: &api.RegexChange{Match: match, Substitution: to}}}
	}
	for _, c := range []struct {
		match      *api.PathMatch
		change     *api.PathChange
		path, want string
	}{
		{text("/api/"), prefix("/"), "/api/v1", "/v1"},
		{text("/api"), prefix("/x"), "/apiary", "/xary"},
		{text("/api"), prefix("/"), "/api/v1", "//v1"},
		// What was a part of a segment must not become a dot segment.
		{text("/a"), prefix("/b/"), "/a../secret", "/secret"},
		{text("/a"), prefix("/"), "/a./x", "/x"},
		{folded("/Login"), prefix("/sign-in"), "/LOGIN", "/sign-in"},
		{text("/"), regex("^/service/([^/]+)(/.*)$", `\2/instance/\1`), "/service/foo/v1/api", "/v1/api/instance/foo"},
		{text("/"), regex("one", "two"), "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"},
		{text("/"), regex("/(a)", `/$1\\`), "/b", "/b"},
		{text("/"), regex("^/x", ""), "/x", "/"},
	} {
		if got := rewritten(t, c.match, c.change, c.path); got != c.want {
			t.Errorf("%v %v: %s becomes %s, want %s", c.match, c.change, c.path, got, c.want)
		}
	}
}

func TestRetriesAreEnvoysWordsOrTheGatewayAPIs(t *testing.T) {
	p, err := route.CompileRetry(&api.Retry{Attempts: 3, Codes: []uint32{500}, PerTryTimeout: durationpb.New(time.Second)})
	if err != nil || p.Attempts != 3 || !p.AnyMethod || !p.Codes.Has(500) || p.On&upstream.OnReset == 0 || p.On&upstream.OnConnectFailure == 0 || p.PerTry != time.Second {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = route.CompileRetry(&api.Retry{Attempts: 1, Conditions: []string{"gateway-error", "unavailable"}, SameEndpoint: true})
	if err != nil || p.On&upstream.OnGatewayError == 0 || p.On&upstream.On5xx != 0 || p.GRPC != 1<<14 || !p.SameEndpoint {
		t.Errorf("%+v, %v", p, err)
	}
	for _, r := range []*api.Retry{{Conditions: []string{"whenever"}}, {Codes: []uint32{200}}, {PerTryTimeout: durationpb.New(-1)}} {
		if _, err := route.CompileRetry(r); err == nil {
			t.Errorf("%v is taken", r)
		}
	}
}

func TestFaultsHitTheirShare(t *testing.T) {
	filter := func(f *api.Fault) *route.Fault {
		t.Helper()
		r := &api.Rule{Backends: to("a"), Filters: []*api.Filter{{Kind: &api.Filter_Fault{Fault: f}}}}
		d := compile(t, service(&api.RouteTable{Rules: []*api.Rule{r}, Matches: []*api.Match{{}}})).Port(80).Match("", get("/"))
		if d.Fault() != "" {
			return nil
		}
		return d.Rule.Filters[0].Fault
	}
	f := filter(&api.Fault{
		Delay:   &api.FaultDelay{Duration: durationpb.New(time.Second), Numerator: 1, Denominator: 4},
		Abort:   &api.FaultAbort{Status: 503},
		Headers: []*api.FieldMatch{{Name: "x-test", Kind: &api.FieldMatch_Present{Present: true}}},
		Ref:     &api.RouteRef{Kind: "FaultPolicy", Namespace: "shop", Name: "f", Rule: "0"},
	})
	if f == nil || f.Name != "FaultPolicy/shop/f/0" || f.Delay.Duration != time.Second || f.Abort.Status != 503 {
		t.Fatalf("%+v", f)
	}
	hits := 0
	for i := range uint64(1000) {
		if f.Delay.Picks(i * (1 << 54)) {
			hits++
		}
		if !f.Abort.Picks(i << 54) {
			t.Fatal("not all are ended")
		}
	}
	if hits < 240 || hits > 270 {
		t.Errorf("%d of 1000", hits)
	}
	r := get("/")
	if f.Hits(r) {
		t.Error("hits a request without the field")
	}
	r.Header.Add("x-test", "")
	if !f.Hits(r) {
		t.Error("does not hit a request with the field")
	}
	for name, bad := range map[string]*api.Fault{
		"share":    {Delay: &api.FaultDelay{Numerator: 2, Denominator: 1}},
		"status":   {Abort: &api.FaultAbort{Status: 100}},
		"nothing":  {Abort: &api.FaultAbort{}},
		"grpc":     {Abort: &api.FaultAbort{HasGrpcStatus: true, GrpcStatus: 17}},
		"negative": {Delay: &api.FaultDelay{Duration: durationpb.New(-time.Second)}},
		"headers":  {Headers: []*api.FieldMatch{{Name: "x"}}},
		"too long": {Delay: &api.FaultDelay{Duration: durationpb.New(time.Hour)}},
	} {
		if filter(bad) != nil {
			t.Errorf("%s: is taken", name)
		}
	}
}

func TestRulesAnswerThemselves(t *testing.T) {
	direct := func(d *api.DirectResponse) route.Decision {
		r := &api.Rule{Filters: []*api.Filter{{Kind: &api.Filter_DirectResponse{DirectResponse: d}}}}
		return compile(t, service(&api.RouteTable{Rules: []*api.Rule{r}, Matches: []*api.Match{{}}})).Port(80).Match("", get("/"))
	}
	d := direct(&api.DirectResponse{Status: 418, Body: []byte("tea")})
	if a := d.Rule.Filters.Direct(); d.Fault() != "" || a == nil || a.Status != 418 || string(a.Body) != "tea" {
		t.Errorf("%q %+v", d.Fault(), a)
	}
	for _, bad := range []*api.DirectResponse{{}, {Status: 600}, {Status: 204, Body: []byte("x")}, {Status: 200, Body: make([]byte, 2<<20)}} {
		if direct(bad).Fault() == "" {
			t.Errorf("status %d with %d bytes is taken", bad.Status, len(bad.Body))
		}
	}
}

func TestExplanationsNameEveryKindOfCondition(t *testing.T) {
	m := &api.Match{
		Path: &api.PathMatch{Kind: &api.PathMatch_TextPrefix{TextPrefix: "/Shop"}, IgnoreCase: true}, Ports: []uint32{80, 81},
		Headers: []*api.FieldMatch{
			{Name: ":authority", Kind: &api.FieldMatch_Prefix{Prefix: "api."}},
			{Name: "x", Kind: &api.FieldMatch_Present{Present: true}, Invert: true},
		},
	}
	p := compile(t, service(&api.RouteTable{Rules: []*api.Rule{{Backends: to("a")}}, Matches: []*api.Match{m}})).Port(80)
	r := get("/SHOPPING")
	r.Authority = "web.shop"
	e := p.Explain("", r)
	want := []string{"port in 80 81", "path begins with /shop in any case", "header :authority begins with api.", "header not x is there"}
	if got := e.Considered[0]; !slices.Equal(got.Conditions, want) || got.Failed != want[2] || got.Got != "web.shop" {
		t.Errorf("%+v", got)
	}
	if e := p.ExplainConnect("", ""); !strings.HasPrefix(e.Considered[0].Failed, "path") {
		t.Errorf("%+v", e)
	}
}

func TestCORSByRegularExpressionAndByTheApplication(t *testing.T) {
	filter := &api.Filter{Kind: &api.Filter_Cors{Cors: &api.Cors{
		AllowOriginRegexes: []string{`https://[a-z]+\.example`}, AllowMethods: []string{"GET"}, ForwardUnmatched: true,
	}}}
	r := &api.Rule{Backends: to("a"), Filters: []*api.Filter{filter}}
	d := compile(t, service(&api.RouteTable{Rules: []*api.Rule{r}, Matches: []*api.Match{{}}})).Port(80).Match("", get("/"))
	cors := d.Rule.Filters.CORS()
	ask := func(origin string) *message.Request {
		q := get("/")
		q.Method = "OPTIONS"
		q.Header = message.Header{{Name: "origin", Value: origin}, {Name: "access-control-request-method", Value: "GET"}}
		return q
	}
	if a := cors.Preflight(ask("https://shop.example")); a == nil || a.Status != 200 {
		t.Errorf("%+v", a)
	}
	if a := cors.Preflight(ask("https://shop.example.evil")); a != nil {
		t.Errorf("not the application's: %+v", a)
	}
	answer := &message.Response{Status: 204, Header: message.Header{{Name: "access-control-allow-origin", Value: "https://other.test"}}}
	cors.Apply("https://other.test", answer)
	if answer.Header.Get("access-control-allow-origin") != "https://other.test" {
		t.Errorf("%v", answer.Header)
	}
}
