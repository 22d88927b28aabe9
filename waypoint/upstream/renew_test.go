package upstream_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

func TestConnectionsAreNotUsedBeyondTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, p := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
			d := &fakeDialer{}
			b := newBackend(t, upstream.Config{Pool: upstream.PoolConfig{MaxDuration: time.Minute}}, d, endpoints(1))
			for range 2 {
				x := send(t, b, p)
				finish(t, &x)
				time.Sleep(25 * time.Second)
			}
			if d.dialled() != 1 {
				t.Errorf("%v: %d connections within the time", p, d.dialled())
			}
			under := send(t, b, p) // 50 s: it may end when it likes
			time.Sleep(10 * time.Second)
			x := send(t, b, p)
			if d.dialled() != 2 {
				t.Errorf("%v: %d connections after the time", p, d.dialled())
			}
			finish(t, &under)
			finish(t, &x)
			if open := d.open(); len(open) != 1 {
				t.Errorf("%v: %d are open", p, len(open))
			}
			b.Close()
		}
	})
}

// tls is one way to speak it.
type tls struct{ name string }

func (*tls) Secure(_ context.Context, conn net.Conn, _ ...string) (net.Conn, error) { return conn, nil }

func TestOtherTLSRenewsConnections(t *testing.T) {
	d := &fakeDialer{}
	e := endpoints(1)
	b := newBackend(t, upstream.Config{}, d, e)
	first, second := &tls{"a"}, &tls{"b"}
	for _, step := range []struct {
		secure upstream.Securer
		want   int
	}{{nil, 1}, {first, 2}, {first, 2}, {second, 3}, {nil, 4}} {
		e[0].Secure = step.secure
		if err := b.Update(e); err != nil {
			t.Fatal(err)
		}
		x := send(t, b, upstream.HTTP1)
		finish(t, &x)
		if d.dialled() != step.want || len(d.open()) != 1 {
			t.Errorf("%v: %d connections made, %d open", step.secure, d.dialled(), len(d.open()))
		}
	}
	if n := len(b.Status().Targets); n != 1 {
		t.Errorf("%d targets", n)
	}
}

func TestDialingHasItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDialer{before: func(ctx context.Context, _ *upstream.Endpoint) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		b := newBackend(t, upstream.Config{Pool: upstream.PoolConfig{ConnectTimeout: 3 * time.Second}}, d, endpoints(1))
		begin := time.Now()
		x, err := b.Send(t.Context(), upstream.HTTP1, upstream.Options{}, get, true)
		var connect *upstream.ConnectError
		if !errors.As(err, &connect) || !message.Unsent(err) || time.Since(begin) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if upstream.FailureOf(t.Context(), err) != upstream.ConnectFailed {
			t.Errorf("%v is no failure to connect", err)
		}
		_ = x.Close()
	})
}

func TestRetriesMayGoFarther(t *testing.T) {
	e := endpoints(4)
	for i, region := range []string{"east", "east", "west", "north"} {
		e[i].Place.Region = region
	}
	b := newBackend(t, upstream.Config{
		LoadBalancing: workload.LoadBalancing{Mode: workload.ModeFailover, Preference: []workload.Scope{workload.ScopeRegion}},
		Place:         upstream.Place{Locality: workload.Locality{Region: "east"}}, FailoverTo: "west",
	}, nil, e)
	region := func(o upstream.Options) (string, *upstream.Target) {
		target := pick(t, b, o)
		return target.Endpoint().Place.Region, target
	}
	for range 20 {
		near, first := region(upstream.Options{})
		if near != "east" {
			t.Errorf("first in %s", near)
		}
		if again, _ := region(upstream.Options{Avoid: []*upstream.Target{first}}); again != "east" {
			t.Errorf("the second, as near, in %s", again)
		}
		other, second := region(upstream.Options{Avoid: []*upstream.Target{first}, Farther: true})
		if other != "west" {
			t.Errorf("the second, farther, in %s", other)
		}
		if last, _ := region(upstream.Options{Avoid: []*upstream.Target{first, second}, Farther: true}); last != "north" {
			t.Errorf("the third in %s", last)
		}
	}
}

func TestEnvoysWordsForRetries(t *testing.T) {
	request := &message.Request{Method: "POST"}
	failed := func(f upstream.Failure) upstream.Attempt {
		return upstream.Attempt{Number: 1, Failure: f, GRPC: -1, Replayable: true}
	}
	answered := func(status, grpc int, h message.Header) upstream.Attempt {
		return upstream.Attempt{Number: 1, Status: status, GRPC: grpc, Header: h, Replayable: true}
	}
	limited := message.Header{{Name: "x-envoy-ratelimited", Value: "true"}}
	for word, cases := range map[string]map[bool][]upstream.Attempt{
		"5xx": {
			true:  {answered(500, -1, nil), answered(504, -1, nil), failed(upstream.Reset), failed(upstream.TimedOut), failed(upstream.ConnectFailed), failed(upstream.Refused)},
			false: {answered(429, -1, nil), answered(200, 14, nil), answered(503, -1, limited)},
		},
		"gateway-error":          {true: {answered(502, -1, nil), failed(upstream.Reset)}, false: {answered(500, -1, nil)}},
		"reset":                  {true: {failed(upstream.Reset), failed(upstream.TimedOut)}, false: {answered(503, -1, nil)}},
		"reset-before-request":   {true: {failed(upstream.Refused)}, false: {failed(upstream.Reset)}},
		"connect-failure":        {true: {failed(upstream.ConnectFailed)}, false: {failed(upstream.Refused), failed(upstream.Reset)}},
		"refused-stream":         {true: {failed(upstream.Refused)}, false: {failed(upstream.ConnectFailed)}},
		"retriable-4xx":          {true: {answered(409, -1, nil)}, false: {answered(404, -1, nil)}},
		"envoy-ratelimited":      {true: {answered(429, -1, limited)}, false: {answered(429, -1, nil)}},
		"retriable-status-codes": {false: {answered(503, -1, nil)}},
		"cancelled":              {true: {answered(200, 1, nil)}, false: {answered(200, 14, nil)}},
		"deadline-exceeded":      {true: {answered(200, 4, nil)}},
		"resource-exhausted":     {true: {answered(200, 8, nil)}},
		"internal":               {true: {answered(200, 13, nil)}},
		"unavailable":            {true: {answered(200, 14, nil)}, false: {answered(503, -1, nil)}},
	} {
		p := &upstream.RetryPolicy{Attempts: 1, AnyMethod: true}
		if !p.Add(word) {
			t.Errorf("%s is no word", word)
		}
		for want, attempts := range cases {
			for _, a := range attempts {
				if d := p.Decide(request, a); d.Retry != want {
					t.Errorf("%s, %+v: %+v", word, a, d)
				}
			}
		}
	}
	if p := new(upstream.RetryPolicy); p.Add("sometimes") || p.On != 0 || p.GRPC != 0 {
		t.Error("takes any word")
	}
}
