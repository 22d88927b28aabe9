package route_test

import (
	"math"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

func TestPickSharesByWeight(t *testing.T) {
	b := to("a", "b", "c", "d")
	b[0].Weight, b[1].Weight, b[2].Weight, b[3].Weight = 0, 1, 3, 0
	d := port(t, rule{backends: b}).Match("", get("/"))
	// A quarter of all numbers is b's.
	for u, want := range map[uint64]string{0: "shop/b", 1<<62 - 1: "shop/b", 1 << 62: "shop/c", math.MaxUint64: "shop/c"} {
		if got := d.Rule.Pick(u).Service; got != want {
			t.Errorf("%x: %s, want %s", u, got, want)
		}
	}
}

func TestPickOfTheHeaviestWeights(t *testing.T) {
	b := to("a", "b")
	b[0].Weight, b[1].Weight = math.MaxUint32, math.MaxUint32
	d := port(t, rule{backends: b}).Match("", get("/"))
	if a, z := d.Rule.Pick(0).Service, d.Rule.Pick(math.MaxUint64).Service; a != "shop/a" || z != "shop/b" {
		t.Error(a, z)
	}
}

// TestSpreadIsEven also where only each k-th number is looked at, as happens when
// requests alternate.
func TestSpreadIsEven(t *testing.T) {
	for _, weights := range [][2]uint32{{70, 30}, {1, 99}, {50, 50}, {999, 1}} {
		for k := 1; k <= 8; k++ {
			b := to("a", "b")
			b[0].Weight, b[1].Weight = weights[0], weights[1]
			d := port(t, rule{backends: b}).Match("", get("/"))
			var s route.Spread
			const n = 10_000
			got := 0
			for i := range n * k {
				if u := s.Next(); i%k == 0 && d.Rule.Pick(u).Service == "shop/a" {
					got++
				}
			}
			want := n * float64(weights[0]) / float64(weights[0]+weights[1])
			if math.Abs(float64(got)-want) > 20 {
				t.Errorf("weights %v, each %d-th: %d of %d, want %v", weights, k, got, n, want)
			}
		}
	}
}

func TestMirrorPicksItsShare(t *testing.T) {
	for _, c := range []struct {
		numerator, denominator uint32
		want                   int
	}{{0, 0, 1000}, {0, 100, 0}, {1, 1000, 1}, {25, 100, 250}, {100, 100, 1000}, {1, 3, 333}} {
		p := port(t, rule{backends: to("a"), filters: []*api.Filter{{Kind: &api.Filter_Mirror{Mirror: &api.Mirror{
			Backend: to("copy")[0], Numerator: c.numerator, Denominator: c.denominator,
		}}}}})
		m := p.Match("", get("/")).Rule.Filters[0].Mirror
		var s route.Spread
		got := 0
		for range 1000 {
			if m.Picks(s.Next()) {
				got++
			}
		}
		if got < c.want-2 || got > c.want+2 {
			t.Errorf("%d of %d: %d of 1000 copied, want %d", c.numerator, c.denominator, got, c.want)
		}
	}
	faulty := to("gone")[0]
	faulty.Fault = "no such service"
	d := port(t, rule{backends: to("a"), filters: []*api.Filter{{Kind: &api.Filter_Mirror{Mirror: &api.Mirror{Backend: faulty}}}}}).Match("", get("/"))
	if d.Fault() != "" || d.Rule.Filters[0].Mirror.Picks(0) {
		t.Errorf("a mirror that cannot be reached: %q", d.Fault())
	}
}

// TestCopiesAreOfAllBackends although one number decides on both.
func TestCopiesAreOfAllBackends(t *testing.T) {
	p := port(t, rule{backends: to("a", "b"), filters: []*api.Filter{{Kind: &api.Filter_Mirror{Mirror: &api.Mirror{
		Backend: to("copy")[0], Numerator: 10, Denominator: 100,
	}}}}})
	r := p.Match("", get("/")).Rule
	var s route.Spread
	copies := map[string]int{}
	for range 10_000 {
		if u := s.Next(); r.Filters[0].Mirror.Picks(u) {
			copies[r.Pick(u).Service]++
		}
	}
	if copies["shop/a"] < 475 || copies["shop/a"] > 525 || copies["shop/b"] < 475 || copies["shop/b"] > 525 {
		t.Error(copies)
	}
}
