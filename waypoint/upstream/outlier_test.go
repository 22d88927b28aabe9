package upstream_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

var (
	fine   = upstream.Outcome{Status: 200}
	failed = upstream.Outcome{Status: 500}
	bad    = upstream.Outcome{Status: 502}
)

// times reports an outcome n times.
func times(n int, target *upstream.Target, o upstream.Outcome) {
	for range n {
		answer(target, o)
	}
}

// left returns the endpoints that take part.
func left(b *upstream.Backend) string {
	var out []string
	for _, s := range b.Status().Targets {
		if s.Serving {
			out = append(out, fmt.Sprint(s.Addr.Addr().As4()[3]))
		}
	}
	return strings.Join(out, " ")
}

// every returns the targets in the order of their endpoints.
func every(t testing.TB, b *upstream.Backend, e []upstream.Endpoint) []*upstream.Target {
	t.Helper()
	out := make([]*upstream.Target, len(e))
	for i := range e {
		out[i] = byAddr(t, b, e[i])
	}
	return out
}

func serving(b *upstream.Backend, addr netip.AddrPort) bool {
	for _, s := range b.Status().Targets {
		if s.Addr == addr {
			return s.Serving
		}
	}
	return false
}

func TestConsecutiveFailuresEject(t *testing.T) {
	local := upstream.Outcome{Failure: upstream.ConnectFailed}
	late := upstream.Outcome{Failure: upstream.TimedOut}
	for _, c := range []struct {
		name     string
		cfg      upstream.Outlier
		outcomes []upstream.Outcome
		cause    string
	}{
		{"5xx", upstream.Outlier{Consecutive5xx: 3}, []upstream.Outcome{failed, bad, failed}, "consecutive-5xx"},
		{"5xx too few", upstream.Outlier{Consecutive5xx: 3}, []upstream.Outcome{failed, failed}, ""},
		{"5xx broken off", upstream.Outlier{Consecutive5xx: 3}, []upstream.Outcome{failed, failed, fine, failed}, ""},
		{"404 is fine", upstream.Outlier{Consecutive5xx: 1}, []upstream.Outcome{{Status: 404}}, ""},
		{"gateway", upstream.Outlier{ConsecutiveGateway: 2}, []upstream.Outcome{bad, {Status: 504}}, "consecutive-gateway"},
		{"gateway broken off by a 500", upstream.Outlier{ConsecutiveGateway: 2}, []upstream.Outcome{bad, failed, bad}, ""},
		{"local counts as gateway", upstream.Outlier{ConsecutiveGateway: 2}, []upstream.Outcome{local, late}, "consecutive-gateway"},
		{"local apart", upstream.Outlier{SplitLocal: true, ConsecutiveLocal: 2, Consecutive5xx: 1}, []upstream.Outcome{local, late}, "consecutive-local"},
		{"local apart broken off", upstream.Outlier{SplitLocal: true, ConsecutiveLocal: 2}, []upstream.Outcome{local, failed, local}, ""},
		{"gRPC unavailable", upstream.Outlier{ConsecutiveGateway: 1}, []upstream.Outcome{{Status: 200, GRPC: 14}}, "consecutive-gateway"},
		{"gRPC not found", upstream.Outlier{Consecutive5xx: 1}, []upstream.Outcome{{Status: 200, GRPC: 5}}, ""},
		{"off", upstream.Outlier{}, []upstream.Outcome{bad, bad, bad, bad, bad, bad, local}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := endpoints(3)
			b := newBackend(t, upstream.Config{Outlier: &c.cfg}, nil, e)
			target := byAddr(t, b, e[1])
			for _, o := range c.outcomes {
				answer(target, o)
			}
			if got := b.Status().Ejections; c.cause == "" && len(got) > 0 || c.cause != "" && (len(got) != 1 || got[c.cause] != 1) {
				t.Errorf("ejections %v, want of %q", got, c.cause)
			}
			if got := serving(b, e[1].Addr); got != (c.cause == "") {
				t.Errorf("the endpoint takes part: %v", got)
			}
			if c.cause != "" && counts(t, b, 200)[e[1].Addr] > 0 {
				t.Error("an ejected endpoint gets requests")
			}
		})
	}
}

// Each ejection in a row is longer, and good conduct shortens the next.
func TestEjectionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endpoints(4)
		b := newBackend(t, upstream.Config{Outlier: &upstream.Outlier{Consecutive5xx: 1, MaxEjection: 80 * time.Second}}, nil, e)
		target := every(t, b, e)[2]
		for _, want := range []time.Duration{30 * time.Second, 60 * time.Second, 80 * time.Second} {
			answer(target, failed)
			time.Sleep(want - time.Millisecond)
			if counts(t, b, 100)[e[2].Addr] > 0 {
				t.Fatalf("back before %v", want)
			}
			time.Sleep(time.Millisecond)
			if counts(t, b, 100)[e[2].Addr] == 0 {
				t.Fatalf("not back after %v", want)
			}
		}
		time.Sleep(20 * time.Second)
		answer(target, failed)
		for _, s := range b.Status().Targets {
			if s.Addr == e[2].Addr && s.Ejected != 60*time.Second {
				t.Errorf("ejected for %v after two intervals in which it was fine", s.Ejected)
			}
		}
	})
}

func TestNotTooManyAreEjected(t *testing.T) {
	for _, c := range []struct{ endpoints, percent, want int }{
		{1, 0, 0},   // the only one stays
		{2, 0, 1},   // one may always be
		{10, 0, 1},  // 10 %
		{20, 10, 2}, // 10 %
		{10, 50, 5},
		{3, 100, 3}, // who asks for it gets it
		{1, 100, 1},
	} {
		e := endpoints(c.endpoints)
		b := newBackend(t, upstream.Config{Outlier: &upstream.Outlier{Consecutive5xx: 1, MaxEjectedPercent: c.percent}}, nil, e)
		for _, target := range every(t, b, e) {
			answer(target, failed)
		}
		ejected := 0
		for _, s := range b.Status().Targets {
			if s.Ejected > 0 {
				ejected++
			}
		}
		if ejected != c.want {
			t.Errorf("%d of %d endpoints are ejected with %d %%, want %d", ejected, c.endpoints, c.percent, c.want)
		}
	}
}

func TestPanic(t *testing.T) {
	e := endpoints(4)
	cfg := upstream.Config{Outlier: &upstream.Outlier{Consecutive5xx: 1, MaxEjectedPercent: 100}, PanicPercent: 50}
	for _, balancer := range balancers {
		cfg.Balancer = balancer
		now := append(e[:4:4], endpoints(5)[4])
		now[4].Healthy = false // never takes part
		b := newBackend(t, cfg, nil, now)
		targets := every(t, b, e)
		answer(targets[0], failed)
		answer(targets[1], failed)
		if got := counts(t, b, 400); len(got) != 2 {
			t.Errorf("%s: %v get requests with half of them ejected", balancer, got)
		}
		answer(targets[2], failed)
		if !b.Status().Panicking {
			t.Errorf("%s: no panic with a quarter left", balancer)
		}
		// Peak EWMA leaves out the slowest all the same.
		if got := counts(t, b, 400); len(got) != 4 && balancer != upstream.PeakEWMA {
			t.Errorf("%s: %v get requests when it should panic", balancer, got)
		}
	}
}

// An ejected near endpoint does not send everything far away.
func TestFarTiersTakeWhatNearOnesCannot(t *testing.T) {
	e := endpoints(8)
	for i := range e {
		if i < 4 {
			e[i].Place.Zone = "a"
		}
	}
	cfg := upstream.Config{
		Place:         upstream.Place{Locality: workload.Locality{Zone: "a"}},
		LoadBalancing: workload.LoadBalancing{Mode: workload.ModeFailover, Preference: []workload.Scope{workload.ScopeZone}},
		Outlier:       &upstream.Outlier{Consecutive5xx: 1, MaxEjectedPercent: 100},
	}
	for _, balancer := range balancers {
		cfg.Balancer = balancer
		b := newBackend(t, cfg, nil, e)
		near := make([]*upstream.Target, 4)
		for i := range near {
			near[i] = byAddr(t, b, e[i])
		}
		share := func() float64 {
			n := 0
			for addr, got := range counts(t, b, 20_000) {
				if addr.Addr().As4()[3] < 4 {
					n += got
				}
			}
			return float64(n) / 20_000
		}
		for k, want := range []float64{1, 1, 0.7, 0.35, 0} {
			if k > 0 {
				answer(near[k-1], failed)
			}
			if got := share(); got < want-0.03 || got > want+0.03 {
				t.Errorf("%s: the near tier has %.2f of the requests with %d of 4 ejected, want %.2f", balancer, got, k, want)
			}
		}
	}
}

// The keys of an ejected target move, all others stay, and it gets its own back.
func TestOnlyKeysOfEjectedTargetsMove(t *testing.T) {
	for _, balancer := range []upstream.Balancer{upstream.RingHash, upstream.Maglev} {
		synctest.Test(t, func(t *testing.T) {
			e := endpoints(10)
			b := newBackend(t, upstream.Config{Balancer: balancer, Outlier: &upstream.Outlier{Consecutive5xx: 1}}, nil, e)
			where := func() []netip.AddrPort {
				out := make([]netip.AddrPort, 5000)
				for i := range out {
					out[i] = pick(t, b, upstream.Options{Hash: upstream.HashString(fmt.Sprint(i)), Hashed: true}).Endpoint().Addr
				}
				return out
			}
			before := where()
			answer(byAddr(t, b, e[3]), failed)
			elsewhere := map[netip.AddrPort]bool{}
			for i, addr := range where() {
				switch {
				case before[i] != e[3].Addr && addr != before[i]:
					t.Fatalf("%v: key %d moved from %v", balancer, i, before[i])
				case addr == e[3].Addr:
					t.Fatalf("%v: key %d goes to an ejected endpoint", balancer, i)
				case before[i] == e[3].Addr:
					elsewhere[addr] = true
				}
			}
			if len(elsewhere) < 5 {
				t.Errorf("%v: the keys of the ejected endpoint went to %d others only", balancer, len(elsewhere))
			}
			time.Sleep(30 * time.Second)
			for i, addr := range where() {
				if addr != before[i] {
					t.Fatalf("%v: key %d is not back", balancer, i)
				}
			}
		})
	}
}

func TestSuccessRateEjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endpoints(6)
		b := newBackend(t, upstream.Config{Outlier: &upstream.Outlier{SuccessRate: upstream.SuccessRate{Factor: 1.9}}}, nil, e)
		targets := every(t, b, e)
		interval := func(badOf100 int, n int) {
			for _, target := range targets {
				for i := range n {
					o := fine
					if target == targets[4] && i < badOf100*n/100 {
						o = failed
					}
					answer(target, o)
				}
			}
			time.Sleep(10 * time.Second)
			answer(targets[0], fine)
		}
		interval(50, 99) // too few requests
		if got := b.Status().Ejections; len(got) > 0 {
			t.Fatalf("ejections %v for too few requests", got)
		}
		interval(50, 200)
		if got := b.Status().Ejections; got["success-rate"] != 1 || serving(b, e[4].Addr) {
			t.Fatalf("ejections %v, left %s", got, left(b))
		}
	})
}

func TestFailurePercentEjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endpoints(5)
		cfg := upstream.Outlier{FailurePercent: upstream.FailurePercent{Threshold: 80}, MaxEjectedPercent: 40}
		b := newBackend(t, upstream.Config{Outlier: &cfg}, nil, e)
		targets := every(t, b, e)
		for i, target := range targets {
			times(20*(5-i), target, fine) // 100, 80, 60, 40, 20 successes
			times(20*i, target, failed)
		}
		time.Sleep(10 * time.Second)
		answer(targets[0], fine)
		if got := left(b); strings.Contains(got, "4") || len(strings.Fields(got)) != 4 {
			t.Errorf("left %q, want all but 4", got)
		}
	})
}

func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endpoints(4)
		for _, balancer := range []upstream.Balancer{upstream.LeastRequest, upstream.RoundRobin, upstream.Random, upstream.PeakEWMA} {
			b := newBackend(t, upstream.Config{Balancer: balancer, SlowStart: upstream.SlowStart{Window: time.Minute}}, nil, e[:3])
			share := func() float64 { return float64(counts(t, b, 20_000)[e[3].Addr]) / 20_000 }
			if got := float64(counts(t, b, 9000)[e[0].Addr]) / 9000; got < 0.3 || got > 0.37 {
				t.Errorf("%s: the first endpoints have a slow start, too: %.2f", balancer, got)
			}
			if err := b.Update(e); err != nil {
				t.Fatal(err)
			}
			var last float64
			for _, c := range []struct {
				after time.Duration
				most  float64
			}{{0, 0.06}, {15 * time.Second, 0.10}, {30 * time.Second, 0.18}, {50 * time.Second, 0.24}} {
				time.Sleep(c.after - time.Duration(float64(time.Minute)*last))
				last = float64(c.after) / float64(time.Minute)
				if got := share(); got > c.most || got < 0.005 {
					t.Errorf("%s: %.3f of the requests %v after the start, want at most %.2f", balancer, got, c.after, c.most)
				}
			}
			time.Sleep(10 * time.Second)
			if got := share(); got < 0.23 || got > 0.27 {
				t.Errorf("%s: %.3f of the requests after the slow start", balancer, got)
			}
		}
	})
}

// Peak EWMA sends most to who answers quickly, and forgets a peak with time.
func TestPeakEWMAPrefersQuickTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endpoints(3)
		b := newBackend(t, upstream.Config{Balancer: upstream.PeakEWMA}, nil, e)
		targets := every(t, b, e)
		for i, target := range targets {
			answer(target, upstream.Outcome{Status: 200, Latency: time.Duration(1+i*10) * time.Millisecond})
		}
		slow := e[2].Addr
		if got := counts(t, b, 1000); got[slow] > 0 {
			t.Errorf("the slowest gets %v", got)
		}
		// The others answer now and then, worse and worse, until the slow one's time is past.
		for range 60 {
			time.Sleep(time.Second)
			answer(targets[0], upstream.Outcome{Status: 200, Latency: 2 * time.Millisecond})
			answer(targets[1], upstream.Outcome{Status: 200, Latency: 2 * time.Millisecond})
		}
		if got := counts(t, b, 1000); got[slow] == 0 {
			t.Errorf("the peak is not forgotten after a minute: %v", got)
		}
	})
}

// Outcomes, updates and choices at the same time, with whatever the configuration
// can do; the race detector looks on.
func TestEverythingAtOnce(t *testing.T) {
	e := endpoints(20)
	for i := range e {
		e[i].Weight = uint32(1 + i%3)
	}
	for _, balancer := range balancers {
		cfg := upstream.Config{
			Balancer: balancer, SlowStart: upstream.SlowStart{Window: time.Millisecond},
			Outlier: &upstream.Outlier{
				Consecutive5xx: 2, Interval: time.Millisecond, BaseEjection: time.Millisecond, MaxEjectedPercent: 50,
				SuccessRate: upstream.SuccessRate{Factor: 1, MinRequests: 1}, FailurePercent: upstream.FailurePercent{Threshold: 50, MinRequests: 1},
			},
			Adaptive: &upstream.Adaptive{Window: time.Microsecond, MinRTTInterval: time.Millisecond},
		}
		b := newBackend(t, cfg, &fakeDialer{}, e)
		done := make(chan struct{})
		for range 4 {
			go func() {
				defer func() { done <- struct{}{} }()
				for i := range 3000 {
					p, err := b.Request(upstream.Priority(i%4 - 1))
					if err != nil {
						continue
					}
					x, err := b.Send(t.Context(), upstream.HTTP1, upstream.Options{Hash: uint64(i), Hashed: i%2 == 0}, get, true)
					if err == nil {
						x.Report(upstream.Outcome{Status: 200 + 300*(i%3/2)})
						if err := x.Close(); err != nil {
							t.Error(err)
						}
					}
					p.Release()
				}
			}()
		}
		for i := range 50 {
			if err := b.Update(e[:1+i%len(e)]); err != nil {
				t.Error(err)
			}
			cfg.SlowStart.Window += time.Microsecond
			cfg.Circuit.Connections = i % 10
			if err := b.Configure(cfg); err != nil {
				t.Error(err)
			}
			b.Status()
		}
		for range 4 {
			<-done
		}
		s := b.Status()
		for _, target := range s.Targets {
			if target.Active != 0 {
				t.Errorf("%d calls are under way after all have ended", target.Active)
			}
		}
		for _, l := range s.Limits {
			if l.Active != 0 && l.Limit != "connections" {
				t.Errorf("limit of %s: %d after all have ended", l.Limit, l.Active)
			}
		}
	}
}

// A response that breaks off, or a gRPC call that ends badly, is no success because
// it began well.
func TestOutcomesAreJudgedByTheirEnd(t *testing.T) {
	for name, later := range map[string]upstream.Outcome{
		"broken off": {Status: 200, Failure: upstream.Reset},
		"trailers":   {Status: 200, GRPC: 14},
	} {
		e := endpoints(3)
		b := newBackend(t, upstream.Config{Outlier: &upstream.Outlier{Consecutive5xx: 3}}, nil, e)
		target := byAddr(t, b, e[0])
		for range 3 {
			call := target.Begin()
			call.Report(fine)
			call.Report(later)
			call.Report(later)
			call.End()
		}
		if got := b.Status().Ejections["consecutive-5xx"]; got != 1 {
			t.Errorf("%s: %d ejections", name, got)
		}
	}
	e := endpoints(3)
	b := newBackend(t, upstream.Config{Outlier: &upstream.Outlier{Consecutive5xx: 2}}, nil, e)
	target := byAddr(t, b, e[0])
	answer(target, failed)
	call := target.Begin()
	call.End() // the client gave up: nothing is known
	answer(target, failed)
	if serving(b, e[0].Addr) {
		t.Error("a call without a report breaks a row of failures off")
	}
}
