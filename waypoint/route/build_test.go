package route_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// Builders of routes as their authors write them.

type rule struct {
	matches  []*api.Match
	filters  []*api.Filter
	backends []*api.Backend
}

// match makes a match of "exact /a", "prefix /a", "regex /a.*", "method GET",
// "header name=value", "header name~regex", "query name=value", "query name~regex",
// "server name".
func match(conditions ...string) *api.Match {
	m := &api.Match{}
	for _, c := range conditions {
		kind, arg, _ := strings.Cut(c, " ")
		switch kind {
		case "exact":
			m.Path = &api.PathMatch{Kind: &api.PathMatch_Exact{Exact: arg}}
		case "prefix":
			m.Path = &api.PathMatch{Kind: &api.PathMatch_Prefix{Prefix: arg}}
		case "regex":
			m.Path = &api.PathMatch{Kind: &api.PathMatch_Regex{Regex: arg}}
		case "method":
			m.Method = arg
		case "header":
			m.Headers = append(m.Headers, field(arg))
		case "query":
			m.Query = append(m.Query, field(arg))
		case "server":
			m.ServerNames = append(m.ServerNames, arg)
		default:
			panic(c)
		}
	}
	return m
}

func field(s string) *api.FieldMatch {
	at := strings.IndexAny(s, "=~")
	if s[at] == '~' {
		return &api.FieldMatch{Name: s[:at], Kind: &api.FieldMatch_Regex{Regex: s[at+1:]}}
	}
	return &api.FieldMatch{Name: s[:at], Kind: &api.FieldMatch_Exact{Exact: s[at+1:]}}
}

func to(names ...string) []*api.Backend {
	var out []*api.Backend
	for _, n := range names {
		out = append(out, &api.Backend{Service: "shop/" + n, Port: 8080, Weight: 1})
	}
	return out
}

// table orders the matches of one route as the Gateway API says.
func table(clients string, rules ...rule) *api.RouteTable {
	t := &api.RouteTable{ClientNamespace: clients}
	for i, r := range rules {
		name := "r" + string(rune('0'+i/10)) + string(rune('0'+i%10))
		t.Rules = append(t.Rules, &api.Rule{
			Ref:      &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "test", Rule: name},
			Filters:  r.filters,
			Backends: r.backends,
		})
		matches := r.matches
		if len(matches) == 0 {
			matches = []*api.Match{{}}
		}
		for _, m := range matches {
			m.Rule = uint32(i)
			t.Matches = append(t.Matches, m)
		}
	}
	rank := func(m *api.Match) []int {
		exact := 0
		if _, ok := m.GetPath().GetKind().(*api.PathMatch_Exact); ok {
			exact = 1
		}
		// Without a path, that is "/".
		return []int{exact, max(1, len(m.GetPath().GetPrefix())), min(1, len(m.GetMethod())), len(m.GetHeaders()), len(m.GetQuery())}
	}
	slices.SortStableFunc(t.Matches, func(a, b *api.Match) int {
		for i, n := range rank(b) {
			if c := cmp.Compare(n, rank(a)[i]); c != 0 {
				return c
			}
		}
		return 0
	})
	return t
}

func service(tables ...*api.RouteTable) *api.Service {
	return &api.Service{
		Namespace: "shop",
		Hostname:  "echo.shop.svc.cluster.local",
		Name:      "echo",
		Ports:     []*api.Port{{Port: 80, Protocol: api.Protocol_HTTP1, Routes: tables}},
	}
}

func compile(t testing.TB, s *api.Service) *route.Service {
	t.Helper()
	compiled, err := route.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// port compiles port 80 with these rules.
func port(t testing.TB, rules ...rule) *route.Port {
	t.Helper()
	return compile(t, service(table("", rules...))).Port(80)
}

// get makes a request to host echo; target may have a query.
func get(target string, header ...string) *message.Request {
	path, query, has := strings.Cut(target, "?")
	r := &message.Request{
		Method: "GET", Scheme: "http", Authority: "echo", Path: path, Query: query, HasQuery: has,
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(strings.ToLower(name), value)
	}
	return r
}

// backendOf decides and returns the name of the only backend, or the status.
func backendOf(t testing.TB, p *route.Port, r *message.Request) string {
	t.Helper()
	d := p.Match("", r)
	if status, _, refused := d.Refusal(); refused {
		return map[int]string{404: "404", 500: "500"}[status]
	}
	if d.Kind == route.Default {
		return "default"
	}
	b := d.Rule.Pick(0)
	if status, _, refused := b.Refusal(); refused {
		return map[int]string{500: "500"}[status]
	}
	return strings.TrimPrefix(b.Service, "shop/")
}
