package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/forge"
	"github.com/tulle-mesh/tulle/internal/mtls"
)

const istiod = "istiod.istio-system.svc"

// named is a certificate for DNS names and addresses.
func named(t testing.TB, ca *forge.Authority, changes ...forge.Change) func() (*tls.Certificate, error) {
	t.Helper()
	svid := ca.Leaf(t, web, append([]forge.Change{func(c *x509.Certificate) {
		c.URIs = nil
		c.DNSNames = []string{istiod}
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}}, changes...)...)
	cert := &tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return func() (*tls.Certificate, error) { return cert, nil }
}

func TestTheControlPlaneIsKnownByItsName(t *testing.T) {
	root := forge.Root(t, "cluster.local")
	ca := root.Intermediate(t)
	roots, err := mtls.RootsFromPEM(certs.EncodeChain(root.Cert))
	must(t, err)
	wrong, err := mtls.RootsFromPEM(certs.EncodeChain(forge.Root(t, "cluster.local").Cert))
	must(t, err)
	now := time.Now()
	workload := ca.Leaf(t, "spiffe://cluster.local/ns/istio-system/sa/istiod")
	for _, tt := range []struct {
		name   string
		client *tls.Config
		server func() (*tls.Certificate, error)
		want   string // "" for acceptance
	}{
		{"proper", mtls.ControlPlaneClient(roots, istiod), named(t, ca), ""},
		{"by address", mtls.ControlPlaneClient(roots, "127.0.0.1"), named(t, ca), ""},
		{"another name", mtls.ControlPlaneClient(roots, "istiod.evil.svc"), named(t, ca), "istiod.evil.svc"},
		{"no name to check", mtls.ControlPlaneClient(roots, ""), named(t, ca), "no server name"},
		{"another root", mtls.ControlPlaneClient(wrong, istiod), named(t, ca), "unknown authority"},
		{"expired", mtls.ControlPlaneClient(roots, istiod), named(t, ca, forge.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour))), "expired"},
		{"for clients", mtls.ControlPlaneClient(roots, istiod), named(t, ca, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), "key usage"},
		{"a workload posing as it", mtls.ControlPlaneClient(roots, istiod), func() (*tls.Certificate, error) {
			return &tls.Certificate{PrivateKey: workload.PrivateKey, Certificate: [][]byte{workload.Certificates[0].Raw, ca.Cert.Raw}}, nil
		}, "not valid for any names"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, s := handshake(t, tt.client, mtls.ControlPlaneServer(tt.server))
			if tt.want == "" {
				must(t, errors.Join(c.err, s.err))
				if c.state.Version != tls.VersionTLS13 || c.state.NegotiatedProtocol != "h2" || len(s.state.PeerCertificates) > 0 {
					t.Errorf("version %x, protocol %q", c.state.Version, c.state.NegotiatedProtocol)
				}
				return
			}
			if c.err == nil || !strings.Contains(c.err.Error(), tt.want) {
				t.Errorf("client says %v, want %q", c.err, tt.want)
			}
		})
	}
}

func TestRootsInAFileAreReadAtEachHandshake(t *testing.T) {
	old, fresh := forge.Root(t, "cluster.local"), forge.Root(t, "cluster.local")
	path := filepath.Join(t.TempDir(), "root-cert.pem")
	client := mtls.ControlPlaneClient(mtls.RootsFromFile(path), istiod)
	try := func(ca *forge.Authority) error {
		c, _ := handshake(t, client, mtls.ControlPlaneServer(named(t, ca)))
		return c.err
	}
	if err := try(old); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without the file: %v, want an error naming it", err)
	}
	must(t, os.WriteFile(path, certs.EncodeChain(old.Cert), 0o600))
	must(t, try(old))
	if err := try(fresh); err == nil {
		t.Error("the new root is trusted before it is in the file")
	}
	must(t, os.WriteFile(path, certs.EncodeChain(old.Cert, fresh.Cert), 0o600))
	must(t, try(fresh))
	for name, text := range map[string][]byte{"no PEM": []byte("x"), "endless": make([]byte, 2<<20)} {
		must(t, os.WriteFile(path, text, 0o600))
		if err := try(old); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error naming the file", name, err)
		}
	}
	if _, err := mtls.RootsFromPEM(nil); err == nil {
		t.Error("roots from nothing")
	}
}
