package route_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

func TestCompileKeepsWhatOthersUse(t *testing.T) {
	s := service(&api.RouteTable{
		Rules: []*api.Rule{{
			Ref:      &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "cart", Rule: "checkout"},
			Backends: []*api.Backend{{Service: "shop/cart.shop.svc.cluster.local", Port: 8080, Weight: 7}},
			Timeouts: &api.Timeouts{Request: durationpb.New(3 * time.Second), Backend: durationpb.New(time.Second)},
			Retry:    &api.Retry{Attempts: 4, Codes: []uint32{503, 500}, Backoff: durationpb.New(time.Millisecond)},
			SessionAffinity: &api.SessionAffinity{
				Kind: &api.SessionAffinity_Cookie{Cookie: "sid"}, IdleTimeout: durationpb.New(time.Minute), Permanent: true,
			},
			RateLimits: []string{"shop/limit"},
			Filters: []*api.Filter{
				{Kind: &api.Filter_Mirror{Mirror: &api.Mirror{Backend: to("copy")[0], Numerator: 1, Denominator: 4}}},
				{Kind: &api.Filter_ExternalAuth{ExternalAuth: &api.ExternalAuth{
					Backend: to("auth")[0], PathPrefix: "check", AllowedHeaders: []string{"cookie"},
					AllowedResponseHeaders: []string{"x-user"}, MaxBodyBytes: 1024,
				}}},
			},
		}},
		Matches: []*api.Match{{}},
	})
	s.Policies, s.Authentications = []string{"shop/deny"}, []string{"shop/jwt"}
	c := compile(t, s)
	if c.Namespace != "shop" || c.Hostname != "echo.shop.svc.cluster.local" || c.Name != "echo" ||
		!slices.Equal(c.Policies, s.Policies) || !slices.Equal(c.Authentications, s.Authentications) {
		t.Errorf("%+v", c)
	}
	p := c.Port(80)
	if p.Number != 80 || p.Protocol != api.Protocol_HTTP1 {
		t.Errorf("%+v", p)
	}
	d := p.Match("any", get("/"))
	r := d.Rule
	if d.Fault() != "" || r.Name != "HTTPRoute/shop/cart/checkout" || r.RequestTimeout != 3*time.Second || r.BackendTimeout != time.Second ||
		!slices.Equal(r.RateLimits, []string{"shop/limit"}) {
		t.Errorf("%+v", r)
	}
	if b := r.Pick(1 << 63); b.Service != "shop/cart.shop.svc.cluster.local" || b.Port != 8080 || b.Weight != 7 {
		t.Errorf("%+v", b)
	}
	if r.Retry.Attempts != 4 || r.Retry.Backoff.Floor != time.Millisecond || !r.Retry.Codes.Has(500) || !r.Retry.Codes.Has(503) || r.Retry.Codes.Has(502) {
		t.Errorf("%+v", r.Retry)
	}
	if a := r.Affinity; a.Cookie != "sid" || a.Header != "" || a.Idle != time.Minute || a.Absolute != 0 || !a.Permanent {
		t.Errorf("%+v", a)
	}
	m, auth := r.Filters[0].Mirror, r.Filters[1].ExternalAuth
	if m.Backend.Service != "shop/copy" || m.Backend.Fault != "" {
		t.Errorf("%+v", m)
	}
	if auth.Backend.Service != "shop/auth" || auth.Spec.GetGrpc() || auth.Spec.GetPathPrefix() != "/check" || auth.Spec.GetMaxBodyBytes() != 1024 ||
		!slices.Equal(auth.Spec.GetAllowedHeaders(), []string{"cookie"}) || !slices.Equal(auth.Spec.GetAllowedResponseHeaders(), []string{"x-user"}) {
		t.Errorf("%+v", auth)
	}
	if r.Filters.CORS() != nil || r.Filters.Redirect() != nil {
		t.Error("filters that are not there")
	}
}

func TestCompileRefuses(t *testing.T) {
	change := func(f func(s *api.Service)) *api.Service {
		s := service(table("", rule{backends: to("echo-v1")}))
		f(s)
		return s
	}
	for name, s := range map[string]*api.Service{
		"nothing":       {},
		"no hostname":   {Namespace: "a"},
		"port 0":        change(func(s *api.Service) { s.Ports[0].Port = 0 }),
		"port 65536":    change(func(s *api.Service) { s.Ports[0].Port = 65536 }),
		"port twice":    change(func(s *api.Service) { s.Ports = append(s.Ports, s.Ports[0]) }),
		"table twice":   change(func(s *api.Service) { s.Ports[0].Routes = append(s.Ports[0].Routes, s.Ports[0].Routes[0]) }),
		"clients twice": service(table("a"), table("a")),
		"rule":          change(func(s *api.Service) { s.Ports[0].Routes[0].Matches[0].Rule = 1 }),
	} {
		if c, err := route.Compile(s); err == nil {
			t.Errorf("%s: compiled: %+v", name, c)
		}
	}
}

// TestConditionsThatCannotBe answer 500 to all that they may be about, so that it does
// not go on to a match that the author did not mean; the others stand.
func TestConditionsThatCannotBe(t *testing.T) {
	for name, m := range map[string]*api.Match{
		"relative path":   match("exact a", "header h=v"),
		"empty path":      match("exact ", "header h=v"),
		"no path":         match("prefix /%zz", "header h=v"),
		"long path":       match("prefix /"+strings.Repeat("a", 4096), "header h=v"),
		"regex":           match("regex a)(b", "header h=v"),
		"long regex":      match("regex "+strings.Repeat("a", 4097), "header h=v"),
		"header regex":    match("header x~(", "header h=v"),
		"parameter regex": match("query x~(", "header h=v"),
		"no header":       match("header =v", "header h=v"),
		"no parameter":    match("query =v", "header h=v"),
		"many conditions": {Headers: append([]*api.FieldMatch{field("h=v")}, slices.Repeat([]*api.FieldMatch{field("h=v")}, 64)...)},
		"server name":     match("server a.*.example", "header h=v"),
		"wild name":       match("server *.", "header h=v"),
		"header twice":    match("header H=v", "header h~(", "method GET", "header x~("),
	} {
		p := port(t, rule{matches: []*api.Match{m}, backends: to("bad")}, rule{matches: []*api.Match{match("prefix /ok")}, backends: to("good")})
		if got := backendOf(t, p, get("/", "h: v")); got != "500" {
			t.Errorf("%s: %s, want 500", name, got)
		}
		if got := backendOf(t, p, get("/ok", "h: other")); got != "good" {
			t.Errorf("%s, but not the condition that can be: %s", name, got)
		}
	}
}

// TestWhatIsNotUnderstoodAnswers500: a newer control plane says more than this
// version knows. No request goes on to the next match because of it, and no filter is
// left out.
func TestWhatIsNotUnderstoodAnswers500(t *testing.T) {
	newer := func(m proto.Message) {
		m.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 999, protowire.BytesType), "x"))
	}
	for name, f := range map[string]func(r *api.Rule, m *api.Match){
		"condition":         func(_ *api.Rule, m *api.Match) { newer(m) },
		"kind of path":      func(_ *api.Rule, m *api.Match) { m.Path = &api.PathMatch{} },
		"kind of header":    func(_ *api.Rule, m *api.Match) { m.Headers = []*api.FieldMatch{{Name: "absent"}} },
		"kind of parameter": func(_ *api.Rule, m *api.Match) { m.Query = []*api.FieldMatch{{Name: "absent"}} },
		"in a path":         func(_ *api.Rule, m *api.Match) { m.Path = match("prefix /").Path; newer(m.Path) },
		"rule":              func(r *api.Rule, _ *api.Match) { newer(r) },
		"timeouts":          func(r *api.Rule, _ *api.Match) { r.Timeouts = &api.Timeouts{}; newer(r.Timeouts) },
		"filter":            func(r *api.Rule, _ *api.Match) { r.Filters = []*api.Filter{{}} },
		"in a filter": func(r *api.Rule, _ *api.Match) {
			r.Filters = []*api.Filter{requestHeaders(&api.HeaderChange{})}
			newer(r.Filters[0].GetRequestHeaders())
		},
	} {
		tb := table("", rule{backends: to("new")}, rule{backends: to("old")})
		f(tb.Rules[0], tb.Matches[0])
		p := compile(t, service(tb)).Port(80)
		if status, _, refused := p.Match("", get("/")).Refusal(); status != 500 || !refused {
			t.Errorf("%s: %d %v", name, status, refused)
		}
		if e := p.Explain("", get("/")); e.Fault == "" || e.Rule != "HTTPRoute/shop/test/r00" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	b := to("new", "old")
	newer(b[0])
	d := port(t, rule{backends: b}).Match("", get("/"))
	if d.Fault() != "" || d.Rule.Backends[0].Fault == "" || d.Rule.Backends[1].Fault != "" {
		t.Errorf("backend: %q %+v", d.Fault(), d.Rule.Backends)
	}
}

// TestWhatIsNotUnderstoodIsFoundEverywhere puts it into each message of a service in
// turn, below its tables.
func TestWhatIsNotUnderstoodIsFoundEverywhere(t *testing.T) {
	s := everything()
	s.Ports[0].Routes = s.Ports[0].Routes[:1]
	clean := faults(t, s)
	places := 0
	var visit func(m protoreflect.Message, path string)
	visit = func(m protoreflect.Message, path string) {
		switch m.Descriptor().FullName() {
		case "tulle.waypoint.Service", "tulle.waypoint.Port", "tulle.waypoint.RouteTable", "google.protobuf.Duration":
		default:
			places++
			m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
			if faults(t, s) <= clean {
				t.Errorf("not found in %s", path)
			}
			m.SetUnknown(nil)
		}
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.Message() == nil:
			case f.IsList():
				for i := range v.List().Len() {
					visit(v.List().Get(i).Message(), fmt.Sprintf("%s.%s[%d]", path, f.Name(), i))
				}
			default:
				visit(v.Message(), path+"."+string(f.Name()))
			}
			return true
		})
	}
	visit(s.ProtoReflect(), "service")
	if places < 90 {
		t.Errorf("only %d places", places)
	}
}

// faults counts the rules, backends and matches that cannot be carried out. Each match
// is compiled alone, since explanations end at the one that fits.
func faults(t testing.TB, s *api.Service) int {
	t.Helper()
	n := 0
	for _, p := range s.Ports {
		for _, table := range p.Routes {
			for _, m := range table.Matches {
				one := proto.CloneOf(m)
				one.Method, one.Rule = "", 0
				alone := &api.RouteTable{Rules: []*api.Rule{table.Rules[m.Rule]}, Matches: []*api.Match{one}}
				port := compile(t, service(alone)).Port(80)
				for _, path := range []string{"/a?a=b", "/a/b?a=b", "/x/y?a=b"} {
					if d := port.Match("", get(path, "a: b")); d.Kind == route.Routed {
						if d.Fault() != "" {
							n++
						}
						for _, b := range d.Rule.Backends {
							if b.Fault != "" {
								n++
							}
						}
					}
				}
				if d := port.Connect("", "x.a.b"); d.Fault() != "" {
					n++
				}
			}
		}
	}
	return n
}

func TestFaultsOfRules(t *testing.T) {
	for name, r := range map[string]*api.Rule{
		"author's":       {Fault: "no such service", Backends: to("a")},
		"timeout":        {Backends: to("a"), Timeouts: &api.Timeouts{Request: &durationpb.Duration{Seconds: -1}}},
		"backend's time": {Backends: to("a"), Timeouts: &api.Timeouts{Backend: &durationpb.Duration{Nanos: -1}}},
		"code":           {Backends: to("a"), Retry: &api.Retry{Codes: []uint32{200}}},
		"backoff":        {Backends: to("a"), Retry: &api.Retry{Backoff: &durationpb.Duration{Seconds: 1 << 60}}},
		"affinity":       {Backends: to("a"), SessionAffinity: &api.SessionAffinity{}},
		"cookie":         {Backends: to("a"), SessionAffinity: &api.SessionAffinity{Kind: &api.SessionAffinity_Cookie{Cookie: "a;b"}}},
		"no backends":    {},
	} {
		p := compile(t, service(&api.RouteTable{Rules: []*api.Rule{r}, Matches: []*api.Match{{}}})).Port(80)
		if d := p.Match("", get("/")); d.Fault() == "" {
			t.Errorf("%s: no fault", name)
		}
	}
	for name, b := range map[string]*api.Backend{
		"no service": {Port: 80, Weight: 1},
		"no name":    {Service: "shop/", Port: 80, Weight: 1},
		"port 0":     {Service: "shop/a", Weight: 1},
		"port 65536": {Service: "shop/a", Port: 65536, Weight: 1},
	} {
		d := port(t, rule{backends: []*api.Backend{b}}).Match("", get("/"))
		if status, _, refused := d.Rule.Pick(0).Refusal(); status != 500 || !refused {
			t.Errorf("%s: %d %v", name, status, refused)
		}
	}
}

func TestWithoutARuleNothingChanges(t *testing.T) {
	d := compile(t, service()).Port(80).Match("", get("/"))
	r, resp := get("/a?b", "c: d"), &message.Response{Status: 200, Header: message.Header{{Name: "a", Value: "b"}}}
	d.Apply(nil, r)
	d.ApplyResponse(nil, resp)
	if !reflect.DeepEqual(r, get("/a?b", "c: d")) || text(resp.Header) != "a: b" {
		t.Errorf("%+v %+v", r, resp)
	}
	if _, ok := d.Prefix(); ok {
		t.Error("a prefix without a match")
	}
	if _, _, refused := d.Refusal(); refused {
		t.Error("refused")
	}
}

// TestResponsesChangeInTheOtherOrder: first as the backend says, then as the rule does.
func TestResponsesChangeInTheOtherOrder(t *testing.T) {
	set := func(v string) []*api.Filter {
		return []*api.Filter{{Kind: &api.Filter_ResponseHeaders{ResponseHeaders: headers([]string{"x", v}, nil)}}, requestHeaders(headers([]string{"x", v}, nil))}
	}
	b := to("a")
	b[0].Filters = set("backend")
	d := port(t, rule{filters: set("rule"), backends: b}).Match("", get("/"))
	r, resp := get("/"), &message.Response{Status: 200}
	d.Apply(d.Rule.Pick(0), r)
	d.ApplyResponse(d.Rule.Pick(0), resp)
	if text(r.Header) != "x: backend" || text(resp.Header) != "x: rule" {
		t.Errorf("%v %v", r.Header, resp.Header)
	}
}

// TestATableWithoutMatchesFindsNothing: routes concern the client, and none fits.
func TestATableWithoutMatchesFindsNothing(t *testing.T) {
	p := compile(t, service(&api.RouteTable{})).Port(80)
	if d := p.Match("", get("/")); d.Kind != route.NotFound || d.Fault() != "" {
		t.Errorf("%v", d)
	}
	if d := p.Connect("", "a.example"); d.Kind != route.NotFound {
		t.Errorf("%v", d)
	}
}

func TestClientsWithATableTakeNoOther(t *testing.T) {
	p := compile(t, service(
		table("", rule{matches: []*api.Match{match("prefix /a")}, backends: to("all")}),
		table("client", rule{matches: []*api.Match{match("prefix /b")}, backends: to("theirs")}),
	)).Port(80)
	for _, c := range []struct {
		ns, path string
		want     route.Kind
	}{
		{"client", "/a", route.NotFound}, {"client", "/b", route.Routed},
		{"other", "/a", route.Routed}, {"other", "/b", route.NotFound}, {"", "/a", route.Routed},
	} {
		if d := p.Match(c.ns, get(c.path)); d.Kind != c.want {
			t.Errorf("%s %s: %v", c.ns, c.path, d.Kind)
		}
		if e := p.Explain(c.ns, get(c.path)); e.Decision != c.want.String() || (e.Clients == "client") != (c.ns == "client") {
			t.Errorf("%s %s: %+v", c.ns, c.path, e)
		}
	}
}

// TestPathsAreComparedInNormalForm, that of the route's and that of the request's.
func TestPathsAreComparedInNormalForm(t *testing.T) {
	p := port(t,
		rule{matches: []*api.Match{match("exact /%7euser/%e4")}, backends: to("exact")},
		rule{matches: []*api.Match{match("prefix /b%2fc/")}, backends: to("prefix")},
	)
	for given, want := range map[string]string{"/~user/%E4": "exact", "/%7Euser/x/../%e4": "exact", "/b%2Fc/d": "prefix", "/b/c/d": "404"} {
		path, err := message.NormalizePath(given)
		if err != nil {
			t.Fatal(err)
		}
		if got := backendOf(t, p, get(path)); got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
}

// everything is a service with one of all there is.
func everything() *api.Service {
	filters := []*api.Filter{
		requestHeaders(headers([]string{"a", "b"}, []string{"c", "d"}, "e")),
		{Kind: &api.Filter_ResponseHeaders{ResponseHeaders: headers([]string{"a", "b"}, nil)}},
		redirect(&api.Redirect{Scheme: "https", Hostname: "a.b", Path: full("/x"), Port: 81, Status: 301})[0],
		rewrite(&api.Rewrite{Hostname: "a.b", Path: full("/x")}),
		{Kind: &api.Filter_Mirror{Mirror: &api.Mirror{Backend: to("m")[0], Numerator: 1, Denominator: 2}}},
		{Kind: &api.Filter_Cors{Cors: corsLists}},
		{Kind: &api.Filter_ExternalAuth{ExternalAuth: &api.ExternalAuth{Backend: to("a")[0], Grpc: true}}},
	}
	var rules []rule
	for _, f := range filters {
		b := to("x", "y")
		b[0].Filters = []*api.Filter{f}
		rules = append(rules, rule{
			matches: []*api.Match{
				match("exact /a", "header a=b"), match("prefix /a/b", "query a~b.*"), match("regex /x/.*", "method GET"), match("server *.a.b"), {},
			},
			filters: []*api.Filter{f}, backends: b,
		})
	}
	s := service(table("", rules...), table("clients", rules...))
	s.Policies, s.Authentications = []string{"a/b"}, []string{"c/d"}
	r := s.Ports[0].Routes[0].Rules[0]
	r.Timeouts = &api.Timeouts{Request: durationpb.New(time.Second), Backend: durationpb.New(time.Second)}
	r.Retry = &api.Retry{Attempts: 1, Codes: []uint32{500}, Backoff: durationpb.New(time.Second)}
	r.SessionAffinity = &api.SessionAffinity{Kind: &api.SessionAffinity_Header{Header: "H"}}
	return s
}

// use asks everything of a compiled service.
func use(t testing.TB, s *route.Service, r *message.Request) {
	for _, number := range []uint16{0, 80, 443} {
		p := s.Port(number)
		if p == nil {
			continue
		}
		for _, ns := range []string{"", "clients"} {
			d, e := p.Match(ns, r), p.Explain(ns, r)
			if e.Decision != d.Kind.String() || d.Kind == route.Routed && (e.Rule != d.Rule.Name || e.Fault != d.Fault()) {
				t.Fatalf("%+v is explained as %+v", d, e)
			}
			if c, e := p.Connect(ns, "x.a.b"), p.ExplainConnect(ns, "x.a.b"); e.Decision != c.Kind.String() {
				t.Fatalf("%+v is explained as %+v", c, e)
			}
			if d.Kind != route.Routed {
				continue
			}
			b, req, resp := d.Rule.Pick(1<<63), r.Clone(), &message.Response{Status: 200}
			d.Apply(b, req)
			d.ApplyResponse(b, resp)
			if x := d.Rule.Filters.Redirect(); x != nil {
				x.Respond(d, r, number)
			}
			if c := d.Rule.Filters.CORS(); c != nil {
				c.Preflight(r)
				c.Apply(r.Header.Get("origin"), resp)
			}
		}
	}
}

func TestTruncatedServicesAreRefusedOrWork(t *testing.T) {
	raw, err := proto.Marshal(everything())
	if err != nil {
		t.Fatal(err)
	}
	compiled := 0
	for n := range raw {
		var s api.Service
		if proto.Unmarshal(raw[:n], &s) != nil {
			continue
		}
		if c, err := route.Compile(&s); err == nil {
			compiled++
			use(t, c, get("/a/b?a=b", "a: b"))
		}
	}
	if compiled == 0 {
		t.Error("no part of it compiled")
	}
}

func FuzzCompile(f *testing.F) {
	raw, err := proto.Marshal(everything())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, "/a/b?a=b", "origin", "https://www.foo.com")
	f.Fuzz(func(t *testing.T, raw []byte, target, name, value string) {
		var s api.Service
		if proto.Unmarshal(raw, &s) != nil {
			return
		}
		c, err := route.Compile(&s)
		if err != nil {
			return
		}
		path, query, has, err := message.ParseTarget(target)
		if err != nil {
			return
		}
		r := get(path)
		r.Query, r.HasQuery = query, has
		r.Header.Add(name, value)
		use(t, c, r)
	})
}
