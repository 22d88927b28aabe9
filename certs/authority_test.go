package certs_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/certs"
)

func TestALeafIsAnX509SVID(t *testing.T) {
	a := open(t, t.TempDir(), certs.AuthorityConfig{})
	id := identity("shop", "web")
	svid, bundle, err := certs.LocalSigner{Authority: a}.Sign(context.Background(), id)
	must(t, err)

	// go-spiffe, which is stricter when it parses than when it verifies.
	der, key, err := svid.MarshalRaw()
	must(t, err)
	parsed, err := x509svid.ParseRaw(der, key)
	must(t, err)
	if parsed.ID != id {
		t.Errorf("identity %s, want %s", parsed.ID, id)
	}
	if _, chains, err := x509svid.Verify(svid.Certificates, bundle); err != nil || len(chains) != 1 || len(chains[0]) != 3 {
		t.Errorf("verify: %v, chains %v, want one of leaf, intermediate, root", err, chains)
	}

	leaf := svid.Certificates[0]
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("key usage %b, want digitalSignature only", leaf.KeyUsage)
	}
	if !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) {
		t.Errorf("extended key usage %v", leaf.ExtKeyUsage)
	}
	if leaf.IsCA || !leaf.BasicConstraintsValid {
		t.Errorf("basic constraints: CA %v, valid %v", leaf.IsCA, leaf.BasicConstraintsValid)
	}
	if names := leaf.Subject.Names; len(names) != 0 {
		t.Errorf("subject %v, want none", names)
	}
	san := slices.IndexFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "2.5.29.17" })
	if san < 0 || !leaf.Extensions[san].Critical {
		t.Errorf("the subject alternative name is missing or not critical although the subject is empty")
	}
	if bits := leaf.SerialNumber.BitLen(); leaf.SerialNumber.Sign() <= 0 || bits > 159 {
		t.Errorf("serial number %v has %d bits", leaf.SerialNumber, bits)
	}
}

func TestTheAuthoritysOwnCertificates(t *testing.T) {
	a := open(t, t.TempDir(), certs.AuthorityConfig{})
	intermediate, root := a.Chain()[0], a.Chain()[1]
	for _, tt := range []struct {
		name    string
		cert    *x509.Certificate
		pathLen int
		life    time.Duration
	}{
		{"root", root, 1, certs.DefaultRootTTL},
		{"intermediate", intermediate, 0, certs.DefaultIntermediateTTL},
	} {
		c := tt.cert
		if !c.IsCA || c.MaxPathLen != tt.pathLen || c.MaxPathLenZero != (tt.pathLen == 0) {
			t.Errorf("%s: CA %v, path length %d (zero %v), want %d", tt.name, c.IsCA, c.MaxPathLen, c.MaxPathLenZero, tt.pathLen)
		}
		if c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
			t.Errorf("%s: key usage %b", tt.name, c.KeyUsage)
		}
		if len(c.URIs) != 1 || c.URIs[0].String() != "spiffe://cluster.local" {
			t.Errorf("%s: names %v, want the trust domain's ID", tt.name, c.URIs)
		}
		if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s: key %T", tt.name, c.PublicKey)
		}
		if life := c.NotAfter.Sub(c.NotBefore); life < tt.life || life > tt.life+certs.Backdate+time.Second {
			t.Errorf("%s lives %v, want %v", tt.name, life, tt.life)
		}
	}
	if td, err := spiffeid.TrustDomainFromURI(root.URIs[0]); err != nil || td != a.TrustDomain() {
		t.Errorf("trust domain %v, %v", td, err)
	}
	if !bytes.Equal(a.BundlePEM(), certs.EncodeChain(root)) || !a.Bundle().HasX509Authority(root) {
		t.Errorf("the bundle is not the root")
	}
}

func TestALeafsLifetime(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &clock{now}
	a := open(t, t.TempDir(), certs.AuthorityConfig{Now: c.Now, MaxLeafTTL: 48 * time.Hour})
	c.now = now.Add(time.Hour) // past the issuer's own backdating
	for _, tt := range []struct{ asked, want time.Duration }{
		{0, 24 * time.Hour},
		{-time.Hour, 24 * time.Hour},
		{time.Hour, time.Hour},
		{time.Nanosecond, certs.MinLeafTTL},
		{48 * time.Hour, 48 * time.Hour},
		{1 << 62, 48 * time.Hour},
	} {
		leaf := issue(t, a, identity("a", "b"), tt.asked).Leaf
		if got := leaf.NotAfter.Sub(c.now); got != tt.want {
			t.Errorf("asked for %v: lives %v, want %v", tt.asked, got, tt.want)
		}
		if got := c.now.Sub(leaf.NotBefore); got != certs.Backdate {
			t.Errorf("asked for %v: dated back %v, want %v", tt.asked, got, certs.Backdate)
		}
	}
}

func TestNoCertificateOutlivesItsIssuer(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &clock{start}
	a := open(t, t.TempDir(), certs.AuthorityConfig{Now: c.Now, RootTTL: 10 * 24 * time.Hour, IntermediateTTL: 4 * 24 * time.Hour})
	root := a.Chain()[1]
	for c.now.Before(root.NotAfter) {
		issued := issue(t, a, identity("a", "b"), 3*24*time.Hour)
		intermediate := a.Chain()[0]
		if err := issued.Leaf.CheckSignatureFrom(intermediate); err != nil {
			t.Fatal(err)
		}
		if issued.Leaf.NotAfter.After(intermediate.NotAfter) || intermediate.NotAfter.After(root.NotAfter) {
			t.Fatalf("at %v: leaf until %v, intermediate %v, root %v", c.now, issued.Leaf.NotAfter, intermediate.NotAfter, root.NotAfter)
		}
		if issued.Leaf.NotBefore.Before(intermediate.NotBefore) || intermediate.NotBefore.Before(root.NotBefore) {
			t.Fatalf("at %v: leaf from %v, intermediate %v, root %v", c.now, issued.Leaf.NotBefore, intermediate.NotBefore, root.NotBefore)
		}
		if _, _, err := x509svid.Verify([]*x509.Certificate{issued.Leaf, intermediate}, a.Bundle(), x509svid.WithTime(c.now)); err != nil {
			t.Fatalf("at %v: %v", c.now, err)
		}
		c.now = c.now.Add(5 * time.Hour)
	}
	_, csr, err := certs.NewRequest(identity("a", "b"))
	must(t, err)
	if _, err := a.Sign(csr, identity("a", "b"), 0); err == nil {
		t.Error("signed after the root's end")
	}
}

func TestALeafMadeAfterTheClockWasSetBackStartsWithItsIssuer(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &clock{start}
	a := open(t, t.TempDir(), certs.AuthorityConfig{Now: c.Now})
	c.now = start.Add(-time.Minute)
	if got, issuer := issue(t, a, identity("a", "b"), 0).Leaf.NotBefore, a.Chain()[0].NotBefore; !got.Equal(issuer) {
		t.Errorf("valid from %v, its issuer from %v", got, issuer)
	}
}

func TestTheIntermediateIsRenewedBeforeItExpires(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &clock{start}
	dir := t.TempDir()
	a := open(t, dir, certs.AuthorityConfig{Now: c.Now})
	first := a.Chain()[0]

	c.now = start.Add(certs.DefaultIntermediateTTL*2/3 - time.Hour)
	issue(t, a, identity("a", "b"), 0)
	if !a.Chain()[0].Equal(first) {
		t.Fatal("renewed in the first two thirds of its life")
	}
	c.now = start.Add(certs.DefaultIntermediateTTL*2/3 + time.Hour)
	issued := issue(t, a, identity("a", "b"), 0)
	second := a.Chain()[0]
	if second.Equal(first) {
		t.Fatal("not renewed in the last third of its life")
	}
	must(t, issued.Leaf.CheckSignatureFrom(second))

	must(t, a.Close())
	reopened := open(t, dir, certs.AuthorityConfig{Now: c.Now})
	if !reopened.Chain()[0].Equal(second) {
		t.Error("the renewed intermediate did not survive")
	}
}

func TestReopeningKeepsTheAuthority(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, certs.AuthorityConfig{})
	before := a.Chain()
	must(t, a.Close())
	must(t, a.Close()) // twice is fine
	b := open(t, dir, certs.AuthorityConfig{})
	if after := b.Chain(); !after[0].Equal(before[0]) || !after[1].Equal(before[1]) {
		t.Error("another chain after reopening")
	}
	for _, name := range []string{"root.pem", "intermediate.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %04o", name, mode)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, certs.RootBundleFile))
	must(t, err)
	if !bytes.Equal(text, b.BundlePEM()) {
		t.Errorf("%s is not the bundle", certs.RootBundleFile)
	}
}

func TestOpenRefusesWhatIsNotSafe(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		cfg   certs.AuthorityConfig
		want  string
	}{
		{name: "root key readable by the group",
			spoil: func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "root.pem"), 0o640)) },
			want:  "root.pem holds a private key and has mode 0640"},
		{name: "intermediate key readable by all",
			spoil: func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "intermediate.pem"), 0o604)) },
			want:  "intermediate.pem holds a private key and has mode 0604"},
		{name: "directory writable by all",
			spoil: func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777)) },
			want:  "may be written to by everybody"},
		{name: "another trust domain",
			cfg:  certs.AuthorityConfig{TrustDomain: spiffeid.RequireTrustDomainFromString("example.org")},
			want: "want spiffe://example.org"},
		{name: "root garbled",
			spoil: func(t *testing.T, dir string) {
				must(t, os.WriteFile(filepath.Join(dir, "root.pem"), []byte("x"), 0o600))
			},
			want: "root.pem: want a CERTIFICATE block first"},
		{name: "root with the intermediate's key",
			spoil: func(t *testing.T, dir string) {
				root, err := os.ReadFile(filepath.Join(dir, "root.pem"))
				must(t, err)
				intermediate, err := os.ReadFile(filepath.Join(dir, "intermediate.pem"))
				must(t, err)
				cut := func(b []byte) int { return bytes.Index(b, []byte("-----BEGIN PRIVATE")) }
				must(t, os.WriteFile(filepath.Join(dir, "root.pem"), append(root[:cut(root)], intermediate[cut(intermediate):]...), 0o600))
			},
			want: "the private key is not the certificate's"},
		{name: "root that is the intermediate",
			spoil: func(t *testing.T, dir string) {
				must(t, os.Rename(filepath.Join(dir, "intermediate.pem"), filepath.Join(dir, "root.pem")))
			},
			want: "not self-signed"},
		{name: "root expired",
			cfg:  certs.AuthorityConfig{Now: func() time.Time { return time.Now().Add(11 * 365 * 24 * time.Hour) }},
			want: "the root expired at"},
		{name: "root of endless size",
			spoil: func(t *testing.T, dir string) {
				must(t, os.Truncate(filepath.Join(dir, "root.pem"), 1<<30))
			},
			want: "is larger than"},
		{name: "root a directory",
			spoil: func(t *testing.T, dir string) {
				must(t, os.Remove(filepath.Join(dir, "root.pem")))
				must(t, os.Mkdir(filepath.Join(dir, "root.pem"), 0o700))
			},
			want: "not a regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			must(t, open(t, dir, certs.AuthorityConfig{}).Close())
			if tt.spoil != nil {
				tt.spoil(t, dir)
			}
			if tt.cfg.TrustDomain.IsZero() {
				tt.cfg.TrustDomain = td
			}
			a, err := certs.OpenAuthority(dir, tt.cfg)
			if err == nil {
				a.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestASpoiltIntermediateIsMadeAnew(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"cut":     func(path string) error { return os.Truncate(path, 300) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a := open(t, dir, certs.AuthorityConfig{})
			before := a.Chain()
			must(t, a.Close())
			must(t, spoil(filepath.Join(dir, "intermediate.pem")))
			b := open(t, dir, certs.AuthorityConfig{})
			if after := b.Chain(); !after[1].Equal(before[1]) || after[0].Equal(before[0]) {
				t.Error("want the same root and another intermediate")
			}
			issue(t, b, identity("a", "b"), 0)
		})
	}
}

func TestOneAuthorityPerDirectory(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, certs.AuthorityConfig{})
	if _, err := certs.OpenAuthority(dir, certs.AuthorityConfig{TrustDomain: td}); !errors.Is(err, certs.ErrInUse) {
		t.Errorf("second authority: %v, want ErrInUse", err)
	}
	must(t, a.Close())
	open(t, dir, certs.AuthorityConfig{})
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]certs.AuthorityConfig{
		"no trust domain":           {},
		"leaf over its maximum":     {TrustDomain: td, LeafTTL: 2 * time.Hour, MaxLeafTTL: time.Hour},
		"leaf over intermediate":    {TrustDomain: td, LeafTTL: 2 * time.Hour, IntermediateTTL: time.Hour},
		"intermediate over root":    {TrustDomain: td, IntermediateTTL: 48 * time.Hour, RootTTL: 24 * time.Hour},
		"leaf shorter than minimum": {TrustDomain: td, LeafTTL: time.Millisecond},
	} {
		dir := filepath.Join(t.TempDir(), "ca")
		if a, err := certs.OpenAuthority(dir, cfg); err == nil {
			a.Close()
			t.Errorf("%s: opened", name)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: the directory was made", name)
		}
	}
}

func TestServerCertificate(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &clock{start}
	a := open(t, t.TempDir(), certs.AuthorityConfig{Now: c.Now})
	if _, err := a.ServerCertificate(nil, nil); err == nil {
		t.Error("a certificate without a name was made")
	}
	source := a.ServerSource([]string{"istiod.istio-system.svc"}, []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("fd00::1")})
	first, err := source.Certificate()
	must(t, err)
	if len(first.Leaf.URIs) != 0 {
		t.Errorf("it has the names %v, and could pass for a workload", first.Leaf.URIs)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.Chain()[1])
	intermediate, err := x509.ParseCertificate(first.Certificate[1])
	must(t, err)
	intermediates.AddCert(intermediate)
	for _, name := range []string{"istiod.istio-system.svc", "10.0.0.1", "fd00::1"} {
		if _, err := first.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: intermediates, CurrentTime: c.now}); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}

	c.now = start.Add(11 * time.Hour)
	if again, _ := source.Certificate(); again != first {
		t.Error("renewed in the first half of its life")
	}
	c.now = start.Add(13 * time.Hour)
	if again, err := source.Certificate(); err != nil || again == first {
		t.Errorf("not renewed in the second half of its life: %v", err)
	}
}

func issue(t testing.TB, a *certs.Authority, id spiffeid.ID, ttl time.Duration) *certs.Issued {
	t.Helper()
	_, csr, err := certs.NewRequest(id)
	must(t, err)
	issued, err := a.Issue(csr, id, ttl)
	must(t, err)
	return issued
}

func BenchmarkIssue(b *testing.B) {
	a := open(b, b.TempDir(), certs.AuthorityConfig{})
	id := identity("shop", "web")
	_, csr, err := certs.NewRequest(id)
	must(b, err)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := a.Sign(csr, id, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}
