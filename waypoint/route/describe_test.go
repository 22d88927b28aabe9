package route_test

import (
	"slices"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

func TestRoutesAreDescribed(t *testing.T) {
	s, err := route.Compile(&api.Service{Namespace: "shop", Hostname: "api.shop.svc.cluster.local", Name: "api", Ports: []*api.Port{
		{Port: 90, Protocol: api.Protocol_TCP},
		{Port: 80, Protocol: api.Protocol_HTTP1, Routes: []*api.RouteTable{{
			Rules: []*api.Rule{{
				Ref:      &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "items", Rule: "0"},
				Backends: []*api.Backend{{Service: "shop/a", Port: 80, Weight: 1}, {Service: "shop/b", Port: 80, Weight: 3}},
				Filters:  []*api.Filter{{Kind: &api.Filter_Redirect{Redirect: &api.Redirect{Scheme: "https"}}}},
			}},
			Matches: []*api.Match{{Rule: 0, Path: &api.PathMatch{Kind: &api.PathMatch_Prefix{Prefix: "/items"}}, Method: "GET"}, {Rule: 0}},
		}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	d := s.Describe()
	if len(d) != 2 || d[0].Port != 80 || d[1].Protocol != "TCP" || len(d[1].Tables) != 0 {
		t.Fatalf("%+v", d)
	}
	r := d[0].Tables[0].Rules[0]
	if r.Rule != "HTTPRoute/shop/items/0" || len(r.Matches) != 2 || !slices.Contains(r.Matches, "everything") || !strings.Contains(strings.Join(r.Matches, ";"), "/items") ||
		!slices.Equal(r.Backends, []string{"shop/a:80 (weight 1)", "shop/b:80 (weight 3)"}) || !slices.Equal(r.Filters, []string{"redirect"}) {
		t.Errorf("%+v", r)
	}
}
