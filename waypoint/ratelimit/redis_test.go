package ratelimit_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
)

const patience = 20 * time.Second

// loopback is an address of the process's own.
func loopback() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 1+pid>>16&0x7f, pid>>8&0xff, max(pid&0xff, 1))
}

// server is a redis-server that can be killed and started again at its address.
type server struct {
	t       *testing.T
	program string
	address string
	cmd     *exec.Cmd
}

func redisServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, program: roottest.Program(t, "redis-server", "redis-server")}
	ln, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = ln.Addr().String()
	_ = ln.Close()
	s.start(args...)
	t.Cleanup(s.kill)
	return s
}

func (s *server) start(args ...string) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.address)
	s.cmd = exec.Command(s.program, append([]string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", s.t.TempDir(), "--loglevel", "warning"}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = io.Discard, io.Discard
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "redis does not start", func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// replica is a waypoint's limiter with one policy.
type replica struct {
	limiter *ratelimit.Limiter
	policy  *ratelimit.Policy
}

func newReplica(t *testing.T, cfg ratelimit.Config, in *api.RateLimit) *replica {
	t.Helper()
	in.Namespace, in.Name = "shop", "p"
	r := &replica{limiter: ratelimit.New(cfg)}
	t.Cleanup(r.limiter.Close)
	if r.policy = r.limiter.Compile(in, nil); r.policy.Fault() != nil {
		t.Fatal(r.policy.Fault())
	}
	return r
}

var client, _ = request.NewPeer(spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/client"))

func (r *replica) ask() ratelimit.Verdict {
	t := r.limiter.Ticket()
	defer t.Release()
	t.Count(r.policy, &ratelimit.Request{Peer: client, Source: netip.MustParseAddr("10.0.0.1")})
	v := *t.Decide(context.Background())
	t.Answered(nil)
	return v
}

// status is what operators see of the first rule.
func (r *replica) status() ratelimit.RuleStatus {
	return r.limiter.Status(ratelimit.Filter{}).Rules[0]
}

// ready waits until the backend counts.
func (r *replica) ready(t *testing.T) {
	t.Helper()
	eventually(t, "the backend does not count", func() bool { return r.ask().Err == nil })
}

func redisBackend(address string) *api.RateLimitBackend {
	return &api.RateLimitBackend{Kind: &api.RateLimitBackend_Redis{Redis: &api.RedisBackend{Address: address}}}
}

func amount(requests uint64, per time.Duration) []*api.RateLimitAmount {
	return []*api.RateLimitAmount{{Requests: requests, Unit: durationpb.New(per)}}
}

func byIdentity() []*api.RateLimitKey {
	return []*api.RateLimitKey{{Kind: &api.RateLimitKey_Identity{Identity: true}}}
}

func TestReplicasCountExactlyInOneRedis(t *testing.T) {
	s := redisServer(t)
	const limit = 5000
	var allowed, refused atomic.Int64
	var group sync.WaitGroup
	for range 2 {
		r := newReplica(t, ratelimit.Config{}, &api.RateLimit{Backend: redisBackend(s.address), Timeout: durationpb.New(patience),
			Rules: []*api.RateLimitRule{{Name: "r", Key: byIdentity(), Limits: append(amount(limit, 24*time.Hour), amount(1_000_000, 24*time.Hour)...)}}})
		eventually(t, "redis does not count", func() bool {
			v := r.ask()
			if v.Err == nil && v.Allowed {
				allowed.Add(1)
			}
			return v.Err == nil
		})
		for range 16 {
			group.Go(func() {
				for range limit / 16 {
					switch v := r.ask(); {
					case v.Err != nil:
						t.Error(v.Err)
					case v.Allowed:
						allowed.Add(1)
					default:
						refused.Add(1)
						if v.Rule != "r" || v.RetryAfter <= 0 || v.RetryAfter > 18*time.Second || v.Limit != limit || v.Remaining != 0 {
							t.Errorf("%+v", v)
						}
					}
				}
			})
		}
	}
	begin := time.Now()
	group.Wait()
	t.Logf("%v for %d calls", time.Since(begin), allowed.Load()+refused.Load())
	// One flows back in 17 s.
	if n := allowed.Load(); n < limit || n > limit+2 {
		t.Errorf("%d are allowed, want %d", n, limit)
	}
}

func TestARuleThatRefusesTakesNothingOfTheOthers(t *testing.T) {
	s := redisServer(t)
	r := newReplica(t, ratelimit.Config{}, &api.RateLimit{Backend: redisBackend(s.address), Timeout: durationpb.New(patience), Rules: []*api.RateLimitRule{
		{Name: "narrow", Limits: amount(1, 24*time.Hour)}, {Name: "wide", Limits: amount(10, 24*time.Hour)},
	}})
	r.ready(t)
	for range 20 {
		if v := r.ask(); v.Allowed || v.Rule != "narrow" {
			t.Fatalf("%+v", v)
		}
	}
	other := newReplica(t, ratelimit.Config{}, &api.RateLimit{Backend: redisBackend(s.address), Timeout: durationpb.New(patience), Rules: []*api.RateLimitRule{
		{Name: "wide", Limits: amount(10, 24*time.Hour)},
	}})
	other.ready(t)
	if v := other.ask(); !v.Allowed || v.Remaining != 7 {
		t.Errorf("%+v, want 7 left", v)
	}
}

func TestRulesInShadowAreCountedInRedisApart(t *testing.T) {
	s := redisServer(t)
	r := newReplica(t, ratelimit.Config{}, &api.RateLimit{Backend: redisBackend(s.address), Timeout: durationpb.New(patience), Rules: []*api.RateLimitRule{
		{Name: "a", Limits: amount(1, 24*time.Hour), Shadow: true}, {Name: "b", Limits: amount(5, 24*time.Hour)}, {Name: "c", Limits: amount(3, 24*time.Hour), Shadow: true},
	}})
	r.ready(t) // the first of all
	for i, want := range []struct {
		allowed bool
		shadow  string
	}{{true, "shop/p/a"}, {true, "shop/p/a"}, {true, "shop/p/c"}, {true, "shop/p/c"}, {false, ""}} {
		if v := r.ask(); v.Allowed != want.allowed || v.Shadow != want.shadow || v.Rule != "b" {
			t.Errorf("request %d: %+v", i, v)
		}
	}
	status := r.limiter.Status(ratelimit.Filter{})
	for i, want := range []ratelimit.Decisions{{Allowed: 1, ShadowLimited: 4}, {Allowed: 5, Limited: 1}, {Allowed: 3, ShadowLimited: 2}} {
		got := status.Rules[i].Decisions
		got.FailedOpen, got.FailedClosed = 0, 0 // before the connection stood
		if got != want || status.Rules[i].Backend != "redis" {
			t.Errorf("rule %s: %+v, want %+v", status.Rules[i].Rule, got, want)
		}
	}
}

func TestCostsOfResponsesAreTakenInRedis(t *testing.T) {
	s := redisServer(t)
	r := newReplica(t, ratelimit.Config{}, &api.RateLimit{Backend: redisBackend(s.address), Timeout: durationpb.New(patience), Rules: []*api.RateLimitRule{
		{Limits: amount(10, 24*time.Hour), Cost: &api.RateLimitCost{RequestHeader: "x-cost", Default: 4}},
	}})
	r.ready(t)
	if v := r.ask(); !v.Allowed || v.Remaining != 2 {
		t.Errorf("%+v", v)
	}
	if v := r.ask(); v.Allowed {
		t.Errorf("%+v", v)
	}
}

// TestRedisKilledUnderLoad: requests never wait longer than the policy says, and it
// counts again when it is back.
func TestRedisKilledUnderLoad(t *testing.T) {
	s := redisServer(t)
	for _, open := range []bool{true, false} {
		t.Run("open "+strconv.FormatBool(open), func(t *testing.T) {
			r := newReplica(t, ratelimit.Config{}, &api.RateLimit{Backend: redisBackend(s.address), FailOpen: open, Timeout: durationpb.New(100 * time.Millisecond),
				Rules: []*api.RateLimitRule{{Name: "r", Limits: amount(1_000_000, time.Second)}}})
			r.ready(t)
			ctx, cancel := context.WithCancel(context.Background())
			var longest, failed atomic.Int64
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					for ctx.Err() == nil {
						begin := time.Now()
						v := r.ask()
						if d := int64(time.Since(begin)); d > longest.Load() {
							longest.Store(d)
						}
						if v.Err != nil {
							failed.Add(1)
							if v.Allowed != open || v.Failed == open {
								t.Errorf("open %v: %+v", open, v)
							}
							time.Sleep(time.Millisecond)
						}
					}
				})
			}
			s.kill()
			eventually(t, "nobody notices", func() bool { return failed.Load() > 50 })
			// Operators see why nothing is counted, and what that means for requests.
			mode := map[bool]string{true: "open", false: "closed"}[open]
			eventually(t, "the status does not say that Redis is gone", func() bool {
				return strings.Contains(r.status().Problem, s.address) && strings.Contains(r.status().Problem, "refused")
			})
			if got := r.status(); got.FailureMode != mode || got.ProblemAt.IsZero() {
				t.Errorf("open %v: %+v", open, got)
			}
			s.start()
			r.ready(t)
			eventually(t, "the status says that Redis is gone when it is back", func() bool { return r.status().Problem == "" })
			cancel()
			group.Wait()
			if d := time.Duration(longest.Load()); d > 2*time.Second {
				t.Errorf("one request waited %v", d)
			}
			t.Logf("longest %v, %d not counted", time.Duration(longest.Load()), failed.Load())
		})
	}
}

func TestASlowRedisCostsNoMoreThanTheTimeout(t *testing.T) {
	s := redisServer(t)
	r := newReplica(t, ratelimit.Config{}, &api.RateLimit{Backend: redisBackend(s.address), FailOpen: true, Timeout: durationpb.New(30 * time.Millisecond),
		Rules: []*api.RateLimitRule{{Limits: amount(1_000_000, time.Second)}}})
	r.ready(t)
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }()
	for range 5 {
		begin := time.Now()
		v := r.ask()
		if d := time.Since(begin); v.Err == nil || !v.Allowed || d > time.Second {
			t.Errorf("%+v after %v", v, d)
		}
	}
	if got := r.status(); got.Problem == "" {
		t.Errorf("the status has no word of a Redis that is silent: %+v", got)
	}
	// When it is given up, nobody waits at all.
	eventually(t, "a Redis that is silent is not given up", func() bool {
		begin := time.Now()
		return r.ask().Err != nil && time.Since(begin) < 10*time.Millisecond
	})
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.ready(t)
}

func TestPasswordsAndDatabases(t *testing.T) {
	s := redisServer(t, "--requirepass", "secret")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := func() *api.RateLimit {
		return &api.RateLimit{Timeout: durationpb.New(patience), Backend: redisBackend(s.address), Rules: []*api.RateLimitRule{{Limits: amount(10, time.Hour)}}}
	}
	with := in()
	with.GetBackend().GetRedis().PasswordFile, with.GetBackend().GetRedis().Database = file, 3
	newReplica(t, ratelimit.Config{}, with).ready(t)
	without := newReplica(t, ratelimit.Config{}, in())
	eventually(t, "nobody says what is missing", func() bool {
		err := without.ask().Err
		return err != nil && strings.Contains(err.Error(), "NOAUTH")
	})
}

func BenchmarkRedis(b *testing.B) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		b.Skip(err)
	}
	at := loopback() + ":26379"
	host, port, _ := net.SplitHostPort(at)
	cmd := exec.Command(program, "--bind", host, "--port", port, "--save", "", "--dir", b.TempDir())
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	l := ratelimit.New(ratelimit.Config{})
	defer l.Close()
	r := &replica{limiter: l, policy: l.Compile(&api.RateLimit{Namespace: "shop", Name: "p", Backend: redisBackend(at), Timeout: durationpb.New(patience),
		Rules: []*api.RateLimitRule{{Name: "r", Key: byIdentity(), Limits: amount(1_000_000_000, time.Second)}}}, nil)}
	for r.ask().Err != nil {
		time.Sleep(time.Millisecond)
	}
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.ask()
		}
	})
}
