package leases_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	apilease "github.com/tulle-mesh/tulle/api/lease"
	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/istiod-lite/lease"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second
	interval = lease.Interval / 5 // the tests' replicas are in more of a hurry
)

// controlPlane shares limits out at an address that outlives it.
type controlPlane struct {
	t       *testing.T
	address string
	server  *lease.Server
	stop    func()
}

func (c *controlPlane) start() {
	c.t.Helper()
	at := c.address
	if at == "" {
		at = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", at)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.address == "" { // replicas read it from then on
		c.address = ln.Addr().String()
	}
	c.server = lease.NewServer(lease.Config{
		Authorize: func(context.Context) (string, error) { return "shop/waypoint", nil },
		Permitted: func(_, policy string) bool { return policy == "shop/p" },
	})
	g := grpc.NewServer()
	apilease.RegisterLeasesServer(g, c.server)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.server.Run(ctx) })
	wg.Go(func() { _ = g.Serve(ln) })
	c.stop = sync.OnceFunc(func() {
		cancel()
		g.Stop()
		wg.Wait()
	})
	c.t.Cleanup(func() { c.stop() })
}

// replica is a waypoint's limiter.
type replica struct {
	t       *testing.T
	limiter *ratelimit.Limiter
	policy  *ratelimit.Policy
	stop    func()
}

func (c *controlPlane) replica(name string, requests uint64) *replica {
	c.t.Helper()
	r := &replica{t: c.t, limiter: ratelimit.New(ratelimit.Config{})}
	r.policy = r.limiter.Compile(&api.RateLimit{Namespace: "shop", Name: "p", FailOpen: true,
		Backend: &api.RateLimitBackend{Kind: &api.RateLimitBackend_Leases{Leases: true}},
		Rules: []*api.RateLimitRule{{Name: "r", Key: []*api.RateLimitKey{{Kind: &api.RateLimitKey_Identity{Identity: true}}},
			Limits: []*api.RateLimitAmount{{Requests: requests, Unit: durationpb.New(time.Second)}}}}}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.limiter.Lease(ctx, name, interval, func(ctx context.Context) (ratelimit.Shares, error) {
			conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() })
			return apilease.NewLeasesClient(conn).Share(ctx)
		})
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		r.limiter.Close()
	})
	c.t.Cleanup(r.stop)
	return r
}

var client, _ = request.NewPeer(spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/client"))

func (r *replica) allowed() bool {
	t := r.limiter.Ticket()
	defer t.Release()
	t.Count(r.policy, &ratelimit.Request{Peer: client, Source: netip.MustParseAddr("10.0.0.1")})
	return t.Decide(context.Background()).Allowed
}

// share of the rule's keys, and of the client's alone, in 65,536ths.
func (r *replica) share() uint32 {
	for _, rule := range r.limiter.Status(ratelimit.Filter{}).Rules {
		for _, k := range rule.Keys {
			return k.Share
		}
		return rule.Share
	}
	return 0
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// ask has a replica asked at a rate, and returns how many it allowed.
func (r *replica) ask(rate float64, d time.Duration) (allowed int) {
	begin, asked := time.Now(), 0
	for {
		passed := time.Since(begin)
		if passed > d {
			return allowed
		}
		for ; float64(asked) < passed.Seconds()*rate; asked++ {
			if r.allowed() {
				allowed++
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func TestReplicasShareOneLimit(t *testing.T) {
	t.Parallel()
	c := &controlPlane{t: t}
	c.start()
	const limit = 1000
	a, b := c.replica("a", limit), c.replica("b", limit)
	eventually(t, "the two do not share evenly", func() bool { return a.share() == lease.Full/2 && b.share() == lease.Full/2 })
	// The hot one has most of the limit soon.
	a.ask(2*limit, 1500*time.Millisecond)
	if share := a.share(); share < lease.Full*9/10 {
		t.Errorf("the hot one has %d of 65536", share)
	}
	var both [2]int
	var wg sync.WaitGroup
	begin := time.Now()
	for i, r := range []*replica{a, b} {
		wg.Go(func() { both[i] = r.ask(2*limit, 2*time.Second) })
	}
	wg.Wait()
	got, most := both[0]+both[1], time.Since(begin).Seconds()*limit+limit
	t.Logf("%v of at most %.0f", both, most)
	if float64(got) > most || got < limit*3/2 {
		t.Errorf("%d are allowed in two seconds, want about %d, and no more than %.0f", got, 2*limit, most)
	}
}

func TestReplicasGoOnWithoutTheControlPlane(t *testing.T) {
	t.Parallel()
	c := &controlPlane{t: t}
	c.start()
	a, b := c.replica("a", 100), c.replica("b", 100)
	eventually(t, "the two do not share evenly", func() bool { return a.share() == lease.Full/2 && b.share() == lease.Full/2 })
	c.stop()
	for range 200 {
		a.allowed()
	}
	if share := a.share(); share != lease.Full/2 {
		t.Errorf("share %d without a control plane, was %d", share, lease.Full/2)
	}
	if a.allowed() {
		t.Error("a limit is not kept without a control plane")
	}
	c.start()
	eventually(t, "they do not come again", func() bool { return c.server.Replicas() == 2 })
	// One that ends in order leaves its share to the other at once.
	a.stop()
	eventually(t, "what was left is not taken", func() bool { return b.share() == lease.Full })
}
