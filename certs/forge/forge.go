// Package forge makes certificates that a proper authority never would, for
// tests of what refuses them: expired ones, ones of a foreign trust domain,
// with two names or none, with wrong usages. It also serves where a test needs
// proper ones without an authority's directory.
//
// It is for tests only; every failure ends the test.
package forge

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Authority signs whatever it is told to.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// Above are the certificates from this authority's issuer up to, but
	// without, the root; Root is where they end.
	Above []*x509.Certificate
	Root  *x509.Certificate

	td spiffeid.TrustDomain
}

// Change alters a template before it is signed.
type Change func(*x509.Certificate)

// Root makes a self-signed authority of a trust domain, proper unless changed.
func Root(t testing.TB, trustDomain string, changes ...Change) *Authority {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString(trustDomain)
	key := Key(t)
	template := authorityTemplate(td, changes)
	cert := sign(t, template, template, key.Public(), key)
	return &Authority{Cert: cert, Key: key, Root: cert, td: td}
}

// Intermediate makes an authority below a, proper unless changed.
func (a *Authority) Intermediate(t testing.TB, changes ...Change) *Authority {
	t.Helper()
	key := Key(t)
	cert := sign(t, authorityTemplate(a.td, changes), a.Cert, key.Public(), a.Key)
	return &Authority{Cert: cert, Key: key, Above: a.chain(), Root: a.Root, td: a.td}
}

// Leaf makes a certificate for a SPIFFE ID, proper unless changed. The SVID's
// certificates are the leaf and the intermediates; it is not checked. The ID is
// zero when the name is no SPIFFE ID.
func (a *Authority) Leaf(t testing.TB, uri string, changes ...Change) *x509svid.SVID {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	template := base()
	template.URIs = []*url.URL{u}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, change := range changes {
		change(template)
	}
	key := Key(t)
	leaf := sign(t, template, a.Cert, key.Public(), a.Key)
	id, _ := spiffeid.FromString(uri)
	return &x509svid.SVID{ID: id, Certificates: append([]*x509.Certificate{leaf}, a.chain()...), PrivateKey: key}
}

// Bundle returns the root as the bundle of the authority's trust domain.
func (a *Authority) Bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(a.td, []*x509.Certificate{a.Root})
}

func (a *Authority) chain() []*x509.Certificate {
	if a.Cert == a.Root {
		return nil
	}
	return append([]*x509.Certificate{a.Cert}, a.Above...)
}

// Key makes an ECDSA P-256 key.
func Key(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Validity sets a certificate's times.
func Validity(notBefore, notAfter time.Time) Change {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = notBefore, notAfter }
}

func base() *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), BasicConstraintsValid: true}
}

func authorityTemplate(td spiffeid.TrustDomain, changes []Change) *x509.Certificate {
	template := base()
	// Subjects differ: where issuer and subject are the same, verifiers take a
	// certificate for self-signed.
	template.Subject = pkix.Name{CommonName: "forge " + rand.Text()}
	template.URIs = []*url.URL{td.ID().URL()}
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	for _, change := range changes {
		change(template)
	}
	return template
}

func sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
