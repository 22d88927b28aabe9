package ratelimit_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
)

// limitService speaks Envoy's API: it counts hits by descriptor.
type limitService struct {
	rls.UnimplementedRateLimitServiceServer
	limit uint64

	mu    sync.Mutex
	hits  map[string]uint64
	last  *rls.RateLimitRequest
	stall chan struct{} // answers wait for it; nil for none
}

func (s *limitService) ShouldRateLimit(ctx context.Context, r *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	s.mu.Lock()
	stall := s.stall
	s.mu.Unlock()
	if stall != nil {
		select {
		case <-stall:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r
	out := &rls.RateLimitResponse{OverallCode: rls.RateLimitResponse_OK}
	for _, d := range r.GetDescriptors() {
		name := r.GetDomain()
		for _, e := range d.GetEntries() {
			name += "|" + e.GetKey() + "=" + e.GetValue()
		}
		s.hits[name] += d.GetHitsAddend().GetValue()
		status := &rls.RateLimitResponse_DescriptorStatus{
			Code: rls.RateLimitResponse_OK, LimitRemaining: uint32(max(int64(s.limit)-int64(s.hits[name]), 0)),
			CurrentLimit:       &rls.RateLimitResponse_RateLimit{RequestsPerUnit: uint32(s.limit), Unit: rls.RateLimitResponse_RateLimit_MINUTE},
			DurationUntilReset: durationpb.New(42 * time.Second),
		}
		if s.hits[name] > s.limit {
			status.Code, out.OverallCode = rls.RateLimitResponse_OVER_LIMIT, rls.RateLimitResponse_OVER_LIMIT
		}
		out.Statuses = append(out.Statuses, status)
	}
	return out, nil
}

func startService(t *testing.T, limit uint64) (s *limitService, dial func(context.Context, string, uint32) (net.Conn, error), stop func()) {
	t.Helper()
	s = &limitService{limit: limit, hits: map[string]uint64{}}
	ln, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	rls.RegisterRateLimitServiceServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(ln) }()
	stop = sync.OnceFunc(func() { g.Stop(); <-done })
	t.Cleanup(stop)
	return s, func(ctx context.Context, service string, port uint32) (net.Conn, error) {
		if service != "infra/limits.infra.svc" || port != 8081 {
			return nil, errors.New("another service was meant")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	}, stop
}

func serviceBackend() *api.RateLimitBackend {
	return &api.RateLimitBackend{Kind: &api.RateLimitBackend_Rls{Rls: &api.RateLimitService{
		Domain: "shop", Backend: &api.Backend{Service: "infra/limits.infra.svc", Port: 8081}}}}
}

func TestAServiceOfEnvoysAPICounts(t *testing.T) {
	s, dial, _ := startService(t, 2)
	r := newReplica(t, ratelimit.Config{DialService: dial}, &api.RateLimit{Backend: serviceBackend(), Timeout: durationpb.New(patience), Rules: []*api.RateLimitRule{
		{Name: "per-client", Key: byIdentity(), Limits: amount(7, time.Minute)},
	}})
	for i, want := range []bool{true, true, false} {
		v := r.ask()
		if v.Err != nil || v.Allowed != want || v.Limit != 2 || v.Window != time.Minute || v.Reset != 42*time.Second {
			t.Errorf("request %d: %+v", i, v)
		}
		if !want && (v.RetryAfter != 42*time.Second || v.Rule != "per-client") {
			t.Errorf("refusal: %+v", v)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var entries []string
	for _, e := range s.last.GetDescriptors()[0].GetEntries() {
		entries = append(entries, e.GetKey()+"="+e.GetValue())
	}
	if diff := cmp.Diff([]string{"rule=per-client", "identity=cluster.local/ns/shop/sa/client"}, entries); diff != "" {
		t.Error(diff)
	}
	if l := s.last.GetDescriptors()[0].GetLimit(); l.GetRequestsPerUnit() != 7 || s.last.GetDomain() != "shop" || s.last.GetHitsAddend() != 1 {
		t.Errorf("%v", s.last)
	}
}

func TestNoOctetsOfAClientKeepAServiceFromCounting(t *testing.T) {
	_, dial, _ := startService(t, 2)
	r := newReplica(t, ratelimit.Config{DialService: dial}, &api.RateLimit{Backend: serviceBackend(), FailOpen: true, Timeout: durationpb.New(patience), Rules: []*api.RateLimitRule{
		{Name: "per-key", Key: []*api.RateLimitKey{{Kind: &api.RateLimitKey_Header{Header: "x-api-key"}}}, Limits: amount(7, time.Minute)},
	}})
	q := ratelimit.Request{Peer: client, Message: &message.Request{Header: message.Header{{Name: "x-api-key", Value: "a\xff"}}}}
	for i, want := range []bool{true, true, false} {
		if v := r.request(q); v.Err != nil || v.Allowed != want {
			t.Errorf("request %d: %+v", i, v)
		}
	}
}

func TestAServiceThatIsSlowOrGone(t *testing.T) {
	s, dial, stop := startService(t, 1000)
	for _, open := range []bool{true, false} {
		r := newReplica(t, ratelimit.Config{DialService: dial}, &api.RateLimit{Backend: serviceBackend(), FailOpen: open, Timeout: durationpb.New(50 * time.Millisecond),
			Rules: []*api.RateLimitRule{{Limits: amount(7, time.Minute)}}})
		r.ready(t)
		s.mu.Lock()
		s.stall = make(chan struct{})
		s.mu.Unlock()
		begin := time.Now()
		if v := r.ask(); v.Err == nil || v.Allowed != open || time.Since(begin) > 5*time.Second {
			t.Errorf("open %v: %+v after %v", open, v, time.Since(begin))
		}
		if got := r.status(); got.Problem == "" || got.Backend != "rateLimitService" {
			t.Errorf("open %v: %+v", open, got)
		}
		s.mu.Lock()
		close(s.stall)
		s.stall = nil
		s.mu.Unlock()
		r.ready(t)
		if got := r.status(); got.Problem != "" {
			t.Errorf("open %v, the service is back: %+v", open, got)
		}
	}
	stop()
	r := newReplica(t, ratelimit.Config{DialService: dial}, &api.RateLimit{Backend: serviceBackend(), Timeout: durationpb.New(50 * time.Millisecond),
		Rules: []*api.RateLimitRule{{Limits: amount(7, time.Minute)}}})
	if v := r.ask(); v.Allowed || !v.Failed {
		t.Errorf("%+v", v)
	}
}
