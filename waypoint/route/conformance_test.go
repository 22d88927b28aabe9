package route_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// The cases of gateway-api's conformance suite, v1.6.3, that a router decides; the
// names are those of its tests.

func TestMeshHTTPRouteMatching(t *testing.T) {
	p := port(t,
		rule{matches: []*api.Match{match("prefix /"), match("header version=one")}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("prefix /v2"), match("header version=two")}, backends: to("echo-v2")},
	)
	for _, c := range []struct {
		r    *message.Request
		want string
	}{
		{get("/"), "echo-v1"},
		{get("/example"), "echo-v1"},
		{get("/", "Version: one"), "echo-v1"},
		{get("/v2"), "echo-v2"},
		{get("/v2/example"), "echo-v2"},
		{get("/", "Version: two"), "echo-v2"},
		{get("/v2/"), "echo-v2"},
		{get("/v2example"), "echo-v1"},
		{get("/foo/v2/example"), "echo-v1"},
	} {
		if got := backendOf(t, p, c.r); got != c.want {
			t.Errorf("%s %v: %s, want %s", c.r.Target(), c.r.Header, got, c.want)
		}
	}
}

func TestMeshHTTPRouteQueryParamMatching(t *testing.T) {
	p := port(t,
		rule{matches: []*api.Match{match("query animal=whale")}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("query animal=dolphin")}, backends: to("echo-v2")},
		rule{matches: []*api.Match{match("prefix /path1", "query animal=whale")}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("header version=one", "query animal=whale")}, backends: to("echo-v2")},
		rule{matches: []*api.Match{
			match("prefix /path3", "query animal=shark"),
			match("prefix /path4", "header version=three", "query animal=kraken"),
		}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("prefix /path5")}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("query animal=hydra")}, backends: to("echo-v2")},
	)
	for _, c := range []struct {
		r    *message.Request
		want string
	}{
		{get("/?animal=whale"), "echo-v1"},
		{get("/?animal=dolphin"), "echo-v2"},
		{get("/?animal=whale&otherparam=irrelevant"), "echo-v1"},
		{get("/?animal=dolphin&color=yellow"), "echo-v2"},
		{get("/?color=blue"), "404"},
		{get("/?animal=dog"), "404"},
		{get("/?animal=whaledolphin"), "404"},
		{get("/"), "404"},
		{get("/path1?animal=whale"), "echo-v1"},
		{get("/?animal=whale", "version: one"), "echo-v2"},
		{get("/path3?animal=shark"), "echo-v1"},
		{get("/path4?animal=kraken", "version: three"), "echo-v1"},
		{get("/?animal=shark"), "404"},
		{get("/path4?animal=kraken"), "404"},
		{get("/path5?animal=hydra"), "echo-v1"},
	} {
		if got := backendOf(t, p, c.r); got != c.want {
			t.Errorf("%s %v: %s, want %s", c.r.Target(), c.r.Header, got, c.want)
		}
	}
}

func TestMeshTrafficSplit(t *testing.T) {
	p := port(t,
		rule{matches: []*api.Match{match("exact /v1")}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("exact /v2")}, backends: to("echo-v2")},
	)
	for path, want := range map[string]string{"/v1": "echo-v1", "/v2": "echo-v2", "/v1/": "404", "/v": "404", "/": "404"} {
		if got := backendOf(t, p, get(path)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func headers(set, add []string, remove ...string) *api.HeaderChange {
	c := &api.HeaderChange{Remove: remove}
	for i := 0; i < len(set); i += 2 {
		c.Set = append(c.Set, &api.HeaderField{Name: set[i], Value: set[i+1]})
	}
	for i := 0; i < len(add); i += 2 {
		c.Add = append(c.Add, &api.HeaderField{Name: add[i], Value: add[i+1]})
	}
	return c
}

func requestHeaders(c *api.HeaderChange) *api.Filter {
	return &api.Filter{Kind: &api.Filter_RequestHeaders{RequestHeaders: c}}
}

// TestMeshHTTPRouteRequestHeaderModifier has the filters on the rule, and once more on
// the backend (MeshHTTPRouteBackendRequestHeaderModifier).
func TestMeshHTTPRouteRequestHeaderModifier(t *testing.T) {
	changes := []struct {
		path   string
		change *api.HeaderChange
	}{
		{"/set", headers([]string{"X-Header-Set", "set-overwrites-values"}, nil)},
		{"/add", headers(nil, []string{"X-Header-Add", "add-appends-values"})},
		{"/remove", headers(nil, nil, "X-Header-Remove")},
		{"/multiple", headers(
			[]string{"X-Header-Set-1", "header-set-1", "X-Header-Set-2", "header-set-2"},
			[]string{"X-Header-Add-1", "header-add-1", "X-Header-Add-2", "header-add-2", "X-Header-Add-3", "header-add-3"},
			"X-Header-Remove-1", "X-Header-Remove-2")},
		{"/case-insensitivity", headers([]string{"X-Header-Set", "header-set"}, []string{"X-Header-Add", "header-add"}, "X-Header-Remove")},
	}
	cases := []struct {
		path  string
		given []string
		want  string
	}{
		{"/set", []string{"Some-Other-Header: val"}, "some-other-header: val|x-header-set: set-overwrites-values"},
		{"/set", []string{"Some-Other-Header: val", "X-Header-Set: some-other-value"}, "some-other-header: val|x-header-set: set-overwrites-values"},
		{"/add", []string{"Some-Other-Header: val"}, "some-other-header: val|x-header-add: add-appends-values"},
		{"/add", []string{"Some-Other-Header: val", "X-Header-Add: some-other-value"}, "some-other-header: val|x-header-add: some-other-value,add-appends-values"},
		{"/remove", []string{"X-Header-Remove: val"}, ""},
		{"/multiple", []string{"X-Header-Set-2: set-val-2", "X-Header-Add-2: add-val-2", "X-Header-Remove-2: remove-val-2", "Another-Header: another-header-val"},
			"another-header: another-header-val|x-header-add-1: header-add-1|x-header-add-2: add-val-2,header-add-2|x-header-add-3: header-add-3|x-header-set-1: header-set-1|x-header-set-2: header-set-2"},
		{"/case-insensitivity", []string{"x-header-set: original-val-set", "x-header-add: original-val-add", "x-header-remove: original-val-remove", "Another-Header: another-header-val"},
			"another-header: another-header-val|x-header-add: original-val-add,header-add|x-header-set: header-set"},
	}
	for _, onBackend := range []bool{false, true} {
		var rules []rule
		for _, c := range changes {
			r := rule{matches: []*api.Match{match("prefix " + c.path)}, backends: to("echo-v1")}
			if onBackend {
				r.backends[0].Filters = []*api.Filter{requestHeaders(c.change)}
			} else {
				r.filters = []*api.Filter{requestHeaders(c.change)}
			}
			rules = append(rules, r)
		}
		p := port(t, rules...)
		for _, c := range cases {
			r := get(c.path, c.given...)
			d := p.Match("", r)
			d.Apply(d.Rule.Pick(0), r)
			if got := text(r.Header); got != c.want {
				t.Errorf("on the backend %v: %s: %s\nwant %s", onBackend, c.path, got, c.want)
			}
		}
	}
}

// text has each field once, in the order of names, values joined by commas.
func text(h message.Header) string {
	var lines []string
	for _, f := range h {
		v, _ := h.Lookup(f.Name)
		if line := f.Name + ": " + v; !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "|")
}

func redirect(x *api.Redirect) []*api.Filter {
	return []*api.Filter{{Kind: &api.Filter_Redirect{Redirect: x}}}
}

func full(path string) *api.PathChange {
	return &api.PathChange{Kind: &api.PathChange_Full{Full: path}}
}

func prefix(path string) *api.PathChange {
	return &api.PathChange{Kind: &api.PathChange_Prefix{Prefix: path}}
}

// TestMeshHTTPRouteRedirects holds MeshHTTPRouteRedirectHostAndStatus, 303, 307, 308,
// RedirectPath, RedirectPort and SchemeRedirect.
func TestMeshHTTPRouteRedirects(t *testing.T) {
	for _, c := range []struct {
		prefix, path string
		x            *api.Redirect
		status       int
		location     string
	}{
		{"/hostname-redirect", "/hostname-redirect", &api.Redirect{Hostname: "example.org"}, 302, "http://example.org/hostname-redirect"},
		{"/host-and-status", "/host-and-status", &api.Redirect{Hostname: "example.org", Status: 301}, 301, "http://example.org/host-and-status"},
		{"/host-and-see-other", "/host-and-see-other", &api.Redirect{Hostname: "example.org", Status: 303}, 303, "http://example.org/host-and-see-other"},
		{"/host-and-temporary", "/host-and-temporary", &api.Redirect{Hostname: "example.org", Status: 307}, 307, "http://example.org/host-and-temporary"},
		{"/host-and-permanent", "/host-and-permanent", &api.Redirect{Hostname: "example.org", Status: 308}, 308, "http://example.org/host-and-permanent"},

		{"/original-prefix", "/original-prefix/lemon", &api.Redirect{Path: prefix("/replacement-prefix")}, 302, "http://echo/replacement-prefix/lemon"},
		{"/full", "/full/path/original", &api.Redirect{Path: full("/full-path-replacement")}, 302, "http://echo/full-path-replacement"},
		{"/path-and-host", "/path-and-host", &api.Redirect{Hostname: "example.org", Path: prefix("/replacement-prefix")}, 302, "http://example.org/replacement-prefix"},
		{"/path-and-status", "/path-and-status", &api.Redirect{Path: prefix("/replacement-prefix"), Status: 301}, 301, "http://echo/replacement-prefix"},
		{"/full-path-and-host", "/full-path-and-host", &api.Redirect{Hostname: "example.org", Path: full("/replacement-full")}, 302, "http://example.org/replacement-full"},
		{"/full-path-and-status", "/full-path-and-status", &api.Redirect{Path: full("/replacement-full"), Status: 301}, 301, "http://echo/replacement-full"},

		{"/port", "/port", &api.Redirect{Port: 8083}, 302, "http://echo:8083/port"},
		{"/port-and-host", "/port-and-host", &api.Redirect{Hostname: "example.org", Port: 8083}, 302, "http://example.org:8083/port-and-host"},
		{"/port-and-status", "/port-and-status", &api.Redirect{Port: 8083, Status: 301}, 301, "http://echo:8083/port-and-status"},
		{"/port-and-host-and-status", "/port-and-host-and-status", &api.Redirect{Hostname: "example.org", Port: 8083, Status: 302}, 302, "http://example.org:8083/port-and-host-and-status"},

		{"/scheme", "/scheme", &api.Redirect{Scheme: "https"}, 302, "https://echo/scheme"},
		{"/scheme-and-host", "/scheme-and-host", &api.Redirect{Scheme: "https", Hostname: "example.org"}, 302, "https://example.org/scheme-and-host"},
		{"/scheme-and-status", "/scheme-and-status", &api.Redirect{Scheme: "https", Status: 301}, 301, "https://echo/scheme-and-status"},
		{"/scheme-and-host-and-status", "/scheme-and-host-and-status", &api.Redirect{Scheme: "https", Hostname: "example.org", Status: 302}, 302, "https://example.org/scheme-and-host-and-status"},
	} {
		p := port(t, rule{matches: []*api.Match{match("prefix " + c.prefix)}, filters: redirect(c.x)})
		r := get(c.path)
		d := p.Match("", r)
		if status, _, refused := d.Refusal(); refused {
			t.Errorf("%s: %d %s", c.path, status, d.Fault())
			continue
		}
		a := d.Rule.Filters.Redirect().Respond(d, r, p.Number)
		if a.Status != c.status || a.Header.Get("location") != c.location {
			t.Errorf("%s: %d %s, want %d %s", c.path, a.Status, a.Header.Get("location"), c.status, c.location)
		}
	}
}

// TestHTTPRouteRedirectPortAndScheme has the ports that the gateway's test has on its
// listeners.
func TestHTTPRouteRedirectPortAndScheme(t *testing.T) {
	for _, c := range []struct {
		came, scheme string
		to           string
		port         uint32
		want         string
	}{
		{"http:80", "", "", 0, "http://example.org/"},
		{"http:80", "", "", 80, "http://example.org/"},
		{"http:80", "", "", 8080, "http://example.org:8080/"},
		{"http:80", "", "https", 0, "https://example.org/"},
		{"http:80", "", "https", 443, "https://example.org/"},
		{"http:80", "", "https", 8443, "https://example.org:8443/"},
		{"http:8080", "", "", 0, "http://example.org:8080/"},
		{"http:8080", "", "", 80, "http://example.org/"},
		{"http:8080", "", "https", 0, "https://example.org/"},
		{"https:443", "", "", 0, "https://example.org/"},
		{"https:443", "", "", 443, "https://example.org/"},
		{"https:443", "", "", 8443, "https://example.org:8443/"},
		{"https:443", "", "http", 0, "http://example.org/"},
		{"https:443", "", "http", 80, "http://example.org/"},
		{"https:443", "", "http", 8080, "http://example.org:8080/"},
	} {
		p := port(t, rule{filters: redirect(&api.Redirect{Hostname: "example.org", Scheme: c.to, Port: c.port})})
		r := get("/")
		u, err := url.Parse(strings.Replace(c.came, ":", "://x:", 1))
		if err != nil {
			t.Fatal(err)
		}
		r.Scheme = u.Scheme
		number := map[string]uint16{"80": 80, "443": 443, "8080": 8080}[u.Port()]
		d := p.Match("", r)
		if got := d.Rule.Filters.Redirect().Respond(d, r, number).Header.Get("location"); got != c.want {
			t.Errorf("%s to scheme %q port %d: %s, want %s", c.came, c.to, c.port, got, c.want)
		}
	}
}

func rewrite(w *api.Rewrite) *api.Filter {
	return &api.Filter{Kind: &api.Filter_Rewrite{Rewrite: w}}
}

func TestMeshHTTPRouteRewritePath(t *testing.T) {
	change := requestHeaders(headers(
		[]string{"X-Header-Set", "set-overwrites-values"},
		[]string{"X-Header-Add", "header-val-1", "X-Header-Add-Append", "header-val-2"},
		"X-Header-Remove"))
	p := port(t,
		rule{matches: []*api.Match{match("prefix /prefix/one")}, filters: []*api.Filter{rewrite(&api.Rewrite{Path: prefix("/one")})}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("prefix /strip-prefix")}, filters: []*api.Filter{rewrite(&api.Rewrite{Path: prefix("/")})}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("prefix /full/one")}, filters: []*api.Filter{rewrite(&api.Rewrite{Path: full("/one")})}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("prefix /full/rewrite-path-and-modify-headers")}, filters: []*api.Filter{rewrite(&api.Rewrite{Path: full("/test")}), change}, backends: to("echo-v1")},
		rule{matches: []*api.Match{match("prefix /prefix/rewrite-path-and-modify-headers")}, filters: []*api.Filter{rewrite(&api.Rewrite{Path: prefix("/prefix")}), change}, backends: to("echo-v1")},
	)
	given := []string{"X-Header-Remove: remove-val", "X-Header-Add-Append: append-val-1", "X-Header-Set: set-val"}
	const changed = "x-header-add-append: append-val-1,header-val-2|x-header-add: header-val-1|x-header-set: set-overwrites-values"
	for _, c := range []struct {
		path   string
		given  []string
		want   string
		header string
	}{
		{"/prefix/one/two", nil, "/one/two", ""},
		{"/strip-prefix/three", nil, "/three", ""},
		{"/strip-prefix", nil, "/", ""},
		{"/full/one/two", nil, "/one", ""},
		{"/full/rewrite-path-and-modify-headers/test", given, "/test", changed},
		{"/prefix/rewrite-path-and-modify-headers/one", given, "/prefix/one", changed},
	} {
		r := get(c.path, c.given...)
		d := p.Match("", r)
		if f := d.Fault(); f != "" {
			t.Errorf("%s: %s", c.path, f)
			continue
		}
		d.Apply(d.Rule.Pick(0), r)
		if r.Path != c.want || text(r.Header) != c.header || r.Authority != "echo" {
			t.Errorf("%s: %s %s %s, want %s %s", c.path, r.Authority, r.Path, text(r.Header), c.want, c.header)
		}
	}
}

// TestMeshHTTPRouteWeight has the batches of the suite and many more: 70 of 100, and
// no more than 5 points beside it in any 500 (MeshGRPCRouteWeight adds a backend of
// weight 0).
func TestMeshHTTPRouteWeight(t *testing.T) {
	backends := to("echo-v1", "echo-v2", "echo-v3")
	backends[0].Weight, backends[1].Weight, backends[2].Weight = 70, 30, 0
	backends[2].Fault = "no such service"
	p := port(t, rule{backends: backends})
	d := p.Match("", get("/"))
	if f := d.Fault(); f != "" {
		t.Fatal(f)
	}
	var s route.Spread
	s.Start(12345)
	for batch := range 200 {
		seen := map[string]int{}
		for range 500 {
			seen[d.Rule.Pick(s.Next()).Service]++
		}
		if n := seen["shop/echo-v1"]; n < 345 || n > 355 {
			t.Errorf("batch %d: %v", batch, seen)
		}
		if len(seen) != 2 {
			t.Errorf("batch %d: %v", batch, seen)
		}
	}
}

func TestMeshConsumerRoute(t *testing.T) {
	set := &api.Filter{Kind: &api.Filter_ResponseHeaders{ResponseHeaders: headers([]string{"X-Header-Set", "set"}, nil)}}
	p := compile(t, service(table("consumer", rule{filters: []*api.Filter{set}, backends: to("echo-v1")}))).Port(80)
	d := p.Match("consumer", get("/"))
	answer := &message.Response{Status: 200}
	d.ApplyResponse(d.Rule.Pick(0), answer)
	if answer.Header.Get("x-header-set") != "set" {
		t.Errorf("consumer's client: %v", answer.Header)
	}
	for _, ns := range []string{"producer", ""} {
		if d := p.Match(ns, get("/")); d.Kind != route.Default {
			t.Errorf("client of %q: %v", ns, d.Kind)
		}
	}
}

// TestMeshPorts: a route on one port leaves the others alone.
func TestMeshPorts(t *testing.T) {
	s := service(table("", rule{backends: to("echo-v1")}))
	s.Ports = append(s.Ports, &api.Port{Port: 8080, Protocol: api.Protocol_HTTP1})
	c := compile(t, s)
	if d := c.Port(80).Match("", get("/")); d.Kind != route.Routed {
		t.Errorf("port 80: %v", d.Kind)
	}
	if d := c.Port(8080).Match("", get("/")); d.Kind != route.Default {
		t.Errorf("port 8080: %v", d.Kind)
	}
	if c.Port(81) != nil {
		t.Error("port 81 exists")
	}
}

// TestHTTPRouteInvalidBackends: what cannot be carried out answers 500 for its share
// (HTTPRouteInvalidCrossNamespaceBackendRef, HTTPRouteAllBackendsWeightZero and their
// like), and UNAVAILABLE for gRPC.
func TestHTTPRouteInvalidBackends(t *testing.T) {
	faulty := to("gone")
	faulty[0].Fault = "service shop/gone not found"
	zero := to("echo-v1")
	zero[0].Weight = 0
	for name, backends := range map[string][]*api.Backend{"none": nil, "weight 0": zero} {
		d := port(t, rule{backends: backends}).Match("", get("/"))
		if status, grpc, refused := d.Refusal(); status != 500 || grpc != 14 || !refused {
			t.Errorf("%s: %d %d %v", name, status, grpc, refused)
		}
	}
	d := port(t, rule{backends: append(to("echo-v1"), faulty...)}).Match("", get("/"))
	if _, _, refused := d.Refusal(); refused {
		t.Errorf("refused: %s", d.Fault())
	}
	var s route.Spread
	var refusals int
	for range 1000 {
		if status, grpc, refused := d.Rule.Pick(s.Next()).Refusal(); refused {
			refusals++
			if status != 500 || grpc != 14 {
				t.Fatal(status, grpc)
			}
		}
	}
	if refusals < 495 || refusals > 505 {
		t.Errorf("%d of 1000 refused, want half", refusals)
	}
	if status, grpc, refused := port(t, rule{matches: []*api.Match{match("exact /pkg.Svc/Do")}, backends: to("echo-v1")}).
		Match("", get("/pkg.Svc/Other")).Refusal(); status != 404 || grpc != 12 || !refused {
		t.Errorf("no match: %d %d %v", status, grpc, refused)
	}
}

// TestGRPCRouteMatching has services and methods as the control plane writes them
// (GRPCExactMethodMatching, GRPCRouteHeaderMatching).
func TestGRPCRouteMatching(t *testing.T) {
	p := port(t,
		rule{matches: []*api.Match{match("exact /grpcecho.GrpcEcho/Echo")}, backends: to("v1")},
		rule{matches: []*api.Match{match("exact /grpcecho.GrpcEcho/EchoTwo")}, backends: to("v2")},
		rule{matches: []*api.Match{match("prefix /other.Service")}, backends: to("v3")},
		rule{matches: []*api.Match{match("regex /[^/]+/Ping")}, backends: to("v4")},
		rule{matches: []*api.Match{match("header version=two")}, backends: to("v5")},
	)
	for _, c := range []struct {
		r    *message.Request
		want string
	}{
		{get("/grpcecho.GrpcEcho/Echo"), "v1"},
		{get("/grpcecho.GrpcEcho/EchoTwo"), "v2"},
		{get("/grpcecho.GrpcEcho/EchoThree"), "404"},
		{get("/other.Service/Any"), "v3"},
		{get("/other.Service2/Any"), "404"},
		{get("/a.b/Ping"), "v4"},
		{get("/a.b/Pinging"), "404"},
		{get("/a.b/c/Ping"), "404"},
		{get("/a.b/Any", "version: two"), "v5"},
	} {
		if got := backendOf(t, p, c.r); got != c.want {
			t.Errorf("%s %v: %s, want %s", c.r.Path, c.r.Header, got, c.want)
		}
	}
}
