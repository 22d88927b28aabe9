package inbound_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/rotation"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
	"github.com/tulle-mesh/tulle/ztunnel/inbound"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 20 * time.Second

var (
	local    = netip.MustParseAddr("127.0.0.1")
	serverID = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/server")
	clientID = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/client")
)

// mesh is an inbound.Mesh that tests set.
type mesh struct {
	mu       sync.Mutex
	local    *workload.Workload
	policies authz.Policies
	joined   time.Time
	left     chan *workload.Workload
	byAddr   map[netip.Addr]*workload.Workload
	// onAuthorized runs once after the first look at the policies.
	onAuthorized func()
}

func (m *mesh) Local(context.Context) (*workload.Workload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.local == nil {
		return nil, errors.New("the control plane has not announced the workload")
	}
	return m.local, nil
}

func (m *mesh) Policies() (authz.Policies, bool) {
	m.mu.Lock()
	p, f := m.policies, m.onAuthorized
	m.onAuthorized = nil
	m.mu.Unlock()
	if f != nil {
		f()
	}
	return p, true
}

func (m *mesh) Joined(*workload.Workload) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined
}

func (m *mesh) Left(ctx context.Context) *workload.Workload {
	select {
	case w := <-m.left:
		return w
	case <-ctx.Done():
		return nil
	}
}

func (m *mesh) set(p authz.Policies) { m.mu.Lock(); m.policies = p; m.mu.Unlock() }

func (m *mesh) ByAddr(a netip.Addr) *workload.Workload { return m.byAddr[a] }

func (m *mesh) Service(*workload.Workload, string) *workload.Service { return nil }

// dialer connects to the application, on this machine.
type dialer struct {
	dials atomic.Int32
	// source is what the proxy asked for.
	source atomic.Pointer[netip.Addr]
}

func (d *dialer) DialTCP(ctx context.Context, src netip.Addr, dst netip.AddrPort) (*net.TCPConn, error) {
	d.dials.Add(1)
	d.source.Store(&src)
	var nd net.Dialer
	c, err := nd.DialContext(ctx, "tcp", dst.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// outcome is what the reporter was told last.
type outcome struct {
	c   conntrack.Connection
	err error
}

type recorder struct{ ended chan outcome }

func (r *recorder) Opened(c *conntrack.Connection, _, _ *atomic.Uint64) conntrack.Report {
	return &recorded{r, c}
}

func (r *recorder) Failed(c *conntrack.Connection, _ time.Duration, err error) {
	r.ended <- outcome{*c, err}
}

type recorded struct {
	*recorder
	c *conntrack.Connection
}

func (r *recorded) Closed(_ time.Duration, err error) { r.ended <- outcome{*r.c, err} }

// rig is one pod's inbound proxy with an echo server behind it.
type rig struct {
	t       *testing.T
	proxy   *inbound.Proxy
	mesh    *mesh
	dialer  *dialer
	table   *conntrack.Table
	drain   *lifecycle.Drain
	ended   chan outcome
	manager *rotation.Manager
	app     netip.AddrPort
	tunnel  string
}

func newRig(t *testing.T, change ...func(*inbound.Config)) *rig {
	t.Helper()
	authority, err := certs.OpenAuthority(t.TempDir(), certs.AuthorityConfig{TrustDomain: serverID.TrustDomain()})
	if err != nil {
		t.Fatal(err)
	}
	manager := rotation.NewManager(rotation.Config{Signer: certs.LocalSigner{Authority: authority}})
	r := &rig{
		t: t, dialer: &dialer{}, drain: lifecycle.NewDrain(), ended: make(chan outcome, 100), manager: manager,
		mesh: &mesh{byAddr: map[netip.Addr]*workload.Workload{}, local: &workload.Workload{
			UID: "Kubernetes//Pod/shop/server", Name: "server", Namespace: "shop", ServiceAccount: "server",
			TrustDomain: "cluster.local", Addresses: []netip.Addr{local}, Protocol: workload.HBONE,
		}},
	}
	r.table = conntrack.New(&recorder{r.ended})
	lease := r.lease(serverID)
	cfg := inbound.Config{
		Pod: "shop/server", Mesh: r.mesh, Dialer: r.dialer, Table: r.table, Drain: r.drain,
		TLS: mtls.Server(lease, lease), QUIC: mtls.Server(lease, lease, mtls.WithProtocol(mtls.ProtocolH3)),
		Certificate: lease, Identity: serverID, Logger: zap.NewNop(),
	}
	for _, f := range change {
		f(&cfg)
	}
	r.proxy = inbound.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	app, tunnel := r.listen(&wg, echo), r.listen(&wg, func(c *net.TCPConn) { r.proxy.ServeTunnel(ctx, c) })
	r.app, r.tunnel = netip.MustParseAddrPort(app.Addr().String()), tunnel.Addr().String()
	t.Cleanup(func() {
		cancel()
		app.Close()
		tunnel.Close()
		wg.Wait()
		manager.Close()
		authority.Close()
	})
	return r
}

func (r *rig) listen(wg *sync.WaitGroup, serve func(*net.TCPConn)) *net.TCPListener {
	r.t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		r.t.Fatal(err)
	}
	wg.Go(func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			wg.Go(func() { serve(c) })
		}
	})
	return ln
}

// echo answers what it reads, and half-closes when its client does.
func echo(c *net.TCPConn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

func (r *rig) lease(id spiffeid.ID) *rotation.Lease {
	r.t.Helper()
	l := r.manager.Acquire(id)
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	if err := l.Ready(ctx); err != nil {
		r.t.Fatal(err)
	}
	return l
}

// dial opens a tunnel as id.
func (r *rig) dial(id spiffeid.ID) *hbone.ClientConn {
	r.t.Helper()
	lease := r.lease(id)
	c, err := net.Dial("tcp", r.tunnel)
	if err != nil {
		r.t.Fatal(err)
	}
	t, err := hbone.NewClient(tls.Client(hbone.WrapConn(c), mtls.Client(lease, lease, []spiffeid.ID{serverID})), hbone.ClientConfig{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { t.Close() })
	return t
}

// open asks for authority; status is 200 or the refusal's.
func (r *rig) open(t *hbone.ClientConn, authority string) (hbone.Stream, int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	s, _, err := t.Open(ctx, hbone.Request{Authority: authority})
	var status *hbone.StatusError
	switch {
	case err == nil:
		r.t.Cleanup(func() { s.Close() })
		return s, 200
	case errors.As(err, &status):
		return nil, status.Status
	}
	r.t.Fatalf("open %s: %v", authority, err)
	return nil, 0
}

// end waits until a connection was reported.
func (r *rig) end() outcome {
	r.t.Helper()
	select {
	case o := <-r.ended:
		return o
	case <-time.After(limit):
		r.t.Fatal("no connection was reported")
		return outcome{}
	}
}
