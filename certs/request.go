package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// NewRequest makes a fresh ECDSA P-256 key and the certificate signing request
// for id in PEM: empty subject and one critical subject alternative name, as
// Istio's CA expects of a ztunnel.
func NewRequest(id spiffeid.ID) (crypto.Signer, []byte, error) {
	if id.IsZero() {
		return nil, nil, errors.New("certificate request without an identity")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key for %s: %w", id, err)
	}
	san, err := uriName(id)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		SignatureAlgorithm: x509.ECDSAWithSHA256,
		ExtraExtensions:    []pkix.Extension{san},
	}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate request for %s: %w", id, err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: csrPEMType, Bytes: der}), nil
}

// uriName returns the subject alternative name extension holding only id. It
// is critical because the subject is empty (RFC 5280, 4.2.1.6); x509 would not
// mark it so in a request.
func uriName(id spiffeid.ID) (pkix.Extension, error) {
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(id.String())}})
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("subject alternative name %s: %w", id, err)
	}
	return pkix.Extension{Id: oidSubjectAltName, Critical: true, Value: value}, nil
}

// IssuedError says that what an authority answered is not what was asked for.
type IssuedError struct {
	Identity spiffeid.ID
	Detail   string
	Err      error // may be nil
}

func (e *IssuedError) Error() string {
	s := "certificate issued for " + e.Identity.String() + ": " + e.Detail
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *IssuedError) Unwrap() error { return e.Err }

// VerifyIssued turns the answer to a request for id with key into an SVID and
// the bundle that came with it. chainPEM is as in an IstioCertificateResponse:
// the leaf first, then intermediates, the root bundle last. The leaf must carry
// key and, as only URI, id, and verify at now against the bundle. Errors are of
// type *IssuedError.
func VerifyIssued(chainPEM []string, key crypto.Signer, id spiffeid.ID, now time.Time) (*x509svid.SVID, *x509bundle.Bundle, error) {
	fail := func(err error, format string, args ...any) (*x509svid.SVID, *x509bundle.Bundle, error) {
		return nil, nil, &IssuedError{Identity: id, Detail: fmt.Sprintf(format, args...), Err: err}
	}
	if len(chainPEM) < 2 {
		return fail(nil, "%d parts in the chain, want the leaf first and the roots last", len(chainPEM))
	}
	total := 0
	for _, part := range chainPEM {
		total += len(part)
	}
	if total > MaxChainBytes {
		return fail(nil, "chain of %d bytes, at most %d are read", total, MaxChainBytes)
	}
	var chain []*x509.Certificate
	last := len(chainPEM) - 1
	for i, part := range chainPEM[:last] {
		certs, err := ParseChain([]byte(part))
		if err != nil {
			return fail(err, "part %d of the chain", i)
		}
		chain = append(chain, certs...)
	}
	roots, err := ParseChain([]byte(chainPEM[last]))
	if err != nil {
		return fail(err, "root bundle")
	}
	if len(chain)+len(roots) > MaxChainCertificates {
		return fail(nil, "%d certificates, at most %d are read", len(chain)+len(roots), MaxChainCertificates)
	}
	for _, root := range roots {
		if !root.IsCA {
			return fail(nil, "root bundle holds a certificate that is no authority (serial %x)", root.SerialNumber)
		}
	}

	leaf := chain[0]
	if public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return fail(nil, "the leaf holds another key than the one asked for")
	}
	bundle := x509bundle.FromX509Authorities(id.TrustDomain(), roots)
	got, _, err := x509svid.Verify(chain, bundle, x509svid.WithTime(now))
	if err != nil {
		return fail(err, "verify against the root bundle that came with it")
	}
	if got != id {
		return fail(nil, "the leaf is for %s", got)
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return fail(nil, "the leaf lacks the key usage digitalSignature")
	}
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}, bundle, nil
}
