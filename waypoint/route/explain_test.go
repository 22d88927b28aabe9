package route_test

import (
	"reflect"
	"slices"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

func TestExplain(t *testing.T) {
	p := port(t,
		rule{matches: []*api.Match{match("exact /cart", "method POST")}, backends: to("a")},
		rule{matches: []*api.Match{match("prefix /api")}, backends: to("a")},
		rule{matches: []*api.Match{match("regex /[0-9]+", "header x-version~v[0-9]")}, backends: to("a")},
		rule{matches: []*api.Match{match("query q=a b", "header x=y")}, backends: to("a")},
		rule{matches: []*api.Match{match("query q=a b")}, backends: to("a")},
		rule{matches: []*api.Match{match("query q=z")}, backends: to("a")},
	)
	e := p.Explain("", get("/cart?q=a+b", "x: z"))
	want := route.Explanation{
		Decision: "routed", Rule: "HTTPRoute/shop/test/r04", Rest: 1,
		Considered: []route.Considered{
			{Rule: "HTTPRoute/shop/test/r00", Conditions: []string{"path = /cart", "method = POST"}, Failed: "method = POST", Got: "GET"},
			{Rule: "HTTPRoute/shop/test/r01", Conditions: []string{"path under /api"}, Failed: "path under /api", Got: "/cart"},
			{Rule: "HTTPRoute/shop/test/r03", Conditions: []string{"header x = y", "query q = a b"}, Failed: "header x = y", Got: "z"},
			{Rule: "HTTPRoute/shop/test/r04", Conditions: []string{"query q = a b"}},
		},
	}
	// A path that only a regular expression asks for counts like none: fields decide.
	want.Considered = slices.Insert(want.Considered, 3, route.Considered{
		Rule: "HTTPRoute/shop/test/r02", Conditions: []string{"path ~ /[0-9]+", "header x-version ~ v[0-9]"}, Failed: "path ~ /[0-9]+", Got: "/cart",
	})
	if !reflect.DeepEqual(e, want) {
		t.Errorf("%+v\nwant %+v", e, want)
	}
	if e := p.Explain("", get("/12", "x-version: 1")); e.Decision != "not found" || !slices.ContainsFunc(e.Considered, func(c route.Considered) bool {
		return c.Failed == "header x-version ~ v[0-9]" && c.Got == "1"
	}) {
		t.Errorf("%+v", e)
	}
	c := port(t, rule{matches: []*api.Match{match("server *.a.example")}, backends: to("a")}, rule{matches: []*api.Match{match("method GET")}, backends: to("a")})
	if e := c.ExplainConnect("", "b.example"); e.Decision != "not found" || len(e.Considered) != 2 {
		t.Errorf("%+v", e)
	}
	if e := c.ExplainConnect("", "X.A.example"); e.Decision != "routed" {
		t.Errorf("%+v", e)
	}
	if e := c.Explain("", get("/")); e.Decision != "routed" || e.Rest+len(e.Considered) != 2 {
		t.Errorf("%+v", e)
	}
	if e := compile(t, service()).Port(80).Explain("", get("/")); e.Decision != "default" || len(e.Considered) != 0 {
		t.Errorf("%+v", e)
	}
}
