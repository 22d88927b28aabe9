package mesh_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issuer is an authority's certificate and key.
type issuer struct {
	cert *x509.Certificate
	key  any
}

// meshIssuer reads the mesh's own intermediate from istiod-lite's state, to sign
// what the authority itself would never sign.
func (m *mesh) meshIssuer(t *testing.T) issuer {
	t.Helper()
	var found string
	if err := filepath.WalkDir(m.state, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) == "intermediate.pem" {
			found = path
		}
		return err
	}); err != nil || found == "" {
		t.Fatalf("no intermediate.pem below %s: %v", m.state, err)
	}
	raw, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	var i issuer
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			i.cert, err = x509.ParseCertificate(block.Bytes)
		} else {
			i.key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return i
}

// foreignIssuer is an authority that the mesh does not know.
func foreignIssuer(t *testing.T) issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"cluster.local"}}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "cluster.local"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{cert, key}
}

// leaf writes a client certificate with its chain and key, and returns both paths.
func (i issuer) leaf(t *testing.T, dir, name string, edit func(*x509.Certificate)) (certPath, keyPath string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		NotBefore:   time.Now().Add(-10 * time.Minute), NotAfter: time.Now().Add(10 * time.Minute),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/apps/sa/client"}},
	}
	edit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, raw := range [][]byte{der, i.cert.Raw} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...)
	}
	certPath, keyPath = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	for path, content := range map[string][]byte{certPath: chain, keyPath: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certPath, keyPath
}

// TestOnlyTheMeshsIdentitiesOpenATunnel knocks at a pod's tunnel port with
// certificates that are wrong in one point each.
func TestOnlyTheMeshsIdentitiesOpenATunnel(t *testing.T) {
	m := start(t)
	dir := t.TempDir()
	mesh, foreign := m.meshIssuer(t), foreignIssuer(t)
	v4, _ := m.podIPs(t, "data/peer")
	uri := func(raw string) *url.URL {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	cases := []struct {
		name     string
		issuer   issuer
		edit     func(*x509.Certificate)
		accepted bool
	}{
		{"valid", mesh, func(*x509.Certificate) {}, true},
		{"foreign authority", foreign, func(*x509.Certificate) {}, false},
		{"foreign trust domain", mesh, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://elsewhere.example/ns/apps/sa/client")} }, false},
		{"expired", mesh, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}, false},
		{"not yet valid", mesh, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, false},
		{"no SPIFFE ID", mesh, func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"client.apps"} }, false},
		{"two SPIFFE IDs", mesh, func(c *x509.Certificate) { c.URIs = append(c.URIs, uri("spiffe://cluster.local/ns/apps/sa/other")) }, false},
		{"an authority's", mesh, func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cert, key := c.issuer.leaf(t, dir, strings.ReplaceAll(c.name, " ", "-"), c.edit)
			out, err := m.peer(t.Context(), stranger, "tls-open", v4+":15008", cert, key)
			if err != nil {
				t.Fatal(err)
			}
			if accepted := out == "accepted"; accepted != c.accepted {
				t.Errorf("%s", out)
			}
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		if out, err := m.peer(t.Context(), stranger, "tls-open", v4+":15008"); err != nil || out == "accepted" {
			t.Errorf("%s %v", out, err)
		}
	})
}
