package inbound_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
	"github.com/tulle-mesh/tulle/ztunnel/inbound"
)

func denyPrincipal(t *testing.T, id spiffeid.ID) authz.Policies {
	t.Helper()
	p, err := authz.ParsePolicy(&security.Authorization{
		Name: "no-client", Namespace: "shop", Action: security.Action_DENY, Scope: security.Scope_NAMESPACE,
		Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{
			Principals: []*security.StringMatch{{MatchType: &security.StringMatch_Exact{Exact: strings.TrimPrefix(id.String(), "spiffe://")}}},
		}}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return authz.NewPolicies(p)
}

func TestCarriesBytesToTheApplication(t *testing.T) {
	r := newRig(t)
	s, status := r.open(r.dial(clientID), r.app.String())
	if status != 200 {
		t.Fatalf("status %d", status)
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = s.CloseWrite()
	got, err := io.ReadAll(s)
	if err != nil || string(got) != "hello" {
		t.Fatalf("echo %q, %v", got, err)
	}
	o := r.end()
	if o.err != nil || o.c.SrcIdentity != clientID || o.c.DstIdentity != serverID || o.c.Protocol != conntrack.HBONE || o.c.ActualDst != r.app {
		t.Errorf("reported %+v, %v", o.c, o.err)
	}
	if src := r.dialer.source.Load(); *src != local {
		t.Errorf("connected to the application from %v, want the client's address", src)
	}
}

func TestRefusals(t *testing.T) {
	port := func(p uint16) string { return netip.AddrPortFrom(local, p).String() }
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tc := range []struct {
		name      string
		authority string
		prepare   func(r *rig)
		status    int
		reason    string
		dials     int32
	}{
		{"a host name", "server.shop.svc:80", nil, 400, "not IP:port", 0},
		{"another pod's address", "127.0.0.9:80", nil, 400, "not an address of pod shop/server", 0},
		{"a mapped address", "[::ffff:127.0.0.1]:80", nil, 400, "mapped", 0},
		{"the outbound port", port(15001), nil, 503, "loop", 0},
		{"the plaintext port", port(15006), nil, 503, "loop", 0},
		{"the tunnel port", port(15008), nil, 503, "loop", 0},
		{"a pod that is not announced", port(80), func(r *rig) { r.mesh.local = nil }, 503, "not known", 0},
		{"a policy", port(80), func(r *rig) { r.mesh.policies = denyPrincipal(t, clientID) }, 401, "shop/no-client", 0},
		{"a policy that has not arrived", port(80), func(r *rig) { r.mesh.policies = authz.Policies{}.WithMissing("shop/later") }, 401, "shop/later", 0},
		{"an application that does not listen", closed.Addr().String(), nil, 503, "connect to the application", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			if tc.prepare != nil {
				tc.prepare(r)
			}
			_, status := r.open(r.dial(clientID), tc.authority)
			if status != tc.status {
				t.Errorf("status %d, want %d", status, tc.status)
			}
			if o := r.end(); o.err == nil || !strings.Contains(o.err.Error(), tc.reason) {
				t.Errorf("reported %v, want it to say %q", o.err, tc.reason)
			}
			if n := r.dialer.dials.Load(); n != tc.dials {
				t.Errorf("connected to the application %d times, want %d", n, tc.dials)
			}
		})
	}
}

func TestPolicyThatComesBetweenDecisionAndListingCuts(t *testing.T) {
	r := newRig(t)
	r.mesh.onAuthorized = func() { r.mesh.set(denyPrincipal(t, clientID)) }
	s, status := r.open(r.dial(clientID), r.app.String())
	if status == 200 {
		if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("stream ended with %v, want a reset", err)
		}
	}
	var denial *authz.Denial
	if o := r.end(); !errors.As(o.err, &denial) {
		t.Errorf("reported %v, want the denial", o.err)
	}
}

func TestPolicyChangeCutsLiveConnection(t *testing.T) {
	r := newRig(t)
	s, _ := r.open(r.dial(clientID), r.app.String())
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.table.Reauthorize(denyPrincipal(t, clientID))
	var reset *hbone.StreamError
	if _, err := s.Read(make([]byte, 1)); !errors.As(err, &reset) {
		t.Errorf("client saw %v, want a reset", err)
	}
	var denial *authz.Denial
	if o := r.end(); !errors.As(o.err, &denial) || denial.Policy != "shop/no-client" {
		t.Errorf("reported %v, want the denial by shop/no-client", o.err)
	}
}

func TestPeerWithoutCertificateIsRefused(t *testing.T) {
	r := newRig(t)
	c, err := net.Dial("tcp", r.tunnel)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	var failed *handshake.Error
	if o := r.end(); !errors.As(o.err, &failed) {
		t.Errorf("reported %v, want a handshake error", o.err)
	}
}

func TestSilentPeerIsCutAtTheHandshakeTimeout(t *testing.T) {
	r := newRig(t, func(c *inbound.Config) { c.HandshakeTimeout = 50 * time.Millisecond })
	c, err := net.Dial("tcp", r.tunnel)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if o := r.end(); o.err == nil || !strings.Contains(o.err.Error(), "no TLS handshake within 50ms") {
		t.Errorf("reported %v", o.err)
	}
}

func TestDrainRefusesNewAndLetsLiveConnectionsFinish(t *testing.T) {
	r := newRig(t)
	tunnel := r.dial(clientID)
	s, _ := r.open(tunnel, r.app.String())
	r.drain.Begin()
	if _, status := r.open(tunnel, r.app.String()); status != 503 {
		t.Errorf("new stream while draining: status %d, want 503", status)
	}
	if _, err := s.Write([]byte("still")); err != nil {
		t.Fatal(err)
	}
	_ = s.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || string(got) != "still" {
		t.Errorf("live stream: %q, %v", got, err)
	}
	if left := r.drain.Wait(t.Context()); left != 0 {
		t.Errorf("%d connections left", left)
	}
}
