package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

func send(t testing.TB, b *upstream.Backend, p upstream.Protocol) upstream.Exchange {
	t.Helper()
	x, err := b.Send(t.Context(), p, upstream.Options{}, get, true)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func finish(t testing.TB, x *upstream.Exchange) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func limitOf(b *upstream.Backend, name string) upstream.LimitStatus {
	for _, l := range b.Status().Limits {
		if l.Limit == name {
			return l
		}
	}
	return upstream.LimitStatus{}
}

// The latest used connection is used next, so that those which are not needed grow
// old.
func TestHTTP1ConnectionsAreReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDialer{}
		b := newBackend(t, upstream.Config{Pool: upstream.PoolConfig{IdleTimeout: time.Minute}}, d, endpoints(1))
		first, second := send(t, b, upstream.HTTP1), send(t, b, upstream.HTTP1)
		if d.dialled() != 2 || first.Reused() {
			t.Fatalf("%d connections for two requests at the same time", d.dialled())
		}
		finish(t, &first)
		finish(t, &second)
		finish(t, &second) // twice does no harm
		for range 7 {
			time.Sleep(10 * time.Second)
			x := send(t, b, upstream.HTTP1)
			if !x.Reused() {
				t.Error("a new connection with idle ones left")
			}
			finish(t, &x)
		}
		if d.dialled() != 2 {
			t.Errorf("%d connections were made", d.dialled())
		}
		if open := d.open(); len(open) != 1 || open[0].requests != 8 {
			t.Errorf("%d connections are open; the one that was not needed should be closed", len(open))
		}
		time.Sleep(time.Minute + time.Millisecond)
		if open := d.open(); len(open) != 0 {
			t.Errorf("%d connections are open after the idle timeout", len(open))
		}
		if got := limitOf(b, "connections").Active; got != 0 {
			t.Errorf("%d connections are counted", got)
		}
	})
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	d := &fakeDialer{}
	b := newBackend(t, upstream.Config{Pool: upstream.PoolConfig{MaxIdle: 2, MaxRequests: 3}}, d, endpoints(1))
	var all []upstream.Exchange
	for range 5 {
		all = append(all, send(t, b, upstream.HTTP1))
	}
	for i := range all {
		finish(t, &all[i])
	}
	if n := len(d.open()); n != 2 {
		t.Errorf("%d idle connections, want 2", n)
	}
	for range 20 {
		x := send(t, b, upstream.HTTP1)
		finish(t, &x)
	}
	for _, c := range d.clients {
		if c.requests > 3 {
			t.Errorf("%d requests on one connection", c.requests)
		}
	}
}

// A connection that the server closed when it was idle is not the request's problem.
func TestStaleConnectionsAreReplaced(t *testing.T) {
	d := &fakeDialer{}
	b := newBackend(t, upstream.Config{}, d, endpoints(1))
	var all []upstream.Exchange
	for range 6 {
		all = append(all, send(t, b, upstream.HTTP1))
	}
	for i := range all {
		finish(t, &all[i])
	}
	for _, c := range d.open() {
		c.set(func(c *fakeClient) { c.stale = true })
	}
	x := send(t, b, upstream.HTTP1)
	if x.Reused() {
		t.Error("a stale connection carried the request")
	}
	finish(t, &x)
	for i, c := range d.open() {
		if i == 0 {
			_ = c.Close() // the server did, and it was seen
		}
	}
	for range 10 {
		x := send(t, b, upstream.HTTP1)
		finish(t, &x)
	}
}

func TestHTTP2ConnectionsAreShared(t *testing.T) {
	d := &fakeDialer{streams: 3}
	b := newBackend(t, upstream.Config{}, d, endpoints(1))
	var all []upstream.Exchange
	for range 8 {
		all = append(all, send(t, b, upstream.HTTP2))
	}
	if d.dialled() != 3 {
		t.Errorf("%d connections for 8 requests where each takes 3", d.dialled())
	}
	for i := range all {
		finish(t, &all[i])
	}
	own := &fakeDialer{}
	c := newBackend(t, upstream.Config{Pool: upstream.PoolConfig{MaxStreams: 4}}, own, endpoints(1))
	for range 8 {
		x := send(t, c, upstream.HTTP2)
		defer finish(t, &x)
	}
	if own.dialled() != 2 {
		t.Errorf("%d connections for 8 requests with at most 4 on one", own.dialled())
	}
	// One that goes away takes no more, and ends when its requests have.
	going := own.open()[0]
	going.set(func(c *fakeClient) { c.goingOff = true })
	for range 4 {
		x := send(t, c, upstream.HTTP2)
		defer finish(t, &x)
	}
	if got := going.requests; got != 4 {
		t.Errorf("%d requests on a connection that takes no more", got)
	}
}

// A hundred requests that wait for the same connection learn together that the server
// takes only a few at a time; none of them fails.
func TestHTTP2ServersThatTakeFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDialer{streams: 7, before: func(context.Context, *upstream.Endpoint) error {
			time.Sleep(time.Millisecond)
			return nil
		}}
		b := newBackend(t, upstream.Config{}, d, endpoints(1))
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				x, err := b.Send(t.Context(), upstream.HTTP2, upstream.Options{}, get, true)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Second)
				finish(t, &x)
			})
		}
		wg.Wait()
		if n := d.dialled(); n != 15 {
			t.Errorf("%d connections, want 15 for 100 requests where each takes 7", n)
		}
	})
}

// Many requests at once make one HTTP/2 connection; when it cannot be made, all fail
// at once.
func TestHTTP2IsDialledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no route")
		var fail atomic.Bool
		d := &fakeDialer{before: func(context.Context, *upstream.Endpoint) error {
			time.Sleep(time.Second)
			if fail.Load() {
				return broken
			}
			return nil
		}}
		b := newBackend(t, upstream.Config{}, d, endpoints(1))
		all := func() (errs []error) {
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					x, err := b.Send(t.Context(), upstream.HTTP2, upstream.Options{}, get, true)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						errs = append(errs, err)
						return
					}
					finish(t, &x)
				})
			}
			wg.Wait()
			return errs
		}
		fail.Store(true)
		start := time.Now()
		errs := all()
		if took := time.Since(start); len(errs) != 50 || took != time.Second {
			t.Errorf("%d of 50 failed within %v", len(errs), took)
		}
		for _, err := range errs {
			var connect *upstream.ConnectError
			if !errors.As(err, &connect) || !errors.Is(err, broken) || !message.Unsent(err) {
				t.Fatalf("error %v", err)
			}
		}
		fail.Store(false)
		if errs := all(); len(errs) != 0 || d.dialled() != 1 {
			t.Errorf("%d failed, %d connections", len(errs), d.dialled())
		}
	})
}

// Who dials for all may give up without failing the others.
func TestOneWhoGivesUpDoesNotFailOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDialer{before: func(ctx context.Context, _ *upstream.Endpoint) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
				return nil
			}
		}}
		b := newBackend(t, upstream.Config{}, d, endpoints(1))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.Send(ctx, upstream.HTTP2, upstream.Options{}, get, true); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		})
		synctest.Wait()
		for range 5 {
			wg.Go(func() {
				x := send(t, b, upstream.HTTP2)
				finish(t, &x)
			})
		}
		wg.Wait()
		if d.dialled() != 1 {
			t.Errorf("%d connections", d.dialled())
		}
	})
}

func TestCircuitLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDialer{}
		b := newBackend(t, upstream.Config{Circuit: upstream.CircuitLimits{Connections: 2, Pending: 1, Requests: 3, Retries: 1}}, d, endpoints(2))
		first, second := send(t, b, upstream.HTTP1), send(t, b, upstream.HTTP1)
		// The third waits, the fourth is one too many.
		var third upstream.Exchange
		done := make(chan struct{})
		o := upstream.Options{Avoid: []*upstream.Target{first.Target()}}
		if first.Target() == second.Target() {
			o = upstream.Options{}
		}
		target := first.Target()
		go func() {
			defer close(done)
			var err error
			third, err = b.Send(t.Context(), upstream.HTTP1, upstream.Options{Session: tokenOf(target)}, get, true)
			if err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		_, err := b.Send(t.Context(), upstream.HTTP1, o, get, true)
		var overflow *upstream.OverflowError
		if !errors.As(err, &overflow) || overflow.Limit != upstream.Pending || !message.Unsent(err) {
			t.Errorf("error %v, want an overflow of pending requests", err)
		}
		finish(t, &first)
		<-done
		if !third.Reused() || d.dialled() != 2 {
			t.Errorf("who waited did not get the connection that became free: %d dialled", d.dialled())
		}
		finish(t, &second)
		finish(t, &third)

		var permits []upstream.Permit
		for range 3 {
			p, err := b.Request(upstream.Normal)
			if err != nil {
				t.Fatal(err)
			}
			permits = append(permits, p)
		}
		if _, err := b.Request(upstream.Normal); !errors.As(err, &overflow) || overflow.Limit != upstream.Requests {
			t.Errorf("error %v, want an overflow of requests", err)
		}
		permits[0].Release()
		permits[0].Release() // twice does no harm
		if p, err := b.Request(upstream.Normal); err != nil {
			t.Error(err)
		} else {
			p.Release()
		}
		retry, err := b.Retry()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Retry(); !errors.As(err, &overflow) || overflow.Limit != upstream.Retries {
			t.Errorf("error %v, want an overflow of retries", err)
		}
		retry.Release()
		if got := limitOf(b, "requests"); got.Active != 2 || got.Max != 3 || got.Overflow != 1 {
			t.Errorf("requests: %+v", got)
		}
	})
}

func tokenOf(target *upstream.Target) uint64 {
	return upstream.SessionPolicy{}.Read(target.Token(upstream.Session{}, someDay), someDay).Target
}

// An idle connection elsewhere makes room for one that is needed.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	d := &fakeDialer{}
	b := newBackend(t, upstream.Config{Balancer: upstream.RoundRobin, Circuit: upstream.CircuitLimits{Connections: 1}}, d, endpoints(4))
	for range 20 {
		x := send(t, b, upstream.HTTP1)
		finish(t, &x)
		if n := len(d.open()); n > 1 {
			t.Fatalf("%d connections are open", n)
		}
	}
	busy := send(t, b, upstream.HTTP1)
	defer finish(t, &busy)
	var overflow *upstream.OverflowError
	_, err := b.Send(t.Context(), upstream.HTTP1, upstream.Options{Avoid: []*upstream.Target{busy.Target()}}, get, true)
	if !errors.As(err, &overflow) || overflow.Limit != upstream.Connections {
		t.Errorf("error %v, want an overflow of connections", err)
	}
}

// The connections of an endpoint that is gone end with what is under way on them.
func TestGoneEndpointsAreDrained(t *testing.T) {
	d := &fakeDialer{}
	e := endpoints(2)
	b := newBackend(t, upstream.Config{}, d, e)
	var under []upstream.Exchange
	for range 10 {
		under = append(under, send(t, b, upstream.HTTP1))
	}
	for i := range under[:5] {
		finish(t, &under[i])
	}
	if err := b.Update(nil); err != nil {
		t.Fatal(err)
	}
	if n := len(d.open()); n != 5 {
		t.Errorf("%d connections are open, want those of the 5 requests under way", n)
	}
	for i := range under[5:] {
		if _, err := under[5+i].Response(t.Context()); err != nil {
			t.Errorf("a request under way was cut: %v", err)
		}
		finish(t, &under[5+i])
	}
	if n := len(d.open()); n != 0 || limitOf(b, "connections").Active != 0 {
		t.Errorf("%d connections are open, %+v", n, limitOf(b, "connections"))
	}
}

func TestConnectFailuresAreReported(t *testing.T) {
	e := endpoints(3)
	d := &fakeDialer{before: func(_ context.Context, to *upstream.Endpoint) error {
		if to.Addr == e[1].Addr {
			return errors.New("connection refused")
		}
		return nil
	}}
	b := newBackend(t, upstream.Config{Outlier: upstream.DefaultOutlier()}, d, e)
	failures := 0
	for range 300 {
		x, err := b.Send(t.Context(), upstream.HTTP1, upstream.Options{}, get, true)
		if err != nil {
			failures++
			if x.Target() == nil || x.Target().Endpoint().Addr != e[1].Addr || upstream.FailureOf(t.Context(), err) != upstream.ConnectFailed {
				t.Errorf("target %v, error %v", x.Target(), err)
			}
			continue
		}
		x.Report(fine)
		finish(t, &x)
	}
	if failures != 5 || serving(b, e[1].Addr) {
		t.Errorf("%d failures, want 5 and an ejection", failures)
	}
}

func TestFailureOf(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	for i, c := range []struct {
		ctx  context.Context
		err  error
		want upstream.Failure
	}{
		{t.Context(), nil, upstream.NoFailure},
		{t.Context(), &upstream.OverflowError{}, upstream.NoFailure},
		{t.Context(), &upstream.NoEndpointsError{}, upstream.NoFailure},
		{t.Context(), &message.UnsentError{Err: &upstream.ConnectError{Err: errClosed}}, upstream.ConnectFailed},
		{t.Context(), &message.UnsentError{Err: errClosed}, upstream.Refused},
		{t.Context(), &message.ResetError{Remote: true}, upstream.Reset},
		{ended, context.Canceled, upstream.NoFailure},
		{late, errClosed, upstream.TimedOut},
		{late, &message.UnsentError{Err: context.DeadlineExceeded}, upstream.ConnectFailed},
		{t.Context(), &message.UnsentError{Err: &upstream.ConnectError{Err: context.DeadlineExceeded}}, upstream.ConnectFailed},
		{t.Context(), context.DeadlineExceeded, upstream.TimedOut},
	} {
		if got := upstream.FailureOf(c.ctx, c.err); got != c.want {
			t.Errorf("%d: %v is %v, want %v", i, c.err, got, c.want)
		}
	}
}

// Random requests, waits, cancellations, failures and changes: no connection ever
// carries more than it can, no limit is exceeded, and nothing is lost.
func TestPoolModel(t *testing.T) {
	for _, protocol := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
		for _, limit := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%v/connections=%d", protocol, limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := &fakeDialer{streams: 3, before: func(ctx context.Context, _ *upstream.Endpoint) error {
						select {
						case <-ctx.Done():
							return ctx.Err()
						case <-time.After(rand.N(3 * time.Millisecond)):
						}
						if rand.IntN(5) == 0 {
							return errClosed
						}
						return nil
					}}
					e := endpoints(3)
					b := newBackend(t, upstream.Config{
						Circuit: upstream.CircuitLimits{Connections: limit},
						Pool:    upstream.PoolConfig{MaxIdle: 2, IdleTimeout: 5 * time.Millisecond, MaxRequests: 7},
					}, d, e)
					var wg sync.WaitGroup
					var ok atomic.Int64
					for range 30 {
						wg.Go(func() {
							for range 60 {
								ctx, cancel := context.WithTimeout(t.Context(), rand.N(20*time.Millisecond))
								x, err := b.Send(ctx, protocol, upstream.Options{}, get, true)
								if err == nil {
									ok.Add(1)
									time.Sleep(rand.N(2 * time.Millisecond))
									if rand.IntN(10) == 0 {
										x.ClientExchange.(*fakeExchange).client.set(func(c *fakeClient) { c.goingOff = true })
									}
									finish(t, &x)
								} else if !message.Unsent(err) {
									t.Errorf("error %v", err)
								}
								cancel()
								if rand.IntN(4) == 0 {
									time.Sleep(rand.N(8 * time.Millisecond))
								}
							}
						})
					}
					stop := make(chan struct{})
					wg.Go(func() {
						for {
							select {
							case <-stop:
								return
							case <-time.After(time.Millisecond):
							}
							if n := len(d.open()); limit > 0 && n > limit {
								t.Errorf("%d connections are open, more than %d", n, limit)
							}
							if rand.IntN(10) == 0 {
								if err := b.Update(e[:1+rand.IntN(3)]); err != nil {
									t.Error(err)
								}
							}
						}
					})
					time.Sleep(300 * time.Millisecond)
					close(stop)
					wg.Wait()
					time.Sleep(10 * time.Millisecond)
					if n, counted := len(d.open()), limitOf(b, "connections").Active; n != 0 || counted != 0 {
						t.Errorf("%d connections are open and %d counted after the idle timeout", n, counted)
					}
					if pending := limitOf(b, "pending requests").Active; pending != 0 {
						t.Errorf("%d requests are pending", pending)
					}
					for _, s := range b.Status().Targets {
						if s.Active != 0 || s.Waiting != 0 {
							t.Errorf("%+v", s)
						}
					}
					if ok.Load() < 20 {
						t.Errorf("%d of 1800 requests were sent", ok.Load())
					}
				})
			})
		}
	}
}

func BenchmarkSend(b *testing.B) {
	for _, p := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
		b.Run(p.String(), func(b *testing.B) {
			backend := newBackend(b, upstream.Config{Outlier: upstream.DefaultOutlier()}, &quickDialer{}, endpoints(3))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					x, err := backend.Send(b.Context(), p, upstream.Options{}, get, true)
					if err != nil {
						b.Error(err)
						return
					}
					x.Report(fine)
					_ = x.Close()
				}
			})
		})
	}
}

// quickDialer makes clients that cost nothing, to measure the pool alone.
type quickDialer struct{}

func (*quickDialer) Dial(context.Context, *upstream.Endpoint, upstream.Protocol) (message.Client, error) {
	return &quickClient{}, nil
}

type quickClient struct{ quickExchange }

func (c *quickClient) Open(context.Context, *message.Request, bool) (message.ClientExchange, error) {
	return &c.quickExchange, nil
}
func (*quickClient) Usable() bool          { return true }
func (*quickClient) Active() int           { return 0 }
func (*quickClient) Done() <-chan struct{} { return nil }
func (*quickClient) Close() error          { return nil }

type quickExchange struct{ message.ClientExchange }

func (*quickExchange) Close() error { return nil }

// Who gives up in the very moment in which it gets a connection, or leave to make one,
// loses neither.
func TestGivingUpLosesNothing(t *testing.T) {
	for range 100 {
		for _, dies := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDialer{}
				b := newBackend(t, upstream.Config{Circuit: upstream.CircuitLimits{Connections: 1}}, d, endpoints(1))
				first := send(t, b, upstream.HTTP1)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					x, err := b.Send(ctx, upstream.HTTP1, upstream.Options{}, get, true)
					if err == nil {
						finish(t, &x)
					} else if !errors.Is(err, context.Canceled) || !message.Unsent(err) {
						t.Errorf("error %v", err)
					}
				}()
				synctest.Wait()
				if dies {
					d.open()[0].set(func(c *fakeClient) { c.goingOff = true })
				}
				cancel()
				finish(t, &first)
				<-done
				x := send(t, b, upstream.HTTP1)
				if x.Reused() == dies {
					t.Errorf("the connection is gone: %v, it was reused: %v", dies, x.Reused())
				}
				finish(t, &x)
				if got := limitOf(b, "connections").Active; got != 1 {
					t.Errorf("%d connections are counted", got)
				}
			})
		}
	}
}

func TestConnectionsOutsideOfPoolsCount(t *testing.T) {
	b := newBackend(t, upstream.Config{Circuit: upstream.CircuitLimits{Connections: 2}}, &fakeDialer{}, endpoints(1))
	x := send(t, b, upstream.HTTP1)
	p, err := b.Connection()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Connection(); err == nil || err.Error() != "shop/web:80: the limit of connections is reached" {
		t.Errorf("error %v", err)
	}
	p.Release()
	finish(t, &x)
}
