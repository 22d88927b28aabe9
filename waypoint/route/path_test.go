package route_test

import (
	"net/url"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// prefixChanges are the rows of the Gateway API's table of ReplacePrefixMatch, and
// below the line what follows from it.
var prefixChanges = []struct{ path, match, replace, want string }{
	{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
	{"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
	{"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
	{"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
	{"/foo", "/foo", "/xyz", "/xyz"},
	{"/foo/", "/foo", "/xyz", "/xyz/"},
	{"/foo/bar", "/foo", "", "/bar"},
	{"/foo/", "/foo", "", "/"},
	{"/foo", "/foo", "", "/"},
	{"/foo/", "/foo", "/", "/"},
	{"/foo", "/foo", "/", "/"},

	{"/foo", "/foo/", "/xyz", "/xyz"},
	{"/foo", "/foo", "/xyz/", "/xyz"},
	{"/bar", "/", "/xyz", "/xyz/bar"},
	{"/", "/", "/xyz", "/xyz/"},
	{"/bar", "", "/xyz", "/xyz/bar"},
	{"/bar", "/", "/", "/bar"},
	{"/foo//bar", "/foo", "/xyz", "/xyz//bar"},
	{"/foo/bar", "/foo", "xyz", "/xyz/bar"},
	{"/foo/a%2Fb", "/foo", "/x%2fy", "/x%2Fy/a%2Fb"},
	{"/foo/foo/bar", "/foo", "/foo/foo", "/foo/foo/foo/bar"},
}

func TestReplacePrefixMatch(t *testing.T) {
	for _, c := range prefixChanges {
		m := match("prefix " + c.match)
		filter := rewrite(&api.Rewrite{Path: prefix(c.replace)})
		onBackend := to("echo-v1")
		onBackend[0].Filters = []*api.Filter{filter}
		for where, r := range map[string]rule{
			"rule":    {matches: []*api.Match{m}, filters: []*api.Filter{filter}, backends: to("echo-v1")},
			"backend": {matches: []*api.Match{m}, backends: onBackend},
		} {
			p := port(t, r)
			req := get(c.path + "?q")
			d := p.Match("", req)
			if d.Fault() != "" || d.Kind != route.Routed {
				t.Errorf("%+v: %v %s", c, d.Kind, d.Fault())
				continue
			}
			d.Apply(d.Rule.Pick(0), req)
			if req.Path != c.want || req.Query != "q" {
				t.Errorf("%s, %+v: %s", where, c, req.Target())
			}
			if normal, err := message.NormalizePath(req.Path); err != nil || normal != req.Path {
				t.Errorf("%+v: %s is not normal: %v", c, req.Path, err)
			}
		}
		p := port(t, rule{matches: []*api.Match{m}, filters: redirect(&api.Redirect{Path: prefix(c.replace)})})
		req := get(c.path + "?q")
		d := p.Match("", req)
		if got := d.Rule.Filters.Redirect().Respond(d, req, 80).Header.Get("location"); got != "http://echo"+c.want+"?q" {
			t.Errorf("redirect, %+v: %s", c, got)
		}
	}
}

func TestRewriteOfTheHostLeavesThePath(t *testing.T) {
	p := port(t, rule{filters: []*api.Filter{rewrite(&api.Rewrite{Hostname: "Other.Example"})}, backends: to("echo-v1")})
	r := get("/a/b")
	d := p.Match("", r)
	d.Apply(d.Rule.Pick(0), r)
	if r.Authority != "other.example" || r.Path != "/a/b" {
		t.Errorf("%s %s", r.Authority, r.Path)
	}
}

func TestRewriteLeavesWhatIsNoPath(t *testing.T) {
	p := port(t, rule{filters: []*api.Filter{rewrite(&api.Rewrite{Path: full("/x")})}, backends: to("echo-v1")})
	for _, path := range []string{"*", ""} {
		r := get(path)
		d := p.Match("", r)
		d.Apply(d.Rule.Pick(0), r)
		if r.Path != path {
			t.Errorf("%q became %q", path, r.Path)
		}
	}
}

// TestTheSecondRewriteOfAPrefix: the backend's filter finds the path that the rule's
// has made, and replaces the prefix only where it still is.
func TestTheSecondRewriteOfAPrefix(t *testing.T) {
	b := to("echo-v1")
	b[0].Filters = []*api.Filter{rewrite(&api.Rewrite{Path: prefix("/new")})}
	p := port(t, rule{
		matches:  []*api.Match{match("prefix /old")},
		filters:  []*api.Filter{rewrite(&api.Rewrite{Path: prefix("/mid")})},
		backends: b,
	})
	r := get("/old/x")
	d := p.Match("", r)
	d.Apply(d.Rule.Pick(0), r)
	if r.Path != "/mid/x" {
		t.Errorf("%s", r.Path)
	}
}

func TestReplacingAPrefixNeedsOne(t *testing.T) {
	change := rewrite(&api.Rewrite{Path: prefix("/new")})
	p := port(t, rule{
		matches:  []*api.Match{match("regex /a.*"), match("exact /b"), match("prefix /c")},
		filters:  []*api.Filter{change},
		backends: to("echo-v1"),
	})
	for path, want := range map[string]string{"/abc": "500", "/b": "echo-v1", "/c/d": "echo-v1"} {
		if got := backendOf(t, p, get(path)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	r := get("/b")
	d := p.Match("", r)
	if d.Apply(nil, r); r.Path != "/new" {
		t.Errorf("exact path became %s", r.Path)
	}
}

func TestLocationOfOtherAuthorities(t *testing.T) {
	for _, c := range []struct {
		authority, path string
		x               *api.Redirect
		port            uint16
		want            string
	}{
		{"echo:8080", "/a", &api.Redirect{}, 8080, "http://echo:8080/a"},
		{"echo:8080", "/a", &api.Redirect{Port: 80}, 8080, "http://echo/a"},
		{"[2001:db8::1]:8080", "/a", &api.Redirect{Scheme: "https"}, 8080, "https://[2001:db8::1]/a"},
		{"[2001:db8::1]", "/a", &api.Redirect{Port: 81}, 80, "http://[2001:db8::1]:81/a"},
		{"10.0.0.1:80", "/", &api.Redirect{Hostname: "[::1]"}, 80, "http://[::1]/"},
		{"", "/a", &api.Redirect{}, 80, "/a"},
		{"", "//evil.example/a", &api.Redirect{}, 80, "/.//evil.example/a"},
		{"echo", "//evil.example/a", &api.Redirect{}, 80, "http://echo//evil.example/a"},
		{"echo", "*", &api.Redirect{}, 80, "http://echo/"},
	} {
		r := get(c.path)
		r.Authority = c.authority
		p := port(t, rule{filters: redirect(c.x)})
		d := p.Match("", r)
		if d.Fault() != "" {
			t.Errorf("%+v: %s", c, d.Fault())
			continue
		}
		got := d.Rule.Filters.Redirect().Respond(d, r, c.port).Header.Get("location")
		if got != c.want {
			t.Errorf("%s%s: %s, want %s", c.authority, c.path, got, c.want)
		}
	}
}

func TestChangesThatCannotBeCarriedOut(t *testing.T) {
	for name, f := range map[string]*api.Filter{
		"scheme":       redirect(&api.Redirect{Scheme: "ftp"})[0],
		"status":       redirect(&api.Redirect{Status: 200})[0],
		"port":         redirect(&api.Redirect{Port: 65536})[0],
		"hostname":     redirect(&api.Redirect{Hostname: "a/b"})[0],
		"line end":     redirect(&api.Redirect{Hostname: "a\r\nset-cookie: x"})[0],
		"host's port":  redirect(&api.Redirect{Hostname: "a:80"})[0],
		"path":         redirect(&api.Redirect{Path: full("/a b")})[0],
		"query":        redirect(&api.Redirect{Path: full("/a?b")})[0],
		"fragment":     rewrite(&api.Rewrite{Path: full("/a#b")}),
		"no change":    rewrite(&api.Rewrite{Path: &api.PathChange{}}),
		"host":         rewrite(&api.Rewrite{Hostname: "a b"}),
		"field host":   requestHeaders(headers([]string{"Host", "x"}, nil)),
		"framing":      requestHeaders(headers(nil, []string{"Transfer-Encoding", "chunked"})),
		"pseudo":       requestHeaders(headers([]string{":path", "/"}, nil)),
		"te":           requestHeaders(headers(nil, nil, "te")),
		"no name":      requestHeaders(headers([]string{"", "x"}, nil)),
		"value":        requestHeaders(headers([]string{"a", "x\r\nb: c"}, nil)),
		"white space":  requestHeaders(headers([]string{"a", " x"}, nil)),
		"unknown kind": {},
		"mirror":       {Kind: &api.Filter_Mirror{Mirror: &api.Mirror{Backend: to("m")[0], Numerator: 3, Denominator: 2}}},
		"auth's path":  {Kind: &api.Filter_ExternalAuth{ExternalAuth: &api.ExternalAuth{Backend: to("a")[0], PathPrefix: "/a b"}}},
		"auth's field": {Kind: &api.Filter_ExternalAuth{ExternalAuth: &api.ExternalAuth{Backend: to("a")[0], AllowedHeaders: []string{"A"}}}},
	} {
		if d := port(t, rule{filters: []*api.Filter{f}, backends: to("echo-v1")}).Match("", get("/")); d.Fault() == "" {
			t.Errorf("%s: no fault", name)
		}
		b := to("echo-v1", "echo-v2")
		b[0].Filters = []*api.Filter{f}
		d := port(t, rule{backends: b}).Match("", get("/"))
		if d.Fault() != "" || d.Rule.Backends[0].Fault == "" || d.Rule.Backends[1].Fault != "" {
			t.Errorf("%s on a backend: %q, %q, %q", name, d.Fault(), d.Rule.Backends[0].Fault, d.Rule.Backends[1].Fault)
		}
	}
}

// FuzzLocation: whatever a request says, the Location leads to its host, or that of
// the filter, and nothing breaks out of the field.
func FuzzLocation(f *testing.F) {
	for _, s := range []string{"/", "/foo/bar?x=y", "//evil.example", "/foo", "/foo/..%2f?", "/foo/%0d%0aset-cookie:x"} {
		f.Add(s, "echo:8080", uint16(80))
		f.Add(s, "", uint16(8080))
	}
	p := port(f,
		rule{matches: []*api.Match{match("prefix /foo")}, filters: redirect(&api.Redirect{Path: prefix("/")})},
		rule{filters: redirect(&api.Redirect{Scheme: "https"})})
	f.Fuzz(func(t *testing.T, target, authority string, number uint16) {
		path, query, has, err := message.ParseTarget(target)
		if err != nil || number == 0 {
			return
		}
		if authority != "" {
			if authority, err = message.NormalizeAuthority(authority); err != nil {
				return
			}
		}
		r := &message.Request{Method: "GET", Scheme: "http", Authority: authority, Path: path, Query: query, HasQuery: has}
		d := p.Match("", r)
		location := d.Rule.Filters.Redirect().Respond(d, r, number).Header.Get("location")
		if !message.ValidValue(location) {
			t.Fatalf("%q", location)
		}
		u, err := url.Parse(location)
		if err != nil {
			t.Fatalf("%q: %v", location, err)
		}
		if host, _, _ := strings.Cut(authority, ":"); !strings.HasPrefix(authority, "[") && u.Hostname() != host {
			t.Errorf("%q leads to %q, want %q", location, u.Hostname(), host)
		}
	})
}
