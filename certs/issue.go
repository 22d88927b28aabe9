package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// newRoot makes a self-signed root. One level of intermediates may follow it.
func newRoot(cfg AuthorityConfig, now time.Time) (*issuer, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := authorityTemplate(cfg.TrustDomain, "root")
	template.MaxPathLen = 1
	self := &issuer{cert: template, key: key}
	template.NotAfter = now.Add(cfg.RootTTL)
	cert, err := self.sign(template, key.Public(), now, cfg.RootTTL)
	if err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	return &issuer{cert: cert, key: key}, nil
}

// newIntermediate makes an intermediate below which only leaves may follow.
func newIntermediate(cfg AuthorityConfig, root *issuer, now time.Time) (*issuer, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := authorityTemplate(cfg.TrustDomain, "intermediate")
	template.MaxPathLenZero = true
	cert, err := root.sign(template, key.Public(), now, cfg.IntermediateTTL)
	if err != nil {
		return nil, fmt.Errorf("make intermediate: %w", err)
	}
	return &issuer{cert: cert, key: key}, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

// authorityTemplate is a signing certificate of the X509-SVID standard, section
// 3.2 and 4: its SPIFFE ID is the trust domain itself, its only usages are
// signing certificates and revocation lists. The subject is for people who read
// a chain; successive intermediates share it and differ in their key identifier.
func authorityTemplate(td spiffeid.TrustDomain, role string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{
			Organization: []string{td.Name()},
			CommonName:   "Tulle " + role,
		},
		URIs:                  []*url.URL{td.ID().URL()},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// leafTemplate is the X509-SVID of id. Key encipherment is left out: TLS 1.3
// never enciphers with the certificate's key.
// The subject is empty, for which x509 marks the SAN critical by itself.
func leafTemplate(id spiffeid.ID) *x509.Certificate {
	return &x509.Certificate{
		URIs:                  []*url.URL{id.URL()},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
}

// sign signs template for key with a fresh serial and a validity from a little
// before now to ttl after it, kept within the issuer's own.
func (i *issuer) sign(template *x509.Certificate, key crypto.PublicKey, now time.Time, ttl time.Duration) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	notAfter := now.Add(ttl)
	if notAfter.After(i.cert.NotAfter) {
		notAfter = i.cert.NotAfter
	}
	notBefore := now.Add(-Backdate)
	if notBefore.Before(i.cert.NotBefore) {
		notBefore = i.cert.NotBefore
	}
	if !notAfter.After(now) {
		return nil, fmt.Errorf("the issuer (serial %s) expired at %s", SerialText(i.cert.SerialNumber), i.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	template.NotBefore, template.NotAfter = notBefore, notAfter
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, key, i.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial returns a positive number of serialBits random bits.
func newSerial() (*big.Int, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), serialBits)
	for {
		serial, err := rand.Int(rand.Reader, limit)
		if err != nil {
			return nil, fmt.Errorf("serial number: %w", err)
		}
		if serial.Sign() > 0 {
			return serial, nil
		}
	}
}

// ServerCertificate makes a key and a certificate for a server that is known by
// DNS names and addresses instead of a SPIFFE ID: the control plane's own port,
// which proxies reach before they have an identity. It lives as long as a leaf
// of the default lifetime; [ServerSource] keeps it fresh.
func (a *Authority) ServerCertificate(dnsNames []string, addresses []netip.Addr) (*tls.Certificate, error) {
	if len(dnsNames)+len(addresses) == 0 {
		return nil, errors.New("server certificate: no name and no address")
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		DNSNames:              dnsNames,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, addr := range addresses {
		template.IPAddresses = append(template.IPAddresses, addr.Unmap().AsSlice())
	}
	leaf, by, err := a.sign(template, key.Public(), 0)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, above := range by.chain {
		cert.Certificate = append(cert.Certificate, above.Raw)
	}
	return cert, nil
}
