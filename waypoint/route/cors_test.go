package route_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

func cors(t testing.TB, c *api.Cors) *route.CORS {
	t.Helper()
	p := port(t, rule{filters: []*api.Filter{{Kind: &api.Filter_Cors{Cors: c}}}, backends: to("echo-v1")})
	d := p.Match("", get("/"))
	if f := d.Fault(); f != "" {
		t.Fatal(f)
	}
	return d.Rule.Filters.CORS()
}

// The filters of gateway-api's HTTPRouteCORS.
var (
	corsLists = &api.Cors{
		AllowOrigins:     []string{"https://www.foo.com", "https://*.bar.com"},
		AllowMethods:     []string{"GET", "OPTIONS"},
		AllowHeaders:     []string{"x-header-1", "x-header-2"},
		ExposeHeaders:    []string{"x-header-3", "x-header-4"},
		AllowCredentials: true,
		MaxAge:           durationpb.New(time.Hour),
	}
	corsAnyMethod  = &api.Cors{AllowOrigins: []string{"https://www.foo.com"}, AllowMethods: []string{"*"}}
	corsAnyOrigin  = &api.Cors{AllowOrigins: []string{"*"}, AllowMethods: []string{"PUT"}}
	corsAll        = &api.Cors{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, AllowCredentials: true, ExposeHeaders: []string{"*"}}
	corsAllPlain   = &api.Cors{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, ExposeHeaders: []string{"*"}}
	corsHTTPSHosts = &api.Cors{AllowOrigins: []string{"https://*", "http://LOCALHOST:3000"}}
)

func preflight(header ...string) *message.Request {
	r := get("/cors", header...)
	r.Method = "OPTIONS"
	return r
}

func TestPreflight(t *testing.T) {
	const vary = "|vary: origin, access-control-request-method, access-control-request-headers"
	lists := func(origin string) string {
		return "access-control-allow-credentials: true|access-control-allow-headers: x-header-1, x-header-2" +
			"|access-control-allow-methods: GET, OPTIONS|access-control-allow-origin: " + origin +
			"|access-control-expose-headers: x-header-3, x-header-4|access-control-max-age: 3600" + vary
	}
	for _, c := range []struct {
		name   string
		cors   *api.Cors
		header []string
		status int
		want   string
	}{
		{"exact origin", corsLists, []string{"Origin: https://www.foo.com", "access-control-request-method: GET", "access-control-request-headers: x-header-1, x-header-2"},
			200, lists("https://www.foo.com")},
		{"wildcard", corsLists, []string{"Origin: https://www.bar.com", "access-control-request-method: GET"}, 200, lists("https://www.bar.com")},
		{"wildcard over labels", corsLists, []string{"Origin: https://xpto.www.bar.com", "access-control-request-method: GET"}, 200, lists("https://xpto.www.bar.com")},
		{"other origin", corsLists, []string{"Origin: https://foobar.com", "access-control-request-method: GET"}, 403, vary[1:]},
		{"wildcard needs something", corsLists, []string{"Origin: https://.bar.com", "access-control-request-method: GET"}, 403, vary[1:]},
		{"domain of the wildcard", corsLists, []string{"Origin: https://bar.com", "access-control-request-method: GET"}, 403, vary[1:]},
		{"other scheme", corsLists, []string{"Origin: http://www.foo.com", "access-control-request-method: GET"}, 403, vary[1:]},
		{"other port", corsLists, []string{"Origin: https://www.foo.com:8443", "access-control-request-method: GET"}, 403, vary[1:]},
		{"the scheme's port", corsLists, []string{"Origin: https://www.foo.com:443", "access-control-request-method: GET"}, 200, lists("https://www.foo.com:443")},
		{"any method", corsAnyMethod, []string{"Origin: https://www.foo.com", "access-control-request-method: POST"},
			200, "access-control-allow-methods: POST|access-control-allow-origin: https://www.foo.com|access-control-max-age: 5" + vary},
		{"any origin", corsAnyOrigin, []string{"Origin: https://foobar.com:12345", "access-control-request-method: PUT"},
			200, "access-control-allow-methods: PUT|access-control-allow-origin: https://foobar.com:12345|access-control-max-age: 5" + vary},
		{"all with credentials", corsAll, []string{"Origin: https://other.foo.com", "access-control-request-method: PUT", "access-control-request-headers: x-header-1, x-header-2"},
			200, "access-control-allow-credentials: true|access-control-allow-headers: x-header-1, x-header-2|access-control-allow-methods: PUT|access-control-allow-origin: https://other.foo.com|access-control-max-age: 5" + vary},
		{"all without credentials", corsAllPlain, []string{"Origin: https://other.foo.com", "access-control-request-method: PUT"},
			200, "access-control-allow-methods: PUT|access-control-allow-origin: https://other.foo.com|access-control-max-age: 5" + vary},
		{"all hosts", corsHTTPSHosts, []string{"Origin: https://a.b", "access-control-request-method: GET"},
			200, "access-control-allow-origin: https://a.b|access-control-max-age: 5" + vary},
		{"a port that is given", corsHTTPSHosts, []string{"Origin: http://localhost:3000", "access-control-request-method: GET"},
			200, "access-control-allow-origin: http://localhost:3000|access-control-max-age: 5" + vary},
		{"no host", corsHTTPSHosts, []string{"Origin: null", "access-control-request-method: GET"}, 403, vary[1:]},
		{"a pattern for an origin", corsLists, []string{"Origin: https://*.bar.com", "access-control-request-method: GET"}, 403, vary[1:]},
	} {
		a := cors(t, c.cors).Preflight(preflight(c.header...))
		if a == nil {
			t.Errorf("%s: no answer", c.name)
			continue
		}
		if a.Status != c.status || text(a.Header) != c.want {
			t.Errorf("%s: %d %s\nwant %d %s", c.name, a.Status, text(a.Header), c.status, c.want)
		}
	}
}

func TestOtherRequestsAreNoPreflights(t *testing.T) {
	c := cors(t, corsLists)
	for _, r := range []*message.Request{
		get("/", "origin: https://www.foo.com", "access-control-request-method: GET"),
		preflight("origin: https://www.foo.com"),
		preflight("access-control-request-method: GET"),
	} {
		if a := c.Preflight(r); a != nil {
			t.Errorf("%s %v: %d", r.Method, r.Header, a.Status)
		}
	}
}

func TestCORSOfResponses(t *testing.T) {
	for _, c := range []struct {
		name   string
		cors   *api.Cors
		origin string
		given  message.Header
		want   string
	}{
		{"allowed", corsLists, "https://www.foo.com", nil,
			"access-control-allow-credentials: true|access-control-allow-origin: https://www.foo.com|access-control-expose-headers: x-header-3, x-header-4|vary: origin"},
		{"other origin", corsLists, "https://foobar.com", nil, "vary: origin"},
		{"no origin", corsLists, "", nil, "vary: origin"},
		{"the application's opinion", corsLists, "https://foobar.com",
			message.Header{{Name: "access-control-allow-origin", Value: "*"}, {Name: "access-control-allow-credentials", Value: "true"}, {Name: "x-a", Value: "1"}}, "vary: origin|x-a: 1"},
		{"the application's vary", corsLists, "", message.Header{{Name: "vary", Value: "Accept, Origin"}}, "vary: Accept, Origin"},
		{"another vary", corsLists, "", message.Header{{Name: "vary", Value: "accept"}}, "vary: accept,origin"},
		{"all exposed with credentials", corsAll, "https://a.b", message.Header{{Name: "x-a", Value: "1"}, {Name: "set-cookie", Value: "s"}, {Name: "x-a", Value: "2"}},
			"access-control-allow-credentials: true|access-control-allow-origin: https://a.b|access-control-expose-headers: x-a, vary|set-cookie: s|vary: origin|x-a: 1,2"},
		{"all exposed", corsAllPlain, "https://a.b", nil, "access-control-allow-origin: https://a.b|access-control-expose-headers: *|vary: origin"},
	} {
		r := &message.Response{Status: 200, Header: c.given}
		cors(t, c.cors).Apply(c.origin, r)
		if got := text(r.Header); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestCORSThatCannotBeCarriedOut(t *testing.T) {
	for _, c := range []*api.Cors{
		{AllowOrigins: []string{"foo.com"}},
		{AllowOrigins: []string{"ftp://foo.com"}},
		{AllowOrigins: []string{"https://"}},
		{AllowOrigins: []string{"https://foo.com:0"}},
		{AllowOrigins: []string{"https://foo.com:65536"}},
		{AllowOrigins: []string{"https://a*b.com"}},
		{AllowOrigins: []string{"https://foo.com/path"}},
		{AllowMethods: []string{"GET\r\nx: y"}},
		{AllowHeaders: []string{"a b"}},
		{MaxAge: &durationpb.Duration{Seconds: -1}},
	} {
		p := port(t, rule{filters: []*api.Filter{{Kind: &api.Filter_Cors{Cors: c}}}, backends: to("echo-v1")})
		if d := p.Match("", get("/")); d.Fault() == "" {
			t.Errorf("%v: no fault", c)
		}
	}
}

func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"https://www.foo.com", "https://[::1]:80", "null", "http://a:b:c", "https://*", "://", "https://.bar.com:443"} {
		f.Add(s)
	}
	c := cors(f, corsLists)
	f.Fuzz(func(t *testing.T, s string) {
		if c.Allows(s) && s[:len("https://")] != "https://" {
			t.Errorf("%q is allowed", s)
		}
	})
}
