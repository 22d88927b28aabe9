package upstream_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

var balancers = []upstream.Balancer{
	upstream.LeastRequest, upstream.RoundRobin, upstream.Random, upstream.PeakEWMA, upstream.RingHash, upstream.Maglev,
}

// Without load every balancer gives each target its weight's part.
func TestSharesFollowWeights(t *testing.T) {
	const n = 60_000
	for _, balancer := range balancers {
		for _, weights := range [][]uint32{{1, 1, 1, 1}, {1, 2, 3}, {5, 1, 1, 1, 1}, {1000, 1}, {7}} {
			if balancer == upstream.LeastRequest || balancer == upstream.PeakEWMA {
				// The less busy of two: the weights count twice, for who is drawn and for who is less
				// busy, so without load only the first share is exact.
				if !slices.Equal(weights, []uint32{1, 1, 1, 1}) && len(weights) > 1 {
					continue
				}
			}
			t.Run(fmt.Sprintf("%s/%v", balancer, weights), func(t *testing.T) {
				e := endpoints(len(weights))
				var sum uint32
				for i, w := range weights {
					e[i].Weight = w
					sum += w
				}
				b := newBackend(t, upstream.Config{Balancer: balancer}, nil, e)
				got := counts(t, b, n)
				for i, w := range weights {
					want := float64(w) / float64(sum)
					have := float64(got[e[i].Addr]) / n
					tolerance := 0.01
					if balancer == upstream.RingHash {
						tolerance = 0.08 // points on the ring are random
					}
					if math.Abs(have-want) > tolerance {
						t.Errorf("endpoint %d of weight %d has %.4f of the requests, want %.4f", i, w, have, want)
					}
				}
			})
		}
	}
}

// Under load, least request keeps calls under way in proportion to weights.
func TestLeastRequestBalancesLoad(t *testing.T) {
	e := endpoints(4)
	e[0].Weight, e[1].Weight, e[2].Weight, e[3].Weight = 1, 2, 3, 4
	b := newBackend(t, upstream.Config{}, nil, e)
	var calls []upstream.Call
	active := map[netip.AddrPort]int{}
	for range 1000 {
		target := pick(t, b, upstream.Options{})
		calls = append(calls, target.Begin())
		active[target.Endpoint().Addr]++
	}
	for i := range e {
		if want := 100 * (i + 1); math.Abs(float64(active[e[i].Addr]-want)) > 40 {
			t.Errorf("endpoint %d has %d calls under way, want about %d", i, active[e[i].Addr], want)
		}
	}
	for i := range calls {
		calls[i].End()
		calls[i].End() // twice does no harm
	}
	for _, s := range b.Status().Targets {
		if s.Active != 0 {
			t.Errorf("%v has %d calls under way after all have ended", s.Addr, s.Active)
		}
	}
}

// Round robin goes around exactly.
func TestRoundRobinIsExact(t *testing.T) {
	e := endpoints(5)
	b := newBackend(t, upstream.Config{Balancer: upstream.RoundRobin}, nil, e)
	for addr, n := range counts(t, b, 500) {
		if n != 100 {
			t.Errorf("%v has %d of 500 requests", addr, n)
		}
	}
}

func TestAvoidsWhatWasTried(t *testing.T) {
	for _, balancer := range balancers {
		t.Run(balancer.String(), func(t *testing.T) {
			e := endpoints(6)
			b := newBackend(t, upstream.Config{Balancer: balancer}, nil, e)
			for range 200 {
				var tried []*upstream.Target
				o := upstream.Options{Hash: rand.Uint64(), Hashed: true}
				for range e {
					o.Avoid = tried
					target := pick(t, b, o)
					if slices.Contains(tried, target) {
						t.Fatalf("%v was picked again with others left", target.Endpoint())
					}
					tried = append(tried, target)
				}
				o.Avoid = tried
				if target := pick(t, b, o); !slices.Contains(tried, target) {
					t.Fatal("an unknown target")
				}
			}
		})
	}
}

func TestWhoGetsNothing(t *testing.T) {
	e := endpoints(4)
	e[1].Weight, e[2].Healthy = 0, false
	for _, balancer := range balancers {
		got := counts(t, newBackend(t, upstream.Config{Balancer: balancer}, nil, e), 200)
		if got[e[1].Addr] > 0 || got[e[2].Addr] > 0 {
			t.Errorf("%s: an endpoint without weight or readiness gets requests: %v", balancer, got)
		}
	}
	all := newBackend(t, upstream.Config{LoadBalancing: workload.LoadBalancing{AllowUnhealthy: true}}, nil, e)
	if got := counts(t, all, 200); got[e[2].Addr] == 0 {
		t.Error("an unready endpoint gets nothing where the service allows it")
	}
}

func TestNobodyIsLeft(t *testing.T) {
	e := endpoints(2)
	e[0].Healthy, e[1].Healthy = false, false
	b := newBackend(t, upstream.Config{}, nil, e)
	_, err := b.Pick(upstream.Options{})
	if !errors.Is(err, upstream.ErrNoEndpoints) || !strings.Contains(err.Error(), "2 not ready") {
		t.Errorf("error %v", err)
	}
	if err := b.Update(nil); err != nil {
		t.Fatal(err)
	}
	if _, err = b.Pick(upstream.Options{}); err == nil || err.Error() != "shop/web:80: there are no endpoints" {
		t.Errorf("error %v", err)
	}
	b.Close()
	if err := b.Update(endpoints(1)); err != nil {
		t.Error(err)
	}
	if _, err := b.Pick(upstream.Options{}); err == nil {
		t.Error("a closed backend has endpoints")
	}
}

func TestLocality(t *testing.T) {
	place := func(region, zone, node string) upstream.Place {
		return upstream.Place{Locality: workload.Locality{Region: region, Zone: zone}, Node: node}
	}
	own := place("eu", "a", "n1")
	e := endpoints(5)
	e[0].Place = place("eu", "a", "n1")
	e[1].Place = place("eu", "a", "n2")
	e[2].Place = place("eu", "b", "n3")
	e[3].Place = place("us", "a", "n4") // shares the zone's name, but not the region
	e[4].Place = place("", "", "")
	preference := []workload.Scope{workload.ScopeRegion, workload.ScopeZone, workload.ScopeNode}
	picked := func(mode workload.Mode, without ...int) []int {
		now := slices.Clone(e)
		for _, i := range without {
			now[i].Healthy = false
		}
		b := newBackend(t, upstream.Config{LoadBalancing: workload.LoadBalancing{Preference: preference, Mode: mode}, Place: own}, nil, now)
		var out []int
		if _, err := b.Pick(upstream.Options{}); err != nil {
			return nil
		}
		got := counts(t, b, 500)
		for i := range e {
			if got[e[i].Addr] > 0 {
				out = append(out, i)
			}
		}
		return out
	}
	for _, c := range []struct {
		mode    workload.Mode
		without []int
		want    []int
	}{
		{workload.ModeStandard, nil, []int{0, 1, 2, 3, 4}},
		{workload.ModeStrict, nil, []int{0}},
		{workload.ModeStrict, []int{0}, nil},
		{workload.ModeFailover, nil, []int{0}},
		{workload.ModeFailover, []int{0}, []int{1}},
		{workload.ModeFailover, []int{0, 1}, []int{2}},
		{workload.ModeFailover, []int{0, 1, 2}, []int{3, 4}},
	} {
		if got := picked(c.mode, c.without...); !slices.Equal(got, c.want) {
			t.Errorf("%v without %v: %v get requests, want %v", c.mode, c.without, got, c.want)
		}
	}
}

// Each scope is a scope of its own.
func TestScopes(t *testing.T) {
	for scope, set := range map[workload.Scope]func(*upstream.Place, string){
		workload.ScopeRegion:  func(p *upstream.Place, v string) { p.Region = v },
		workload.ScopeZone:    func(p *upstream.Place, v string) { p.Zone = v },
		workload.ScopeSubzone: func(p *upstream.Place, v string) { p.Subzone = v },
		workload.ScopeNode:    func(p *upstream.Place, v string) { p.Node = v },
		workload.ScopeCluster: func(p *upstream.Place, v string) { p.Cluster = v },
		workload.ScopeNetwork: func(p *upstream.Place, v string) { p.Network = v },
	} {
		e := endpoints(3)
		var own upstream.Place
		set(&own, "here")
		set(&e[0].Place, "here")
		set(&e[1].Place, "there")
		lb := workload.LoadBalancing{Mode: workload.ModeStrict, Preference: []workload.Scope{scope}}
		if got := counts(t, newBackend(t, upstream.Config{Place: own, LoadBalancing: lb}, nil, e), 50); len(got) != 1 || got[e[0].Addr] != 50 {
			t.Errorf("%v: %v", scope, got)
		}
		// What is unknown is shared with nobody, but no network is one.
		b := newBackend(t, upstream.Config{LoadBalancing: lb}, nil, e)
		if _, err := b.Pick(upstream.Options{}); (err == nil) != (scope == workload.ScopeNetwork) {
			t.Errorf("%v unknown: %v", scope, err)
		}
	}
}

func TestKeysOfSources(t *testing.T) {
	mapped, plain := netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("10.0.0.1")
	if upstream.HashAddr(mapped) != upstream.HashAddr(plain) || upstream.HashAddr(plain) == upstream.HashAddr(plain.Next()) {
		t.Error("an address does not always have one key of its own")
	}
}

// Keys of a hashed balancer stay where they are unless their target goes; replicas
// agree, whatever order they were told the endpoints in.
func TestHashedKeysStay(t *testing.T) {
	for _, balancer := range []upstream.Balancer{upstream.RingHash, upstream.Maglev} {
		t.Run(balancer.String(), func(t *testing.T) {
			e := endpoints(10)
			shuffled := slices.Clone(e)
			rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			b := newBackend(t, upstream.Config{Balancer: balancer}, nil, e)
			other := newBackend(t, upstream.Config{Balancer: balancer}, nil, shuffled)
			less := newBackend(t, upstream.Config{Balancer: balancer}, nil, e[1:])
			const keys = 10_000
			moved := 0
			for i := range keys {
				o := upstream.Options{Hash: upstream.HashString(fmt.Sprint("user-", i)), Hashed: true}
				target := pick(t, b, o).Endpoint().Addr
				if again := pick(t, b, o).Endpoint().Addr; again != target {
					t.Fatalf("key %d goes to %v and to %v", i, target, again)
				}
				if elsewhere := pick(t, other, o).Endpoint().Addr; elsewhere != target {
					t.Fatalf("key %d goes to %v here and to %v in another replica", i, target, elsewhere)
				}
				if now := pick(t, less, o).Endpoint().Addr; target != e[0].Addr && now != target {
					moved++
				}
			}
			most := 0
			if balancer == upstream.Maglev {
				most = keys * 5 / 100 // the table is refilled, which moves a few
			}
			if moved > most {
				t.Errorf("%d of %d keys moved although their target stayed", moved, keys)
			}
		})
	}
}

func TestSessionsStayWithTheirTarget(t *testing.T) {
	e := endpoints(8)
	b := newBackend(t, upstream.Config{}, nil, e)
	target := pick(t, b, upstream.Options{})
	token := upstream.SessionPolicy{}.Read(target.Token(upstream.Session{}, someDay), someDay)
	for range 100 {
		if pick(t, b, upstream.Options{Session: token.Target}) != target {
			t.Fatal("the session went to another target")
		}
	}
	if pick(t, b, upstream.Options{Session: token.Target, Avoid: []*upstream.Target{target}}) == target {
		t.Error("a session's target is picked although it was tried")
	}
	if pick(t, b, upstream.Options{Session: token.Target + 1}) == nil {
		t.Error("an unknown session gets nobody")
	}
	// The pod comes back with another address: StatefulSets keep their names.
	for i := range e {
		if e[i].Addr == target.Endpoint().Addr {
			e[i].Addr = netip.MustParseAddrPort("10.9.9.9:8080")
		}
	}
	if err := b.Update(e); err != nil {
		t.Fatal(err)
	}
	if got := pick(t, b, upstream.Options{Session: token.Target}); got.Endpoint().Addr.String() != "10.9.9.9:8080" {
		t.Errorf("the session went to %v", got.Endpoint())
	}
	for i := range e {
		if e[i].Addr.String() == "10.9.9.9:8080" {
			e[i].Healthy = false
		}
	}
	if err := b.Update(e); err != nil {
		t.Fatal(err)
	}
	if got := pick(t, b, upstream.Options{Session: token.Target}); got.Endpoint().Addr.String() == "10.9.9.9:8080" {
		t.Error("a session keeps an unready target")
	}
}

// What is known of an endpoint stays with it, and ends with it.
func TestUpdateKeepsTargets(t *testing.T) {
	e := endpoints(2)
	b := newBackend(t, upstream.Config{}, nil, e)
	first := byAddr(t, b, e[0])
	e[0].Weight = 5
	if err := b.Update(e); err != nil {
		t.Fatal(err)
	}
	if byAddr(t, b, e[0]) != first || first.Endpoint().Weight != 5 {
		t.Error("a new weight makes a new target")
	}
	e[0].UID = "Kubernetes//Pod/shop/another"
	if err := b.Update(e); err != nil {
		t.Fatal(err)
	}
	if byAddr(t, b, e[0]) == first {
		t.Error("another pod on the same address is taken for the one before")
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []upstream.Config{
		{Balancer: 77}, {PanicPercent: 101}, {EWMADecay: -1}, {SlowStart: upstream.SlowStart{Window: -1}},
		{Outlier: &upstream.Outlier{MaxEjectedPercent: 101}}, {Outlier: &upstream.Outlier{Interval: -1}},
		{Health: &upstream.Health{}}, {Adaptive: &upstream.Adaptive{Percentile: 101}},
		{Pool: upstream.PoolConfig{MaxStreams: -1}}, {Budget: upstream.BudgetConfig{Percent: 101}},
	} {
		if _, err := upstream.New(cfg, nil); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, balancer := range balancers {
		for _, n := range []int{3, 1000} {
			for _, weighted := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/endpoints=%d/weighted=%v", balancer, n, weighted), func(b *testing.B) {
					e := endpoints(n)
					for i := range e {
						if weighted {
							e[i].Weight = uint32(1 + i%7)
						}
					}
					backend := newBackend(b, upstream.Config{Balancer: balancer}, nil, e)
					for i := range e {
						_ = i
						answer(pick(b, backend, upstream.Options{}), upstream.Outcome{Status: 200, Latency: 1e6})
					}
					o := upstream.Options{Hashed: true}
					b.ReportAllocs()
					for b.Loop() {
						o.Hash += 0x9e3779b97f4a7c15
						if _, err := backend.Pick(o); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, balancer := range balancers {
		for _, n := range []int{10, 5000} {
			b.Run(fmt.Sprintf("%s/endpoints=%d", balancer, n), func(b *testing.B) {
				e := endpoints(n + 1)
				backend := newBackend(b, upstream.Config{Balancer: balancer}, nil, e)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if err := backend.Update(e[i%2 : n+i%2]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
