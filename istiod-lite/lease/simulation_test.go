package lease_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	api "github.com/tulle-mesh/tulle/api/lease"
	"github.com/tulle-mesh/tulle/istiod-lite/lease"
)

// bucket is one replica's part of a limit: what waypoint/ratelimit does, in fractions.
type bucket struct {
	rate, burst, share, left float64
}

func (b *bucket) set(share float64) {
	b.share, b.left = share, min(b.left, b.burst*share)
}

func (b *bucket) flow(d float64) { b.left = max(b.left, min(b.left+b.rate*b.share*d, b.burst*b.share)) }

func (b *bucket) take() bool {
	if b.left >= 1 || b.share < 1 && b.left >= b.burst*b.share {
		b.left--
		return true
	}
	return false
}

// later is something that happens.
type later struct {
	at time.Duration
	do func()
}

// world is replicas that share one key, with a network between them and the allocator.
type world struct {
	now       time.Duration
	events    []later
	allocator *lease.Allocator
	replicas  map[string]*replica
	latency   time.Duration
	requests  float64
	// admitted and asked count, most is the greatest sum of shares in use.
	admitted, asked int
	most            float64
}

type replica struct {
	bucket
	demand func(now time.Duration) float64 // per second
	owed   float64
	asked  int
	up     bool
	serial uint64
	rest   float64
	own    bool
}

var epoch = time.Unix(0, 0)

func newWorld(requests, burst float64, latency time.Duration, demands ...func(time.Duration) float64) *world {
	w := &world{allocator: lease.NewAllocator(), replicas: map[string]*replica{}, latency: latency, requests: requests}
	for i, d := range demands {
		name := fmt.Sprintf("r%d", i)
		w.replicas[name] = &replica{demand: d, bucket: bucket{rate: requests, burst: burst}, up: true}
		w.connect(name)
	}
	return w
}

func (w *world) after(d time.Duration, do func()) {
	w.events = append(w.events, later{w.now + d, do})
}

// connect has a replica join, with what it holds.
func (w *world) connect(name string) {
	r := w.replicas[name]
	report := &api.Report{Replica: name, HasRules: true, Rules: []string{"shop/p/r"}}
	if r.serial > 0 {
		report.Held = append(report.Held, &api.Share{Rule: "shop/p/r", Share: uint32(r.rest * lease.Full)})
		if r.own {
			report.Held = append(report.Held, &api.Share{Rule: "shop/p/r", Key: 7, Share: uint32(r.share * lease.Full)})
		}
	}
	w.after(w.latency, func() {
		w.allocator.Join(name, epoch.Add(w.now))
		w.report(name, report)
	})
}

func (w *world) report(name string, report *api.Report) {
	w.allocator.Report(name, report, func(string) bool { return true }, epoch.Add(w.now))
	w.tick()
}

func (w *world) tick() {
	grants := w.allocator.Tick(epoch.Add(w.now))
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		g := grants[name]
		w.after(w.latency, func() { w.apply(name, g) })
	}
}

func (w *world) apply(name string, g *api.Grant) {
	r := w.replicas[name]
	if !r.up {
		return
	}
	for _, s := range g.Shares {
		share := float64(s.Share) / lease.Full
		switch {
		case s.Key == 0:
			first := r.serial == 0
			if r.rest = share; !r.own {
				if first {
					r.left = r.burst // its keys are new, and full
				}
				r.set(share)
			}
		case s.Dropped:
			r.own = false
			r.set(r.rest)
		default:
			r.own = true
			r.set(share)
		}
	}
	r.serial = g.Serial
	w.after(w.latency, func() { w.report(name, &api.Report{Serial: g.Serial}) })
}

// run goes on in steps of a millisecond.
func (w *world) run(d time.Duration, rng *rand.Rand) (admitted int) {
	const step = time.Millisecond
	for end := w.now + d; w.now < end; w.now += step {
		for i := 0; i < len(w.events); {
			if e := w.events[i]; e.at <= w.now {
				w.events = slices.Delete(w.events, i, i+1)
				e.do()
				i = 0
				continue
			}
			i++
		}
		sum := 0.0
		for _, name := range slices.Sorted(maps.Keys(w.replicas)) {
			r := w.replicas[name]
			if !r.up {
				continue
			}
			r.flow(step.Seconds())
			sum += r.share
			r.owed += r.demand(w.now) * step.Seconds() * 2 * rng.Float64()
			for ; r.owed >= 1; r.owed-- {
				w.asked++
				r.asked++
				if r.take() {
					admitted++
				}
			}
			if w.now%lease.Interval == time.Duration(name[1]-'0')*17*time.Millisecond && r.serial > 0 {
				rate := float64(r.asked) / lease.Interval.Seconds()
				r.asked = 0
				if rate > 0 && (r.own || r.left < r.burst*r.share/2) || r.own {
					report := &api.Report{Demands: []*api.Demand{{Rule: "shop/p/r", Key: 7, Rate: rate}}}
					w.after(w.latency, func() { w.report(name, report) })
				}
			}
		}
		w.most = max(w.most, sum)
		if w.now%lease.Interval == 0 {
			w.tick()
		}
	}
	w.admitted += admitted
	return admitted
}

func constant(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

// TestErrorOfLeases measures what replicas admit together, against what one limiter for
// all would.
func TestErrorOfLeases(t *testing.T) {
	const limit, burst = 1000.0, 1000.0
	moving := func(i int) func(time.Duration) float64 {
		return func(now time.Duration) float64 {
			if int(now/(5*time.Second))%4 == i {
				return 2 * limit
			}
			return 10
		}
	}
	bursty := func(i int) func(time.Duration) float64 {
		return func(now time.Duration) float64 {
			if (now/time.Second+time.Duration(i))%2 == 0 {
				return 0.9 * limit
			}
			return 0
		}
	}
	for _, c := range []struct {
		name    string
		demands []func(time.Duration) float64
		over    float64 // of what one limiter would admit, in percent
		under   float64
	}{
		{"even, twice the limit", slices.Repeat([]func(time.Duration) float64{constant(limit / 2)}, 4), 0.5, 1},
		{"one hot", []func(time.Duration) float64{constant(2 * limit), constant(10), constant(10), constant(10)}, 0.5, 4},
		{"one hot, three silent", []func(time.Duration) float64{constant(2 * limit), constant(0), constant(0), constant(0)}, 0.5, 5},
		{"uneven", []func(time.Duration) float64{constant(800), constant(400), constant(200), constant(100)}, 0.5, 3},
		{"below the limit", slices.Repeat([]func(time.Duration) float64{constant(limit / 5)}, 4), 0.5, 0.5},
		{"below the limit, uneven", []func(time.Duration) float64{constant(700), constant(100), constant(50), constant(50)}, 0.5, 2},
		{"hot one moves every 5s", []func(time.Duration) float64{moving(0), moving(1), moving(2), moving(3)}, 0.5, 18},
		{"bursts of a second by turns", []func(time.Duration) float64{bursty(0), bursty(1)}, 0.5, 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(limit, burst, 5*time.Millisecond, c.demands...)
			rng := rand.New(rand.NewPCG(1, 2))
			w.run(5*time.Second, rng) // the first seconds are for shares to settle
			ideal := bucket{rate: limit, burst: burst, share: 1}
			const seconds = 40
			got := float64(w.run(seconds*time.Second, rng))
			want := 0.0
			for ms := range seconds * 1000 {
				ideal.flow(0.001)
				for _, d := range c.demands {
					ask := d(5*time.Second+time.Duration(ms)*time.Millisecond) * 0.001
					got := min(ask, ideal.left)
					ideal.left -= got
					want += got
				}
			}
			err := 100 * (got - want) / want
			t.Logf("admitted %.0f, one limiter %.0f: %+.2f %%; sum of shares at most %.4f", got, want, err, w.most)
			if err > c.over || err < -c.under {
				t.Errorf("error of %+.2f %%, want from -%v to +%v", err, c.under, c.over)
			}
			if w.most > 1.0001 {
				t.Errorf("shares in use add up to %v", w.most)
			}
		})
	}
}

func TestSharesOfAReplicaThatIsGoneGoToTheOthers(t *testing.T) {
	w := newWorld(1000, 1000, 5*time.Millisecond, constant(2000), constant(2000))
	rng := rand.New(rand.NewPCG(3, 4))
	w.run(5*time.Second, rng)
	gone := w.replicas["r0"]
	gone.up = false
	w.allocator.Leave("r0", false, epoch.Add(w.now))
	w.run(9*time.Second, rng)
	if share := w.replicas["r1"].share; share > 0.6 {
		t.Errorf("the other has %v of the limit while the first may still count", share)
	}
	w.run(3*time.Second, rng)
	if share := w.replicas["r1"].share; share < 0.99 {
		t.Errorf("the other has %v of the limit, want all", share)
	}
}

func TestARestartOfTheControlPlaneChangesNothing(t *testing.T) {
	w := newWorld(1000, 1000, 5*time.Millisecond, constant(2000), constant(10), constant(10))
	rng := rand.New(rand.NewPCG(5, 6))
	w.run(5*time.Second, rng)
	hot := w.replicas["r0"].share
	w.allocator, w.events = lease.NewAllocator(), nil
	w.run(20*time.Second, rng) // without one: all go on
	if is := w.replicas["r0"].share; is != hot {
		t.Errorf("share %v without a control plane, was %v", is, hot)
	}
	w.connect("r0")
	w.run(time.Second, rng)
	w.connect("r1")
	w.connect("r2")
	w.run(20*time.Second, rng)
	if w.most > 1.0001 {
		t.Errorf("shares in use added up to %v", w.most)
	}
	if is := w.replicas["r0"].share; math.Abs(is-hot) > 0.1 {
		t.Errorf("share %v after the restart, was %v", is, hot)
	}
}

func TestANewReplicaGetsItsShareFromTheOthers(t *testing.T) {
	w := newWorld(1000, 1000, 5*time.Millisecond, constant(2000))
	rng := rand.New(rand.NewPCG(7, 8))
	w.run(12*time.Second, rng)
	w.replicas["r1"] = &replica{demand: constant(2000), bucket: bucket{rate: 1000, burst: 1000}, up: true}
	w.connect("r1")
	w.run(3*time.Second, rng)
	if share := w.replicas["r1"].share; share < 0.4 || w.most > 1.0001 {
		t.Errorf("the new one has %v, and shares added up to %v", share, w.most)
	}
}
