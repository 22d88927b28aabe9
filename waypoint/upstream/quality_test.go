package upstream_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// latencies sends n requests, so many a second, to ten targets of which the first is
// ten times slower than the others, each with eight requests at a time, and returns
// what they took, sorted.
func latencies(t *testing.T, balancer upstream.Balancer, n, perSecond int) []time.Duration {
	t.Helper()
	e := endpoints(10)
	b := newBackend(t, upstream.Config{Balancer: balancer}, nil, e)
	servers := map[string]*server{}
	for i := range e {
		took := 10 * time.Millisecond
		if i == 0 {
			took *= 10
		}
		servers[e[i].String()] = newServer(8, took)
	}
	all := make([]time.Duration, n)
	var wg sync.WaitGroup
	for i := range all {
		time.Sleep(time.Duration(rand.ExpFloat64() * float64(time.Second) / float64(perSecond)))
		wg.Go(func() {
			target := pick(t, b, upstream.Options{})
			call := target.Begin()
			defer call.End()
			start := time.Now()
			servers[target.Endpoint().String()].work()
			call.Report(fine)
			all[i] = time.Since(start)
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all
}

// A slow target makes round robin slow; those that look at what is under way, or at
// latencies, send it little.
func TestSlowTargetsAreSpared(t *testing.T) {
	p := map[upstream.Balancer][]time.Duration{}
	for _, balancer := range []upstream.Balancer{upstream.RoundRobin, upstream.LeastRequest, upstream.PeakEWMA} {
		synctest.Test(t, func(t *testing.T) {
			all := latencies(t, balancer, 10_000, 3000)
			at := func(part float64) time.Duration { return all[int(float64(len(all))*part)] }
			p[balancer] = []time.Duration{at(0.5), at(0.9), at(0.99), at(0.999)}
			t.Logf("%-13s p50 %v, p90 %v, p99 %v, p99.9 %v", balancer, at(0.5), at(0.9), at(0.99), at(0.999))
		})
	}
	if rr, least, ewma := p[upstream.RoundRobin][2], p[upstream.LeastRequest][2], p[upstream.PeakEWMA][2]; least*3 > rr || ewma*5 > rr {
		t.Errorf("p99: round robin %v, least request %v, peak EWMA %v", rr, least, ewma)
	}
}
