package certs_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/forge"
)

var config = certs.AuthorityConfig{TrustDomain: td}

// pluggedIn is what an operator with authorities of their own would bring.
func pluggedIn(t testing.TB, signer *forge.Authority) certs.Material {
	t.Helper()
	chain := append([]*x509.Certificate{signer.Cert}, signer.Above...)
	return certs.Material{
		Certificate: certs.Part{Name: "ca-cert.pem", PEM: certs.EncodeChain(signer.Cert)},
		Key:         certs.Part{Name: "ca-key.pem", PEM: pkcs8(t, signer.Key)},
		Chain:       certs.Part{Name: "cert-chain.pem", PEM: certs.EncodeChain(chain...)},
		Roots:       certs.Part{Name: "root-cert.pem", PEM: certs.EncodeChain(signer.Root)},
	}
}

func pkcs8(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// signs checks that what a signs is believed by who has its bundle, by a chain
// of that many certificates with the root.
func signs(t testing.TB, a *certs.Authority, length int) {
	t.Helper()
	svid, bundle, err := certs.LocalSigner{Authority: a}.Sign(context.Background(), identity("shop", "web"))
	must(t, err)
	if _, chains, err := x509svid.Verify(svid.Certificates, bundle); err != nil || len(chains[0]) != length {
		t.Errorf("verify: %v, chains %v, want %d certificates", err, chains, length)
	}
	server, err := a.ServerCertificate([]string{"istiod.istio-system.svc"}, nil)
	must(t, err)
	if len(server.Certificate) != length-1 {
		t.Errorf("the server presents %d certificates, want %d", len(server.Certificate), length-1)
	}
}

func TestASelfSignedMaterialSignsByItself(t *testing.T) {
	m, err := certs.NewMaterial(config)
	must(t, err)
	a, err := certs.NewAuthority(m, config)
	must(t, err)
	signs(t, a, 2)
	if chain := a.Chain(); len(chain) != 1 || !a.Bundle().HasX509Authority(chain[0]) {
		t.Errorf("chain of %d certificates, want the root alone", len(chain))
	}
	again, err := certs.NewAuthority(m, config)
	must(t, err)
	if string(a.BundlePEM()) != string(again.BundlePEM()) {
		t.Error("two authorities of one material have different roots")
	}
	must(t, a.Close())
}

func TestAPluggedInAuthorityMayBeDeep(t *testing.T) {
	root := forge.Root(t, "cluster.local")
	middle := root.Intermediate(t)
	for name, m := range map[string]certs.Material{
		"below the root": pluggedIn(t, root.Intermediate(t)),
		"deeper":         pluggedIn(t, middle.Intermediate(t)),
		"tls.crt": func() certs.Material {
			m := pluggedIn(t, middle.Intermediate(t))
			m.Certificate, m.Chain = certs.Part{Name: "tls.crt", PEM: m.Chain.PEM}, certs.Part{}
			return m
		}(),
		"with the root in the chain": func() certs.Material {
			m := pluggedIn(t, middle.Intermediate(t))
			m.Chain.PEM = append(m.Chain.PEM, m.Roots.PEM...)
			return m
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			a, err := certs.NewAuthority(m, config)
			must(t, err)
			length := 4
			if name == "below the root" {
				length = 3
			}
			signs(t, a, length)
		})
	}
}

// TestOlderFormsOfKeys are what openssl and Istio write.
func TestOlderFormsOfKeys(t *testing.T) {
	root := forge.Root(t, "cluster.local")
	ec, err := x509.MarshalECPrivateKey(root.Key.(*ecdsa.PrivateKey))
	must(t, err)
	m := pluggedIn(t, root)
	m.Key.PEM = append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ec})...)
	a, err := certs.NewAuthority(m, config)
	must(t, err)
	signs(t, a, 2)

	// Istio's own: RSA, without names.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: root.Cert.SerialNumber, Subject: pkix.Name{Organization: []string{"cluster.local"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a, err = certs.NewAuthority(certs.Material{
		Certificate: certs.Part{PEM: cert}, Roots: certs.Part{PEM: cert},
		Key: certs.Part{PEM: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})},
	}, config)
	must(t, err)
	signs(t, a, 2)
}

func TestAMaterialThatWouldNotBeBelievedIsRefused(t *testing.T) {
	root := forge.Root(t, "cluster.local")
	expired := forge.Validity(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	oldRoot := forge.Root(t, "cluster.local", expired)
	oldMiddle := root.Intermediate(t, expired)
	for name, tt := range map[string]struct {
		signer *forge.Authority
		spoil  func(*certs.Material)
		want   string
	}{
		"another key": {root.Intermediate(t), func(m *certs.Material) { m.Key.PEM = pkcs8(t, forge.Key(t)) }, "ca-key.pem is not the private key"},
		"no key":      {root.Intermediate(t), func(m *certs.Material) { m.Key.PEM = []byte("secret stuff") }, "ca-key.pem: no private key"},
		"garbled key": {root.Intermediate(t), func(m *certs.Material) {
			m.Key.PEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret stuff")})
		}, "ca-key.pem: the private key cannot be parsed"},
		"encrypted key": {root.Intermediate(t), func(m *certs.Material) {
			m.Key.PEM = pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
		}, "ca-key.pem: PEM block of type"},
		"two keys":           {root.Intermediate(t), func(m *certs.Material) { m.Key.PEM = append(m.Key.PEM, m.Key.PEM...) }, "ca-key.pem: more than one"},
		"key as certificate": {root.Intermediate(t), func(m *certs.Material) { m.Certificate.PEM = m.Key.PEM }, "ca-cert.pem: PEM block of type"},
		"no roots":           {root.Intermediate(t), func(m *certs.Material) { m.Roots.PEM = nil }, "root-cert.pem: no certificate"},
		"broken chain":       {root.Intermediate(t), func(m *certs.Material) { m.Chain.PEM = m.Chain.PEM[:100] }, "cert-chain.pem: "},
		"other root":         {root.Intermediate(t), func(m *certs.Material) { m.Roots.PEM = certs.EncodeChain(forge.Root(t, "cluster.local").Cert) }, "does not lead to a root of root-cert.pem"},
		"gap in the chain":   {root.Intermediate(t).Intermediate(t), func(m *certs.Material) { m.Chain.PEM = nil }, "does not lead to a root of root-cert.pem"},
		"expired root":       {oldRoot.Intermediate(t), nil, "does not lead to a root"},
		"expired":            {oldMiddle, nil, "ca-cert.pem: the certificate expired at"},
		"expired in between": {oldMiddle.Intermediate(t), nil, "does not lead to a root"},
		"of the future":      {root.Intermediate(t, forge.Validity(time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))), nil, "valid only from"},
		"no authority":       {root.Intermediate(t, func(c *x509.Certificate) { c.IsCA = false }), nil, "basic constraints without CA"},
		"may not sign":       {root.Intermediate(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), nil, "key usage without certificate signing"},
		"no subject":         {root.Intermediate(t, func(c *x509.Certificate) { c.Subject = pkix.Name{} }), nil, "empty subject"},
		"trust domain":       {forge.Root(t, "other.example"), nil, "the certificate is for spiffe://other.example"},
		"path too short":     {root.Intermediate(t, func(c *x509.Certificate) { c.MaxPathLenZero = true }).Intermediate(t), nil, "ca-cert.pem"},
		"leaf as root": {root.Intermediate(t), func(m *certs.Material) {
			m.Roots.PEM = append(m.Roots.PEM, certs.EncodeChain(root.Leaf(t, "spiffe://cluster.local/x").Certificates...)...)
		}, "root-cert.pem: certificate 1"},
		"name constraints": {root.Intermediate(t, func(c *x509.Certificate) {
			c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"other.example"}, true
		}), nil, "would not be believed"},
		"usages": {root.Intermediate(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), nil, "would not be believed"},
	} {
		t.Run(name, func(t *testing.T) {
			m := pluggedIn(t, tt.signer)
			if tt.spoil != nil {
				tt.spoil(&m)
			}
			_, err := certs.NewAuthority(m, config)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret stuff") {
				t.Errorf("the error holds the key: %v", err)
			}
		})
	}
}

func TestTheSigningCertificateIsReplacedUnderTheSameRoots(t *testing.T) {
	root := forge.Root(t, "cluster.local")
	first, second := root.Intermediate(t), root.Intermediate(t)
	a, err := certs.NewAuthority(pluggedIn(t, first), config)
	must(t, err)
	source := a.ServerSource([]string{"istiod"}, nil)
	before, err := source.Certificate()
	must(t, err)
	if changed, err := a.Replace(pluggedIn(t, first)); err != nil || changed {
		t.Errorf("the same material: changed %v, %v", changed, err)
	}
	changed, err := a.Replace(pluggedIn(t, second))
	if err != nil || !changed || !a.Chain()[0].Equal(second.Cert) {
		t.Errorf("changed %v, %v", changed, err)
	}
	if err := issue(t, a, identity("a", "b"), 0).Leaf.CheckSignatureFrom(second.Cert); err != nil {
		t.Error(err)
	}
	if after, err := source.Certificate(); err != nil || after == before || after.Leaf.CheckSignatureFrom(second.Cert) != nil {
		t.Errorf("the server goes on with the old certificate: %v", err)
	}

	for name, m := range map[string]certs.Material{
		"another root": pluggedIn(t, forge.Root(t, "cluster.local").Intermediate(t)),
		"one root more": func() certs.Material {
			m := pluggedIn(t, first)
			m.Roots.PEM = append(m.Roots.PEM, certs.EncodeChain(forge.Root(t, "cluster.local").Cert)...)
			return m
		}(),
	} {
		var roots *certs.RootsError
		if _, err := a.Replace(m); !errors.As(err, &roots) {
			t.Errorf("%s: %v, want a RootsError", name, err)
		}
	}
	if _, err := a.Replace(certs.Material{}); err == nil {
		t.Error("an empty material is taken")
	}
	if !a.Chain()[0].Equal(second.Cert) {
		t.Error("a refused material changed what is in force")
	}
	if _, err := open(t, t.TempDir(), certs.AuthorityConfig{}).Replace(pluggedIn(t, first)); err == nil {
		t.Error("an authority with a directory is replaced")
	}
}

// TestNoLeafOutlivesTheChainAboveIt has the certificate in between end first.
func TestNoLeafOutlivesTheChainAboveIt(t *testing.T) {
	now := time.Now()
	root := forge.Root(t, "cluster.local")
	middle := root.Intermediate(t, forge.Validity(now.Add(-time.Hour), now.Add(10*time.Minute)))
	a, err := certs.NewAuthority(pluggedIn(t, middle.Intermediate(t)), config)
	must(t, err)
	leaf := issue(t, a, identity("a", "b"), time.Hour).Leaf
	if leaf.NotAfter.After(middle.Cert.NotAfter) {
		t.Errorf("the leaf lives until %v, its chain until %v", leaf.NotAfter, middle.Cert.NotAfter)
	}
}

func FuzzMaterial(f *testing.F) {
	root := forge.Root(f, "cluster.local")
	m := pluggedIn(f, root.Intermediate(f))
	f.Add(m.Certificate.PEM, m.Key.PEM, m.Chain.PEM, m.Roots.PEM)
	for i := 0; i < len(m.Key.PEM); i += 40 { // cut short
		f.Add(m.Certificate.PEM[:min(i*3, len(m.Certificate.PEM))], m.Key.PEM[:i], m.Chain.PEM, m.Roots.PEM)
	}
	f.Fuzz(func(t *testing.T, cert, key, chain, roots []byte) {
		m := certs.Material{Certificate: certs.Part{PEM: cert}, Key: certs.Part{PEM: key}, Chain: certs.Part{PEM: chain}, Roots: certs.Part{PEM: roots}}
		a, err := certs.NewAuthority(m, config)
		if err != nil {
			return
		}
		svid, bundle, err := certs.LocalSigner{Authority: a}.Sign(context.Background(), identity("shop", "web"))
		must(t, err)
		_, _, err = x509svid.Verify(svid.Certificates, bundle)
		must(t, err)
	})
}
