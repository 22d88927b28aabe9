package upstream_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// Whatever endpoints there are, and whoever of them is ejected: who is picked may be,
// by the plain rules, and somebody is picked if anybody may be.
func TestPickModel(t *testing.T) {
	preference := []workload.Scope{workload.ScopeRegion, workload.ScopeZone}
	own := upstream.Place{Locality: workload.Locality{Region: "r0", Zone: "z0"}}
	distance := func(e *upstream.Endpoint) int {
		switch {
		case e.Place.Region != "r0":
			return 2
		case e.Place.Zone != "z0":
			return 1
		}
		return 0
	}
	names := []string{"0", "1"}
	for range 150 {
		synctest.Test(t, func(t *testing.T) {
			all := endpoints(1 + rand.IntN(12))
			for i := range all {
				all[i].Weight = uint32(rand.IntN(4))
				all[i].Healthy = rand.IntN(4) > 0
				all[i].Place.Region, all[i].Place.Zone = "r"+names[rand.IntN(2)], "z"+names[rand.IntN(2)]
			}
			cfg := upstream.Config{
				Balancer: balancers[rand.IntN(len(balancers))], Place: own,
				LoadBalancing: workload.LoadBalancing{Preference: preference, Mode: workload.Mode(rand.IntN(4)), AllowUnhealthy: rand.IntN(3) == 0},
				Outlier:       &upstream.Outlier{Consecutive5xx: 1, MaxEjectedPercent: 100},
				PanicPercent:  rand.IntN(3) * 30,
				SlowStart:     upstream.SlowStart{Window: time.Duration(rand.IntN(2)) * time.Minute},
			}
			now := slices.Clone(all)
			b := newBackend(t, cfg, nil, now)
			for range 20 {
				switch rand.IntN(4) {
				case 0:
					now = all[:rand.IntN(len(all)+1)]
					if err := b.Update(now); err != nil {
						t.Fatal(err)
					}
				case 1:
					time.Sleep(rand.N(50 * time.Second))
				case 2:
					cfg.Balancer = balancers[rand.IntN(len(balancers))]
					if err := b.Configure(cfg); err != nil {
						t.Fatal(err)
					}
				default:
					if target, err := b.Pick(upstream.Options{}); err == nil {
						answer(target, failed)
					}
				}
				ejected := map[netip.AddrPort]bool{}
				for _, s := range b.Status().Targets {
					ejected[s.Addr] = s.Ejected > 0
				}
				// The plain rules.
				fit, all := [3][]netip.AddrPort{}, [3][]netip.AddrPort{}
				left, total := 0, 0
				for i := range now {
					e := &now[i]
					d := distance(e)
					if e.Weight == 0 || !e.Healthy && !cfg.LoadBalancing.AllowUnhealthy || d > 0 && cfg.LoadBalancing.Mode == workload.ModeStrict {
						continue
					}
					if cfg.LoadBalancing.Mode != workload.ModeFailover {
						d = 0
					}
					all[d] = append(all[d], e.Addr)
					total++
					if !ejected[e.Addr] {
						fit[d] = append(fit[d], e.Addr)
						left++
					}
				}
				if left*100 < total*cfg.PanicPercent {
					fit = all
				}
				var may []netip.AddrPort
				carried := 0.0
				for d := range fit {
					if len(fit[d]) > 0 && carried < 1 {
						may = append(may, fit[d]...)
						carried += 1.4 * float64(len(fit[d])) / float64(len(all[d]))
					}
				}
				for range 20 {
					target, err := b.Pick(upstream.Options{Hash: rand.Uint64(), Hashed: rand.IntN(2) == 0})
					if (err == nil) != (len(may) > 0) {
						t.Fatalf("%v of %d who may be picked", err, len(may))
					}
					if err == nil && !slices.Contains(may, target.Endpoint().Addr) {
						t.Fatalf("%v is picked, of %v; config %+v", target.Endpoint(), may, cfg)
					}
				}
			}
		})
	}
}
