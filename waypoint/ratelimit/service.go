package ratelimit

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
)

const (
	// maxServiceReply bounds an answer of a rate limit service: a status for each rule.
	maxServiceReply = 64 << 10
	// serviceCharges is how many costs of responses may wait to be told, and chargeTimeout
	// how long telling one may take.
	serviceCharges = 1024
	chargeTimeout  = time.Second
)

// service asks a rate limit service with Envoy's API v3. Each rule is a descriptor: the
// entry "rule" with its name, and one for each part of its key.
type service struct {
	domain string
	conn   *grpc.ClientConn
	client rls.RateLimitServiceClient

	health
	charges chan charge
	end     context.CancelFunc
	joined  sync.WaitGroup
}

// service returns the connection to a service, which policies share.
func (l *Limiter) service(cfg *api.RateLimitService) (remote, func(), error) {
	to, port := cfg.GetBackend().GetService(), cfg.GetBackend().GetPort()
	if l.cfg.DialService == nil {
		return nil, nil, fmt.Errorf("the service %s:%d cannot be reached from here", to, port)
	}
	// The target is a name for errors: the dialer knows where to.
	conn, err := grpc.NewClient("passthrough:///"+fmt.Sprintf("%s:%d", to, port),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.cfg.DialService(ctx, to, port) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxServiceReply)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.5, MaxDelay: 2 * time.Second}, MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, nil, err
	}
	r, release := l.share(fmt.Sprintf("service %s %d %s", to, port, cfg.GetDomain()), func() remote {
		ctx, cancel := context.WithCancel(context.Background())
		s := &service{domain: cfg.GetDomain(), conn: conn, client: rls.NewRateLimitServiceClient(conn), charges: make(chan charge, serviceCharges), end: cancel}
		s.joined.Go(func() { s.run(ctx) })
		return s
	})
	if s := r.(*service); s.conn != conn {
		_ = conn.Close() // another policy has one already
	}
	return r, release, nil
}

func (s *service) kind() string { return "rateLimitService" }

func (s *service) close() {
	s.end()
	s.joined.Wait()
	_ = s.conn.Close()
}

// units are those of the API by their length.
var units = map[time.Duration]typev3.RateLimitUnit{
	time.Second: typev3.RateLimitUnit_SECOND, time.Minute: typev3.RateLimitUnit_MINUTE,
	time.Hour: typev3.RateLimitUnit_HOUR, 24 * time.Hour: typev3.RateLimitUnit_DAY,
}

// descriptor says what is counted. The policy's limit goes along where the API can say
// it, for services that take it from there.
func (r *rule) descriptor(key string, cost uint64) *common.RateLimitDescriptor {
	d := &common.RateLimitDescriptor{
		Entries:    []*common.RateLimitDescriptor_Entry{{Key: "rule", Value: r.name}},
		HitsAddend: wrapperspb.UInt64(cost),
	}
	for i, value := range r.values(key) {
		// Of any octets that a client sends: what cannot be asked about is not counted.
		d.Entries = append(d.Entries, &common.RateLimitDescriptor_Entry{Key: r.parts[i].label(), Value: strings.ToValidUTF8(value, "\ufffd")})
	}
	if a := &r.amounts[0]; len(r.amounts) == 1 && a.requests < 1<<32 {
		if unit, ok := units[a.per]; ok {
			d.Limit = &common.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: uint32(a.requests), Unit: unit}
		}
	}
	return d
}

func (s *service) take(ctx context.Context, list []*bucket) error {
	request := &rls.RateLimitRequest{Domain: s.domain}
	for _, b := range list {
		request.Descriptors = append(request.Descriptors, b.rule.descriptor(string(b.key), b.cost))
	}
	if len(list) == 1 {
		// Services from before descriptors had costs of their own know this one.
		request.HitsAddend = uint32(list[0].cost)
	}
	got, err := s.client.ShouldRateLimit(ctx, request)
	if err != nil {
		return fmt.Errorf("rate limit service: %w", err)
	}
	over := got.GetOverallCode() == rls.RateLimitResponse_OVER_LIMIT
	if !over && got.GetOverallCode() != rls.RateLimitResponse_OK {
		return fmt.Errorf("rate limit service: it answered %v", got.GetOverallCode())
	}
	if n := len(got.GetStatuses()); n != 0 && n != len(list) {
		return fmt.Errorf("rate limit service: %d statuses of %d descriptors", n, len(list))
	}
	blamed := false
	for i, b := range list {
		var status *rls.RateLimitResponse_DescriptorStatus
		if len(got.GetStatuses()) > 0 {
			status = got.GetStatuses()[i]
		}
		blamed = b.rule.answered(&b.out, status, over) || blamed
	}
	if over && !blamed {
		// It does not say which: then it is the first.
		list[0].out.Allowed, list[0].out.RetryAfter = false, list[0].rule.amounts[0].per
	}
	return nil
}

// answered fills out with what a service says of a rule, and reports whether it refuses.
func (r *rule) answered(out *Outcome, s *rls.RateLimitResponse_DescriptorStatus, over bool) bool {
	a := &r.amounts[0]
	*out = Outcome{Allowed: true, Limit: a.requests, Window: a.per, Remaining: uint64(s.GetLimitRemaining()), Reset: a.per}
	if limit := s.GetCurrentLimit(); limit != nil {
		out.Limit = uint64(max(limit.GetRequestsPerUnit(), 1))
		switch limit.GetUnit() {
		case rls.RateLimitResponse_RateLimit_SECOND:
			out.Window = time.Second
		case rls.RateLimitResponse_RateLimit_MINUTE:
			out.Window = time.Minute
		case rls.RateLimitResponse_RateLimit_HOUR:
			out.Window = time.Hour
		case rls.RateLimitResponse_RateLimit_DAY:
			out.Window = 24 * time.Hour
		}
		out.Reset = out.Window
	}
	if d := s.GetDurationUntilReset(); d != nil {
		out.Reset = max(d.AsDuration(), 0)
	}
	if over && s.GetCode() == rls.RateLimitResponse_OVER_LIMIT {
		out.Allowed, out.Remaining, out.RetryAfter = false, 0, out.Reset
		return true
	}
	return false
}

// charge tells of costs, later and one by one.
func (s *service) charge(list []charge) {
	for _, c := range list {
		if c.cost == 0 {
			continue
		}
		select {
		case s.charges <- c:
		default: // a service so slow has other worries
		}
	}
}

func (s *service) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-s.charges:
			bounded, cancel := context.WithTimeout(ctx, chargeTimeout)
			_, _ = s.client.ShouldRateLimit(bounded, &rls.RateLimitRequest{
				Domain: s.domain, HitsAddend: uint32(c.cost), Descriptors: []*common.RateLimitDescriptor{c.rule.descriptor(c.key, c.cost)},
			})
			cancel()
		}
	}
}
