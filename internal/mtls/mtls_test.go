package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/certs/forge"
	"github.com/tulle-mesh/tulle/internal/mtls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	web   = "spiffe://cluster.local/ns/shop/sa/web"
	api   = "spiffe://cluster.local/ns/shop/sa/api"
	other = "spiffe://cluster.local/ns/shop/sa/other"
	alien = "spiffe://example.org/ns/shop/sa/web"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ids(uris ...string) []spiffeid.ID {
	var all []spiffeid.ID
	for _, u := range uris {
		all = append(all, spiffeid.RequireFromString(u))
	}
	return all
}

// result is what one side made of a handshake.
type result struct {
	state tls.ConnectionState
	err   error
}

// tcpPair returns two connected sockets. A net.Pipe would not do: it has no
// buffer, so that two sides that both send an alert wait for each other.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	a, err = net.Dial("tcp", l.Addr().String())
	must(t, err)
	b, err = l.Accept()
	must(t, err)
	return a, b
}

// handshake runs TLS between the two configurations up to the exchange of one
// byte each way: in TLS 1.3 a client learns only by reading that the server has
// refused its certificate.
func handshake(t testing.TB, client, server *tls.Config) (c, s result) {
	t.Helper()
	a, b := tcpPair(t)
	done := make(chan result, 1)
	run := func(conn *tls.Conn) (r result) {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if r.err = conn.Handshake(); r.err != nil {
			return r
		}
		r.state = conn.ConnectionState()
		written := make(chan error, 1)
		go func() {
			_, err := conn.Write([]byte{1})
			written <- err
		}()
		var one [1]byte
		_, r.err = conn.Read(one[:])
		if err := <-written; r.err == nil {
			r.err = err
		}
		return r
	}
	go func() { done <- run(tls.Server(b, server)) }()
	c = run(tls.Client(a, client))
	return c, <-done
}

func TestBothSidesSeeWhoTheOtherIs(t *testing.T) {
	ca := forge.Root(t, "cluster.local").Intermediate(t)
	for _, protocol := range []string{mtls.ProtocolH2, mtls.ProtocolH3} {
		c, s := handshake(t,
			mtls.Client(ca.Leaf(t, web), ca.Bundle(), ids(other, api), mtls.WithProtocol(protocol)),
			mtls.Server(ca.Leaf(t, api), ca.Bundle(), mtls.WithProtocol(protocol)))
		must(t, c.err)
		must(t, s.err)
		if id, err := mtls.Peer(c.state); err != nil || id.String() != api {
			t.Errorf("client sees %s, %v", id, err)
		}
		if id, err := mtls.Peer(s.state); err != nil || id.String() != web {
			t.Errorf("server sees %s, %v", id, err)
		}
		for name, state := range map[string]tls.ConnectionState{"client": c.state, "server": s.state} {
			if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != protocol || state.DidResume {
				t.Errorf("%s: version %x, protocol %q, resumed %v", name, state.Version, state.NegotiatedProtocol, state.DidResume)
			}
			if state.CurveID != tls.X25519MLKEM768 {
				t.Errorf("%s: key exchange %v", name, state.CurveID)
			}
			if state.ServerName != "" {
				t.Errorf("%s: a server name %q was sent", name, state.ServerName)
			}
			if got, want := mtls.NotAfter(state), state.PeerCertificates[0].NotAfter; !got.Equal(want) || got.IsZero() {
				t.Errorf("%s: not after %v, want the leaf's %v", name, got, want)
			}
		}
	}
}

func TestPeersThatAreRefused(t *testing.T) {
	root := forge.Root(t, "cluster.local")
	ca := root.Intermediate(t)
	impostor := forge.Root(t, "cluster.local").Intermediate(t)
	foreign := forge.Root(t, "example.org")
	both := x509bundle.NewSet(ca.Bundle(), foreign.Bundle())
	now := time.Now()

	asPeerError := func(err error) bool { return errors.As(err, new(*mtls.PeerError)) }
	asTrustDomainError := func(err error) bool { return errors.As(err, new(*mtls.TrustDomainError)) }
	asCertificateError := func(err error) bool { return errors.As(err, new(*mtls.CertificateError)) }

	long := ca.Leaf(t, web)
	for len(long.Certificates) <= 10 {
		long.Certificates = append(long.Certificates, ca.Cert)
	}

	for _, tt := range []struct {
		name    string
		svid    *x509svid.SVID // presented
		bundles x509bundle.Source
		// server and client say what a server and a client make of it; nil for
		// acceptance. The client expects web and alien.
		server, client func(error) bool
		want           string
	}{
		{name: "proper", svid: ca.Leaf(t, web), bundles: ca.Bundle()},
		{name: "another identity", svid: ca.Leaf(t, other), bundles: ca.Bundle(),
			client: asPeerError, want: "peer is " + other + ", want " + web},
		{name: "foreign trust domain without a bundle", svid: foreign.Leaf(t, alien), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "example.org"},
		{name: "foreign trust domain with a bundle", svid: foreign.Leaf(t, alien), bundles: both,
			server: asTrustDomainError, want: "want one of the trust domain cluster.local"},
		{name: "foreign identity by our authority", svid: ca.Leaf(t, alien), bundles: both,
			server: asCertificateError, client: asCertificateError, want: "unknown authority"},
		{name: "our identity by a foreign authority", svid: foreign.Leaf(t, web), bundles: both,
			server: asCertificateError, client: asCertificateError, want: "unknown authority"},
		{name: "an authority of the same name", svid: impostor.Leaf(t, web), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "unknown authority"},
		{name: "expired", svid: ca.Leaf(t, web, forge.Validity(now.Add(-2*time.Hour), now.Add(-time.Minute))), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "expired"},
		{name: "not valid yet", svid: ca.Leaf(t, web, forge.Validity(now.Add(time.Minute), now.Add(time.Hour))), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "not yet valid"},
		{name: "no name", svid: ca.Leaf(t, web, func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"web"} }), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "no URI SAN"},
		{name: "two names", svid: ca.Leaf(t, web, func(c *x509.Certificate) {
			c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/shop/sa/admin"})
		}), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "more than one URI SAN"},
		{name: "no SPIFFE ID", svid: ca.Leaf(t, "https://cluster.local/ns/shop/sa/web"), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "scheme"},
		{name: "a trust domain instead of a workload", svid: ca.Leaf(t, "spiffe://cluster.local"), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "needs a path"},
		{name: "an authority as leaf", svid: ca.Leaf(t, web, func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign }), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "CA flag"},
		{name: "no digitalSignature", svid: ca.Leaf(t, web, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "digitalSignature"},
		{name: "for servers only", svid: ca.Leaf(t, web, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), bundles: ca.Bundle(),
			server: asCertificateError, want: "exclude this side"},
		{name: "for clients only", svid: ca.Leaf(t, web, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), bundles: ca.Bundle(),
			client: asCertificateError, want: "exclude this side"},
		{name: "without extended key usages, as the standard allows", svid: ca.Leaf(t, web, func(c *x509.Certificate) { c.ExtKeyUsage = nil }), bundles: ca.Bundle()},
		{name: "intermediate missing", svid: &x509svid.SVID{PrivateKey: long.PrivateKey, Certificates: long.Certificates[:1]}, bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "unknown authority"},
		{name: "chain too long", svid: long, bundles: ca.Bundle(),
			server: asCertificateError, client: asCertificateError, want: "chain of 11 certificates"},
		{name: "no bundle at all", svid: ca.Leaf(t, web), bundles: x509bundle.NewSet(),
			server: asCertificateError, client: asCertificateError, want: "no X.509 bundle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			judge := func(side string, refusing, refused result, is func(error) bool) {
				t.Helper()
				switch {
				case is == nil && (refusing.err != nil || refused.err != nil):
					t.Errorf("the %s refuses: %v (the other side: %v)", side, refusing.err, refused.err)
				case is != nil && !is(refusing.err):
					t.Errorf("the %s says %v, of type %T", side, refusing.err, refusing.err)
				case is != nil && !strings.Contains(refusing.err.Error(), tt.want):
					t.Errorf("the %s says %q, want %q", side, refusing.err, tt.want)
				case is != nil && refused.err == nil:
					t.Errorf("the %s refuses but the other side does not notice", side)
				}
			}
			own := ca.Leaf(t, api)
			// The client of the first and the server of the second handshake
			// trust everything that the other side says.
			c, s := handshake(t, lax(tt.svid), mtls.Server(own, tt.bundles))
			judge("server", s, c, tt.server)
			c, s = handshake(t, mtls.Client(own, tt.bundles, ids(web, alien)), lax(tt.svid))
			judge("client", c, s, tt.client)
		})
	}
}

// lax is a peer that presents svid and checks nothing.
func lax(svid *x509svid.SVID) *tls.Config {
	cert := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2"},
	}
}

func TestAClientThatExpectsNobodyRefusesEverybody(t *testing.T) {
	ca := forge.Root(t, "cluster.local")
	c, _ := handshake(t, mtls.Client(ca.Leaf(t, web), ca.Bundle(), nil), mtls.Server(ca.Leaf(t, api), ca.Bundle()))
	var refused *mtls.PeerError
	if !errors.As(c.err, &refused) || refused.Got.String() != api || len(refused.Expected) != 0 {
		t.Errorf("error %v", c.err)
	}
}

func TestClientsWithoutACertificateOrWithOldTLSAreRefused(t *testing.T) {
	ca := forge.Root(t, "cluster.local")
	server := mtls.Server(ca.Leaf(t, api), ca.Bundle())
	svid := ca.Leaf(t, web)
	for name, change := range map[string]func(*tls.Config){
		"no certificate":   func(c *tls.Config) { c.Certificates = nil },
		"TLS 1.2":          func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
		"no ALPN":          func(c *tls.Config) { c.NextProtos = nil },
		"another protocol": func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} },
	} {
		cfg := lax(svid)
		change(cfg)
		c, s := handshake(t, cfg, server)
		if s.err == nil || c.err == nil {
			t.Errorf("%s: server says %v, client %v", name, s.err, c.err)
		}
	}
	// A server without ALPN is no tunnel's end.
	cfg := lax(ca.Leaf(t, api))
	cfg.NextProtos = nil
	c, _ := handshake(t, mtls.Client(svid, ca.Bundle(), ids(api)), cfg)
	var protocol *mtls.ProtocolError
	if !errors.As(c.err, &protocol) || protocol.Want != "h2" {
		t.Errorf("server without ALPN: %v", c.err)
	}
}

// rotating is a source whose certificate changes.
type rotating struct{ svid atomic.Pointer[x509svid.SVID] }

func (r *rotating) GetX509SVID() (*x509svid.SVID, error) {
	if svid := r.svid.Load(); svid != nil {
		return svid, nil
	}
	return nil, errors.New("none yet")
}

func TestCertificatesAreFetchedAtEachHandshake(t *testing.T) {
	ca := forge.Root(t, "cluster.local")
	var clientSource, serverSource rotating
	client := mtls.Client(&clientSource, ca.Bundle(), ids(api))
	server := mtls.Server(&serverSource, ca.Bundle())
	if _, s := handshake(t, client, server); s.err == nil || !strings.Contains(s.err.Error(), "none yet") {
		t.Errorf("without a certificate: %v", s.err)
	}
	var seen []string
	for range 2 {
		clientSource.svid.Store(ca.Leaf(t, web))
		serverSource.svid.Store(ca.Leaf(t, api))
		for range 2 {
			c, s := handshake(t, client, server)
			must(t, errors.Join(c.err, s.err))
			seen = append(seen, c.state.PeerCertificates[0].SerialNumber.String(), s.state.PeerCertificates[0].SerialNumber.String())
			if c.state.DidResume || s.state.DidResume {
				t.Error("resumed")
			}
		}
	}
	slices.Sort(seen)
	if n := len(slices.Compact(seen)); n != 4 {
		t.Errorf("%d certificates seen, want 4", n)
	}
}

func TestAConfigurationSurvivesCloning(t *testing.T) {
	// quic-go and grpc-go clone the configuration they are given and set a
	// server name from the address they dial.
	ca := forge.Root(t, "cluster.local")
	client := mtls.Client(ca.Leaf(t, web), ca.Bundle(), ids(api)).Clone()
	client.ServerName = "10.0.0.1"
	c, s := handshake(t, client, mtls.Server(ca.Leaf(t, api), ca.Bundle()).Clone())
	must(t, errors.Join(c.err, s.err))
	if s.state.ServerName != "" {
		t.Errorf("server name %q was sent", s.state.ServerName)
	}
}

func TestPeerNeedsAFinishedHandshake(t *testing.T) {
	if _, err := mtls.Peer(tls.ConnectionState{}); err == nil {
		t.Error("a peer without a handshake")
	}
	if at := mtls.NotAfter(tls.ConnectionState{}); !at.IsZero() {
		t.Errorf("not after %v", at)
	}
}

func TestClockIsTheGivenOne(t *testing.T) {
	ca := forge.Root(t, "cluster.local")
	later := mtls.WithNow(func() time.Time { return time.Now().Add(2 * time.Hour) })
	c, _ := handshake(t, mtls.Client(ca.Leaf(t, web), ca.Bundle(), ids(api), later), mtls.Server(ca.Leaf(t, api), ca.Bundle()))
	if c.err == nil || !strings.Contains(c.err.Error(), "expired") {
		t.Errorf("error %v", c.err)
	}
}

func BenchmarkHandshake(b *testing.B) {
	ca := forge.Root(b, "cluster.local").Intermediate(b)
	client := mtls.Client(ca.Leaf(b, web), ca.Bundle(), ids(api))
	server := mtls.Server(ca.Leaf(b, api), ca.Bundle())
	b.ReportAllocs()
	for b.Loop() {
		c, s := handshake(b, client, server)
		if err := errors.Join(c.err, s.err); err != nil {
			b.Fatal(err)
		}
	}
}
