package upstream_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// server takes a time for each request, and can work on so many at once; others wait
// for their turn.
type server struct {
	turns chan struct{}
	took  time.Duration
}

func newServer(atOnce int, took time.Duration) *server {
	return &server{turns: make(chan struct{}, atOnce), took: took}
}

func (s *server) work() {
	s.turns <- struct{}{}
	time.Sleep(s.took)
	<-s.turns
}

// The limit follows what the server can do at once, far below what clients would
// send, so that requests which are let in do not wait.
func TestAdaptiveConcurrencyFindsTheLimit(t *testing.T) {
	for _, atOnce := range []int{5, 60} {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(t, upstream.Config{Adaptive: &upstream.Adaptive{}}, nil, endpoints(1))
			s := newServer(atOnce, 10*time.Millisecond)
			target := pick(t, b, upstream.Options{})
			var good, refused atomic.Int64
			var slowest atomic.Int64
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 300 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						p, err := b.Request(upstream.High)
						if err != nil {
							var overflow *upstream.OverflowError
							if !errors.As(err, &overflow) || overflow.Limit != upstream.Concurrency {
								t.Errorf("error %v", err)
							}
							refused.Add(1)
							time.Sleep(5 * time.Millisecond)
							continue
						}
						call := target.Begin()
						start := time.Now()
						s.work()
						slowest.Store(max(slowest.Load(), int64(time.Since(start))))
						call.Report(fine)
						call.End()
						p.Release()
						good.Add(1)
					}
				})
			}
			time.Sleep(5 * time.Second)
			good.Store(0)
			slowest.Store(0)
			time.Sleep(5 * time.Second)
			limit := limitOf(b, "adaptive concurrency")
			close(stop)
			wg.Wait()
			t.Logf("%d at once: limit %d, %d answered, %d refused, the slowest took %v",
				atOnce, limit.Max, good.Load(), refused.Load(), time.Duration(slowest.Load()))
			capacity := float64(atOnce) * 5 * 100 // 10 ms each
			if got := float64(good.Load()); got < capacity*0.9 {
				t.Errorf("%d at once: %.0f requests of the %.0f that the server can answer", atOnce, got, capacity)
			}
			if most := 50 * time.Millisecond; time.Duration(slowest.Load()) > most {
				t.Errorf("%d at once: a request took %v with a limit of %d", atOnce, time.Duration(slowest.Load()), limit.Max)
			}
			if refused.Load() == 0 || limit.Overflow == 0 {
				t.Errorf("%d at once: nothing was refused", atOnce)
			}
		})
	}
}

// Near the limit the less important are refused first.
func TestPriorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t, upstream.Config{Adaptive: &upstream.Adaptive{MinRTTRequests: 1}}, nil, endpoints(1))
		target := pick(t, b, upstream.Options{})
		answer(target, upstream.Outcome{Status: 200, Latency: time.Millisecond}) // from before the measurement
		time.Sleep(time.Second)
		answer(target, upstream.Outcome{Status: 200, Latency: time.Millisecond})
		if got := limitOf(b, "adaptive concurrency").Max; got != 100 {
			t.Fatalf("limit %d", got)
		}
		admitted := func(p upstream.Priority) (permits []upstream.Permit) {
			for {
				permit, err := b.Request(p)
				if err != nil {
					return permits
				}
				permits = append(permits, permit)
			}
		}
		total := 0
		for _, c := range []struct {
			p    upstream.Priority
			want int
		}{{upstream.Low, 75}, {upstream.Normal, 90}, {upstream.High, 100}, {upstream.Critical, 110}} {
			permits := admitted(c.p)
			if total += len(permits); total != c.want {
				t.Errorf("%d requests under way with priority %d, want %d", total, c.p, c.want)
			}
		}
	})
}
