package route_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// sizes of tables whose cost must be the same.
var sizes = []int{1, 10, 100, 1000, 5000}

// shapes make the i-th of n rules and a request that it decides.
var shapes = []struct {
	name    string
	match   func(i int) *api.Match
	request func(i int) *message.Request
}{
	{"prefix",
		func(i int) *api.Match { return match(fmt.Sprintf("prefix /api/v1/service-%04d", i)) },
		func(i int) *message.Request { return get(fmt.Sprintf("/api/v1/service-%04d/items/42", i)) }},
	{"exact",
		func(i int) *api.Match { return match(fmt.Sprintf("exact /api/v1/service-%04d/items/42", i)) },
		func(i int) *message.Request { return get(fmt.Sprintf("/api/v1/service-%04d/items/42", i)) }},
	{"header",
		func(i int) *api.Match { return match("prefix /api", fmt.Sprintf("header x-tenant=tenant-%04d", i)) },
		func(i int) *message.Request {
			return get("/api/v1/items/42", "accept: */*", "user-agent: curl/8", fmt.Sprintf("x-tenant: tenant-%04d", i))
		}},
	{"query",
		func(i int) *api.Match { return match("prefix /api", fmt.Sprintf("query tenant=tenant-%04d", i)) },
		func(i int) *message.Request {
			return get(fmt.Sprintf("/api/v1/items/42?page=2&tenant=tenant-%04d", i))
		}},
	{"method+header+prefix",
		func(i int) *api.Match {
			return match(fmt.Sprintf("prefix /api/v1/service-%04d", i), "method GET", "header x-version=two")
		},
		func(i int) *message.Request {
			return get(fmt.Sprintf("/api/v1/service-%04d/items/42", i), "accept: */*", "user-agent: curl/8", "x-version: two")
		}},
}

func portOf(t testing.TB, rules int, makeMatch func(i int) *api.Match) *route.Port {
	r := make([]rule, rules)
	for i := range r {
		r[i] = rule{matches: []*api.Match{makeMatch(i)}, backends: to("echo-v1")}
	}
	return port(t, r...)
}

// BenchmarkMatch asks for the same rule again and again.
func BenchmarkMatch(b *testing.B) {
	for _, s := range shapes {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) {
				p := portOf(b, n, s.match)
				r := s.request(n / 2)
				if p.Match("", r).Kind != route.Routed {
					b.Fatal("no match")
				}
				b.ReportAllocs()
				for b.Loop() {
					p.Match("", r)
				}
			})
		}
	}
}

// BenchmarkFlat compares 1 rule with 5,000, in turn, so that what else the machine does
// befalls both. hot asks for one rule again and again; cold for all in random order, so
// that the processor's caches hold little of what one request needs. It reports the
// quickest of many runs of each, and how many times the one of the other it is.
func BenchmarkFlat(b *testing.B) {
	const few, many, run = 1, 5000, 256
	for _, s := range shapes {
		for _, cold := range []bool{false, true} {
			name := s.name + "/hot"
			if cold {
				name = s.name + "/cold"
			}
			b.Run(name, func(b *testing.B) {
				type side struct {
					port     *route.Port
					requests []*message.Request
					best     time.Duration
				}
				var sides [2]side
				for i, n := range []int{few, many} {
					sides[i] = side{port: portOf(b, n, s.match), best: time.Hour}
					// As many requests for few rules as for many: they take memory, too.
					for range 8192 {
						at := n / 2
						if cold {
							at = rand.IntN(n)
						}
						sides[i].requests = append(sides[i].requests, s.request(at))
						if !cold {
							break
						}
					}
				}
				b.ReportAllocs()
				at := 0
				for b.Loop() {
					for i := range sides {
						side := &sides[i]
						start := time.Now()
						for k := range run {
							side.port.Match("", side.requests[(at+k)%len(side.requests)])
						}
						side.best = min(side.best, time.Since(start))
					}
					at += run
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(sides[0].best)/run, "ns/1-rule")
				b.ReportMetric(float64(sides[1].best)/run, "ns/5000-rules")
				b.ReportMetric(float64(sides[1].best)/float64(sides[0].best), "ratio")
			})
		}
	}
}

func BenchmarkNotFound(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := portOf(b, n, shapes[0].match)
			r := get("/api/v1/other/items/42")
			b.ReportAllocs()
			for b.Loop() {
				p.Match("", r)
			}
		})
	}
}

func BenchmarkPick(b *testing.B) {
	p := port(b, rule{backends: to("a", "b", "c", "d")})
	d := p.Match("", get("/"))
	var s route.Spread
	b.ReportAllocs()
	for b.Loop() {
		d.Rule.Pick(s.Next())
	}
}

func BenchmarkRedirect(b *testing.B) {
	p := port(b, rule{matches: []*api.Match{match("prefix /old")}, filters: redirect(&api.Redirect{Path: prefix("/new"), Port: 8080})})
	r := get("/old/items/42?page=2")
	d := p.Match("", r)
	x := d.Rule.Filters.Redirect()
	b.ReportAllocs()
	for b.Loop() {
		x.Respond(d, r, 80)
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{100, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := make([]rule, n)
			for i := range r {
				r[i] = rule{matches: []*api.Match{shapes[0].match(i)}, backends: to("echo-v1")}
			}
			s := service(table("", r...))
			b.ReportAllocs()
			for b.Loop() {
				compile(b, s)
			}
		})
	}
}

func TestDecidingAllocatesNothing(t *testing.T) {
	for _, s := range shapes {
		for _, n := range []int{1, 100} {
			p := portOf(t, n, s.match)
			r := s.request(n / 2)
			if got := testing.AllocsPerRun(100, func() { p.Match("client", r) }); got != 0 {
				t.Errorf("%s, %d rules: %v allocations", s.name, n, got)
			}
		}
	}
	p := portOf(t, 100, func(i int) *api.Match { return match("header h=v"+string(rune('A'+i%26))+",w", "query q=a b") })
	r := get("/?q=a%20b", "h: vC", "h: w")
	if p.Match("", r).Kind != route.Routed {
		t.Fatal("repeated fields and escapes do not fit")
	}
	if got := testing.AllocsPerRun(100, func() { p.Match("", r) }); got != 0 {
		t.Errorf("repeated fields and escapes: %v allocations", got)
	}
	p = port(t, rule{matches: []*api.Match{match("regex /a/[0-9]+", "header h~v.*")}, backends: to("a")})
	r = get("/a/17", "h: vC")
	if p.Match("", r).Kind != route.Routed {
		t.Fatal("regular expressions do not fit")
	}
	if got := testing.AllocsPerRun(100, func() { p.Match("", r) }); got != 0 {
		t.Errorf("regular expressions: %v allocations", got)
	}
}
