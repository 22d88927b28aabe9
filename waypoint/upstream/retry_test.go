package upstream_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

func TestRetryDecisions(t *testing.T) {
	method := func(m string) *message.Request { return &message.Request{Method: m, Path: "/"} }
	keyed := &message.Request{Method: "POST", Header: message.Header{{Name: "idempotency-key", Value: "7"}}}
	upgrade := &message.Request{Method: "GET", Protocol: "websocket"}
	codes := upstream.RetryPolicy{Attempts: 2}
	codes.Codes.Add(500)
	codes.Codes.Add(503)
	anything := upstream.RetryPolicy{Attempts: 2, On: upstream.On5xx, AnyMethod: true}
	standard := *upstream.DefaultRetry()

	answered := func(status int, header ...message.Field) upstream.Attempt {
		return upstream.Attempt{Status: status, Header: header}
	}
	broken := func(f upstream.Failure) upstream.Attempt { return upstream.Attempt{Failure: f} }
	with := func(a upstream.Attempt, change func(*upstream.Attempt)) upstream.Attempt {
		change(&a)
		return a
	}
	const (
		again      = ""
		never      = "-" // no retry, and no reason to tell
		used       = "no attempts are left"
		unsafe     = "the method is not idempotent"
		once       = "the request cannot be sent again from its beginning"
		longer     = "the server asks to wait longer"
		outOfTime  = "no time is left"
		retryAfter = "retry-after"
		pushback   = "grpc-retry-pushback-ms"
	)
	for _, c := range []struct {
		name   string
		policy upstream.RetryPolicy
		r      *message.Request
		a      upstream.Attempt
		want   string
	}{
		{"nothing by default", upstream.RetryPolicy{}, method("GET"), broken(upstream.ConnectFailed), never},
		{"connect failure", standard, method("POST"), broken(upstream.ConnectFailed), again},
		{"refused", standard, method("POST"), broken(upstream.Refused), again},
		{"reset is no standard condition", standard, method("GET"), broken(upstream.Reset), never},
		{"503 is no standard condition", standard, method("GET"), answered(503), never},
		{"gRPC unavailable", standard, method("POST"), upstream.Attempt{Status: 200, GRPC: 14}, again},
		{"gRPC cancelled", standard, method("POST"), upstream.Attempt{Status: 200, GRPC: 1}, again},
		{"gRPC internal", standard, method("POST"), upstream.Attempt{Status: 200, GRPC: 13}, never},
		{"gRPC unheard of", standard, method("POST"), upstream.Attempt{Status: 200, GRPC: 4711}, never},
		{"gRPC ok", standard, method("POST"), answered(200), never},
		{"code", codes, method("GET"), answered(503), again},
		{"another code", codes, method("GET"), answered(502), never},
		{"code of a POST", codes, method("POST"), answered(503), unsafe},
		{"code of a POST with a key", codes, keyed, answered(503), again},
		{"code of a PUT", codes, method("PUT"), answered(500), again},
		{"code of an upgrade", codes, upgrade, answered(503), unsafe},
		{"code of a PATCH, vouched for", anything, method("PATCH"), answered(500), again},
		{"reset is 5xx", anything, method("POST"), broken(upstream.Reset), again},
		{"timeout is 5xx", anything, method("POST"), broken(upstream.TimedOut), again},
		{"499", anything, method("GET"), answered(499), never},
		{"409", upstream.RetryPolicy{Attempts: 1, On: upstream.On409}, method("GET"), answered(409), again},
		{"gateway error", upstream.RetryPolicy{Attempts: 1, On: upstream.OnGatewayError}, method("GET"), answered(504), again},
		{"no gateway error", upstream.RetryPolicy{Attempts: 1, On: upstream.OnGatewayError}, method("GET"), answered(500), never},
		{"last attempt", codes, method("GET"), with(answered(503), func(a *upstream.Attempt) { a.Number = 2 }), again},
		{"one too many", codes, method("GET"), with(answered(503), func(a *upstream.Attempt) { a.Number = 3 }), used},
		{"free ones do not count", codes, method("GET"), with(answered(503), func(a *upstream.Attempt) { a.Number, a.Free = 3, 1 }), again},
		{"content gone", codes, method("PUT"), with(answered(503), func(a *upstream.Attempt) { a.Replayable = false }), once},
		{"retry-after", codes, method("GET"), answered(503, message.Field{Name: retryAfter, Value: "3"}), again},
		{"retry-after too long", codes, method("GET"), answered(503, message.Field{Name: retryAfter, Value: "30"}), longer},
		{"retry-after a date by the server's clock", codes, method("GET"), answered(503, message.Field{Name: retryAfter, Value: "Fri, 31 Dec 1999 23:59:59 GMT"},
			message.Field{Name: "date", Value: "Fri, 31 Dec 1999 23:59:50 GMT"}), again},
		{"retry-after a date too late", codes, method("GET"), answered(503, message.Field{Name: retryAfter, Value: "Fri, 31 Dec 1999 23:59:59 GMT"},
			message.Field{Name: "date", Value: "Fri, 31 Dec 1999 23:59:40 GMT"}), longer},
		{"retry-after a date of an unknown clock", codes, method("GET"), answered(503, message.Field{Name: retryAfter, Value: "Fri, 31 Dec 1999 23:59:59 GMT"}), again},
		{"pushback never", standard, method("POST"), upstream.Attempt{Status: 200, GRPC: 14, Header: message.Header{{Name: pushback, Value: "-1"}}}, longer},
		{"pushback malformed", standard, method("POST"), upstream.Attempt{Status: 200, GRPC: 14, Header: message.Header{{Name: pushback, Value: "soon"}}}, longer},
		{"no time", codes, method("GET"), with(answered(503, message.Field{Name: retryAfter, Value: "3"}), func(a *upstream.Attempt) { a.Left = 3 * time.Second }), outOfTime},
		{"time", codes, method("GET"), with(answered(503, message.Field{Name: retryAfter, Value: "3"}), func(a *upstream.Attempt) { a.Left = 4 * time.Second }), again},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.a.Number == 0 {
				c.a.Number = 1
			}
			if c.want != once {
				c.a.Replayable = true
			}
			d := c.policy.Decide(c.r, c.a)
			if d.Retry != (c.want == again) || d.Free || !d.Retry && c.want != never && d.Reason != c.want || c.want == never && d.Reason != "" {
				t.Errorf("%+v, want %q", d, c.want)
			}
		})
	}
}

func TestDelaysBeforeRetries(t *testing.T) {
	get := &message.Request{Method: "GET"}
	p := upstream.RetryPolicy{Attempts: 9, On: upstream.On5xx, Backoff: upstream.Backoff{
		Floor: 100 * time.Millisecond, Base: 20 * time.Millisecond, Max: 70 * time.Millisecond,
	}}
	var longest [10]time.Duration
	for range 2000 {
		for n := 1; n < 10; n++ {
			d := p.Decide(get, upstream.Attempt{Number: n, Status: 500, Replayable: true})
			most := 100*time.Millisecond + min(20*time.Millisecond<<(n-1), 70*time.Millisecond)
			if !d.Retry || d.After < 100*time.Millisecond || d.After >= most {
				t.Fatalf("retry %d after %v, want from 100 ms to %v", n, d.After, most)
			}
			longest[n] = max(longest[n], d.After)
		}
	}
	if longest[1] < 115*time.Millisecond || longest[9] < 160*time.Millisecond {
		t.Errorf("delays do not scatter: at most %v", longest)
	}
	asked := message.Header{{Name: "retry-after", Value: "2"}}
	if d := p.Decide(get, upstream.Attempt{Number: 1, Status: 503, Header: asked, Replayable: true}); d.After != 2*time.Second {
		t.Errorf("after %v, the server asked for 2 s", d.After)
	}
	// Nobody has seen it, and another endpoint is asked: no reason to wait, the first time.
	def := upstream.DefaultRetry()
	if d := def.Decide(get, upstream.Attempt{Number: 1, Failure: upstream.ConnectFailed, Replayable: true}); !d.Retry || d.After != 0 {
		t.Errorf("%+v", d)
	}
	if (upstream.Backoff{}).Delay(1) != 0 {
		t.Error("no backoff is none")
	}
}

// A request that met a connection which the server was closing is sent again, twice
// at most, whatever the policy says, if that is safe.
func TestStaleConnectionsAreFree(t *testing.T) {
	var none upstream.RetryPolicy
	a := upstream.Attempt{Number: 1, Failure: upstream.Reset, Reused: true, Replayable: true}
	get, post := &message.Request{Method: "GET"}, &message.Request{Method: "POST"}
	if d := none.Decide(get, a); !d.Retry || !d.Free || d.After != 0 {
		t.Errorf("%+v", d)
	}
	if d := none.Decide(post, a); d.Retry {
		t.Errorf("a POST that may have arrived is sent again: %+v", d)
	}
	a.Free = 2
	if d := none.Decide(get, a); d.Retry {
		t.Errorf("again and again: %+v", d)
	}
	a.Free, a.Reused = 0, false
	if d := none.Decide(get, a); d.Retry {
		t.Errorf("a new connection is not stale: %+v", d)
	}
}

func TestStatusSet(t *testing.T) {
	var s upstream.StatusSet
	for _, n := range []int{-1, 0, 63, 64, 503, 599, 639, 640, 100_000} {
		if s.Has(n) {
			t.Errorf("an empty set has %d", n)
		}
		s.Add(n)
		if s.Has(n) != (n >= 0 && n < 640) {
			t.Errorf("%d is in the set: %v", n, s.Has(n))
		}
	}
	if s.Has(502) {
		t.Error("502 was not added")
	}
}

func TestHTTPStatusOfGRPC(t *testing.T) {
	want := []int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}
	for code, status := range want {
		if got := upstream.HTTPStatus(code); got != status {
			t.Errorf("gRPC status %d counts as %d, want %d", code, got, status)
		}
	}
	for _, code := range []int{-1, 17, 4711} {
		if got := upstream.HTTPStatus(code); got != 500 {
			t.Errorf("gRPC status %d counts as %d", code, got)
		}
	}
}

func FuzzDecide(f *testing.F) {
	for _, v := range []string{"", "3", "-1", "soon", "99999999999", "Fri, 31 Dec 1999 23:59:59 GMT"} {
		f.Add(v, v, v, 503)
	}
	p := upstream.RetryPolicy{Attempts: 3, On: upstream.On5xx, Backoff: upstream.DefaultBackoff}
	r := &message.Request{Method: "GET"}
	f.Fuzz(func(t *testing.T, after, date, pushback string, status int) {
		h := message.Header{{Name: "retry-after", Value: after}, {Name: "date", Value: date}, {Name: "grpc-retry-pushback-ms", Value: pushback}}
		d := p.Decide(r, upstream.Attempt{Number: 1, Status: status, Header: h, Replayable: true})
		if d.After < 0 || d.After > 10*time.Second || d.Retry && (status < 500 || status > 599) {
			t.Errorf("%+v", d)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	p := upstream.DefaultRetry()
	r := &message.Request{Method: "GET"}
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(r, upstream.Attempt{Number: 1, Status: 200, Replayable: true})
	}
}
