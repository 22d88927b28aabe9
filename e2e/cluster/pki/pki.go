// Package pki makes the certificates and kubeconfigs of one cluster: its CA, the
// servers' and clients' certificates, and the key of the service accounts. They
// live as long as the cluster, and the CA's key never leaves its directory.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// lifetime is far beyond any test run and short enough that a forgotten
// directory is worth nothing in a year.
const lifetime = 365 * 24 * time.Hour

// Authority issues into a directory.
type Authority struct {
	dir  string
	cert *x509.Certificate
	pem  []byte
	key  *ecdsa.PrivateKey
}

// New makes an authority and writes ca.crt, ca.key and the service accounts' sa.key into dir.
func New(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster-ca"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cluster CA: %w", err)
	}
	a := &Authority{dir: dir, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if err := a.writePair("ca", a.pem, key); err != nil {
		return nil, err
	}
	serviceAccounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return a, a.writePair("sa", nil, serviceAccounts)
}

// Name is who a certificate speaks for: a user and its groups for clients, names
// and addresses for servers.
type Name struct {
	User   string
	Groups []string
	// Hosts are DNS names and addresses.
	Hosts []string
}

// Issue writes NAME.crt and NAME.key.
func (a *Authority) Issue(file string, n Name) error {
	_, _, err := a.issue(file, n)
	return err
}

// Kubeconfig writes FILE.kubeconfig, besides the certificate, for the API server at url.
func (a *Authority) Kubeconfig(file, url string, n Name) error {
	cert, key, err := a.issue(file, n)
	if err != nil {
		return err
	}
	b64 := base64.StdEncoding.EncodeToString
	config := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: tulle-e2e
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: %q
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: tulle-e2e
  context: {cluster: tulle-e2e, user: %q}
current-context: tulle-e2e
`, url, b64(a.pem), n.User, b64(cert), b64(key), n.User)
	return os.WriteFile(filepath.Join(a.dir, file+".kubeconfig"), []byte(config), 0o600)
}

func (a *Authority) issue(file string, n Name) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: n.User, Organization: n.Groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, h := range n.Hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", file, err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if keyPEM, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	return certPEM, keyPEM, a.writePair(file, certPEM, key)
}

func (a *Authority) writePair(file string, cert []byte, key *ecdsa.PrivateKey) error {
	if cert != nil {
		if err := os.WriteFile(filepath.Join(a.dir, file+".crt"), cert, 0o600); err != nil {
			return err
		}
	}
	b, err := encodeKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.dir, file+".key"), b, 0o600)
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
