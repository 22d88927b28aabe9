package conntrack_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/relay"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
)

// recorder is a Reporter that remembers.
type recorder struct {
	mu                     sync.Mutex
	failed                 int
	closed                 []error
	fromClient, fromServer *atomic.Uint64
}

func (r *recorder) Opened(_ *conntrack.Connection, fromClient, fromServer *atomic.Uint64) conntrack.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fromClient, r.fromServer = fromClient, fromServer
	return r
}

func (r *recorder) Closed(_ time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, err)
}

func (r *recorder) Failed(*conntrack.Connection, time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
}

var dst = netip.MustParseAddrPort("10.0.0.2:80")

func connection(d conntrack.Direction, account string) conntrack.Connection {
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/" + account)
	src := netip.MustParseAddrPort("10.0.0.1:4000")
	return conntrack.Connection{
		Direction: d, Protocol: conntrack.HBONE, Src: src, OriginalDst: dst, ActualDst: dst, SrcIdentity: id,
		Attributes: authz.Attributes{Source: src.Addr(), Identity: id, Destination: dst}, Opened: time.Now(),
	}
}

func deny(t *testing.T, account string) authz.Policies {
	t.Helper()
	p, err := authz.ParsePolicy(&security.Authorization{
		Name: "no-" + account, Namespace: "shop", Action: security.Action_DENY, Scope: security.Scope_NAMESPACE,
		Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{
			Principals: []*security.StringMatch{{MatchType: &security.StringMatch_Exact{Exact: "cluster.local/ns/shop/sa/" + account}}},
		}}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return authz.NewPolicies(p)
}

func TestReauthorizeCutsOnlyInboundConnectionsThatAreDeniedNow(t *testing.T) {
	table := conntrack.New(&recorder{})
	cause := func(d conntrack.Direction, account string) context.Context {
		ctx, cut := context.WithCancelCause(t.Context())
		table.Open(connection(d, account), cut)
		return ctx
	}
	denied, allowed, outbound := cause(conntrack.Inbound, "web"), cause(conntrack.Inbound, "api"), cause(conntrack.Outbound, "web")
	if checked, cut := table.Reauthorize(authz.Policies{}); checked != 2 || cut != 0 {
		t.Errorf("first: checked %d, cut %d; want 2, 0", checked, cut)
	}
	noWeb := deny(t, "web")
	checked, cut := table.Reauthorize(noWeb)
	if checked != 2 || cut != 1 {
		t.Errorf("after the change: checked %d, cut %d; want 2, 1", checked, cut)
	}
	var denial *authz.Denial
	if !errors.As(context.Cause(denied), &denial) || denial.Policy != "shop/no-web" {
		t.Errorf("cause %v, want the denial that names the policy", context.Cause(denied))
	}
	if allowed.Err() != nil || outbound.Err() != nil {
		t.Error("a connection that is not denied was cut")
	}
	if checked, _ := table.Reauthorize(noWeb); checked != 0 {
		t.Errorf("same policies: checked %d connections, want none", checked)
	}
}

func TestRecheckWaitsForPolicyThatHasNotArrived(t *testing.T) {
	table := conntrack.New(&recorder{})
	ctx, cut := context.WithCancelCause(t.Context())
	live := table.Open(connection(conntrack.Inbound, "web"), cut)
	if err := live.Recheck(authz.Policies{}.WithMissing("shop/later")); err != nil || ctx.Err() != nil {
		t.Errorf("cut for a policy that has not arrived: %v", err)
	}
	if err := live.Recheck(deny(t, "web")); err == nil || ctx.Err() == nil {
		t.Error("not cut by the policy that denies")
	}
}

func TestCloseReportsOnceWithTheBytes(t *testing.T) {
	r := &recorder{}
	table := conntrack.New(r)
	live := table.Open(connection(conntrack.Outbound, "web"), func(error) {})
	live.Counters().Sent.Add(7)
	live.Counters().Received.Add(9)
	live.Close(nil)
	live.Close(errors.New("late"))
	if len(r.closed) != 1 || r.closed[0] != nil || r.fromClient.Load() != 7 || r.fromServer.Load() != 9 {
		t.Errorf("closed %v, %d from the client, %d from the server", r.closed, r.fromClient.Load(), r.fromServer.Load())
	}
	if table.Len() != 0 {
		t.Error("still listed")
	}
}

func TestMirrorCountsTheOtherEnd(t *testing.T) {
	r := &recorder{}
	table := conntrack.New(r)
	var other relay.Counters
	live := table.OpenMirror(connection(conntrack.Inbound, "web"), func(error) {}, &other)
	other.Sent.Add(5) // the client's bytes
	other.Received.Add(3)
	v := table.Views(time.Now()).Inbound
	if len(v) != 1 || v[0].BytesReceived != 5 || v[0].BytesSent != 3 {
		t.Errorf("view %+v", v)
	}
	live.Close(nil)
	if r.fromClient.Load() != 5 || r.fromServer.Load() != 3 {
		t.Errorf("reported %d from the client, %d from the server", r.fromClient.Load(), r.fromServer.Load())
	}
}

func TestCutAllTellsWhy(t *testing.T) {
	table := conntrack.New(&recorder{})
	why := errors.New("drain deadline")
	a, cutA := context.WithCancelCause(t.Context())
	b, cutB := context.WithCancelCause(t.Context())
	table.Open(connection(conntrack.Inbound, "web"), cutA)
	table.Open(connection(conntrack.Outbound, "web"), cutB)
	if n := table.CutAll(why); n != 2 || context.Cause(a) != why || context.Cause(b) != why {
		t.Errorf("cut %d, causes %v and %v", n, context.Cause(a), context.Cause(b))
	}
	// One that was being connected meanwhile, by another pod of the process.
	late, cutLate := context.WithCancelCause(t.Context())
	table.OpenMirror(connection(conntrack.Inbound, "web"), cutLate, &relay.Counters{})
	if context.Cause(late) != why {
		t.Errorf("a connection that opened later was cut with %v", context.Cause(late))
	}
}

func BenchmarkReauthorize(b *testing.B) {
	table := conntrack.New(&recorder{})
	for range 2000 {
		table.Open(connection(conntrack.Inbound, "web"), func(error) {})
	}
	some := authz.Policies{}.WithMissing("shop/later")
	b.Run("unchanged", func(b *testing.B) {
		table.Reauthorize(some)
		for b.Loop() {
			table.Reauthorize(some)
		}
	})
	b.Run("2000-connections", func(b *testing.B) {
		for b.Loop() {
			table.Reauthorize(some)
			table.Reauthorize(authz.Policies{})
		}
	})
}
