package upstream_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

func requests(t testing.TB, b *upstream.Backend, n int) {
	t.Helper()
	for range n {
		p, err := b.Request(upstream.Normal)
		if err != nil {
			t.Fatal(err)
		}
		p.Release()
	}
}

// retries asks for n retries and returns how many were allowed.
func retries(t testing.TB, b *upstream.Backend, n int) int {
	t.Helper()
	allowed := 0
	for range n {
		p, err := b.Retry()
		if err == nil {
			allowed++
			p.Release()
		} else if !errors.Is(err, upstream.ErrBudget) {
			t.Fatal(err)
		}
	}
	return allowed
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t, upstream.Config{}, nil, nil)
		if got := retries(t, b, 100); got != 10 {
			t.Errorf("%d retries without requests, want 10 a second", got)
		}
		requests(t, b, 1000)
		if got := retries(t, b, 1000); got != 200 {
			t.Errorf("%d retries more, want 20 %% of 1000", got)
		}
		time.Sleep(time.Second)
		if got := retries(t, b, 100); got != 10 {
			t.Errorf("%d retries in the next second, want 10", got)
		}
		time.Sleep(10 * time.Second)
		if got := retries(t, b, 100); got != 10 {
			t.Errorf("%d retries after the interval, want 10", got)
		}
		none := newBackend(t, upstream.Config{Budget: upstream.BudgetConfig{Percent: -1, MinCount: -1}}, nil, nil)
		requests(t, none, 1000)
		if got := retries(t, none, 10); got != 0 {
			t.Errorf("%d retries where there is no budget for any", got)
		}
		off := newBackend(t, upstream.Config{Budget: upstream.BudgetConfig{Off: true}}, nil, nil)
		if got := retries(t, off, 1000); got != 1000 {
			t.Errorf("%d of 1000 retries without a budget", got)
		}
	})
}

// Over a long time, retries have their part of the requests and the few that are
// always allowed: not more, and hardly less.
func TestBudgetInTheLongRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const percent, least = 10, 5
		b := newBackend(t, upstream.Config{Budget: upstream.BudgetConfig{
			Percent: percent, Interval: time.Second, MinCount: least, MinInterval: time.Second,
		}}, nil, nil)
		start := time.Now()
		asked, allowed := 0, 0
		for range 5000 {
			time.Sleep(rand.N(40 * time.Millisecond))
			n := rand.IntN(30)
			requests(t, b, n)
			asked += n
			allowed += retries(t, b, rand.IntN(9)) // more than allowed
		}
		want := float64(asked*percent)/100 + least*time.Since(start).Seconds()
		// An interval is counted in tenths, the oldest of which ends early.
		if got := float64(allowed); got > want*10/9 || got < want*0.85 {
			t.Errorf("%.0f retries, want about %.0f", got, want)
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	backend := newBackend(b, upstream.Config{Circuit: upstream.CircuitLimits{Requests: 1000}}, nil, nil)
	b.ReportAllocs()
	for b.Loop() {
		p, err := backend.Request(upstream.Normal)
		if err != nil {
			b.Fatal(err)
		}
		p.Release()
	}
}

// A backend that is down gets a fifth more than was asked for, whatever its clients'
// routes say.
func TestRetriesDoNotMakeAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t, upstream.Config{}, nil, endpoints(1))
		policy := upstream.RetryPolicy{Attempts: 5, On: upstream.On5xx, Backoff: upstream.DefaultBackoff}
		attempts := 0
		const seconds, perSecond = 20, 1000
		for range seconds * perSecond {
			time.Sleep(time.Second / perSecond)
			p, err := b.Request(upstream.Normal)
			if err != nil {
				t.Fatal(err)
			}
			for number := 1; ; number++ {
				attempts++
				if !policy.Decide(get, upstream.Attempt{Number: number, Status: 503, Replayable: true}).Retry {
					break
				}
				retry, err := b.Retry()
				if err != nil {
					break
				}
				retry.Release()
			}
			p.Release()
		}
		if most := float64(seconds*perSecond)*1.2 + 11*seconds*1.2; float64(attempts) > most {
			t.Errorf("%d attempts for %d requests", attempts, seconds*perSecond)
		}
	})
}
