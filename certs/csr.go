package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Reason names why a certificate signing request was refused. The values are
// few and fixed, so that they may label a metric.
type Reason string

// The reasons for which [ParseCSR] refuses.
const (
	ReasonTooLarge     Reason = "too_large"     // larger than MaxCSRBytes
	ReasonMalformed    Reason = "malformed"     // not one PEM block holding one request
	ReasonSignature    Reason = "bad_signature" // the signature is missing, weak or wrong
	ReasonKey          Reason = "weak_key"      // the key's type or size is not accepted
	ReasonName         Reason = "bad_name"      // another number or kind of names than one SPIFFE URI
	ReasonIdentity     Reason = "wrong_identity"
	ReasonExtension    Reason = "bad_extension" // an extension beyond what a leaf may have is asked for
	ReasonTrustDomain  Reason = "foreign_trust_domain"
	ReasonNotAvailable Reason = "authority_unavailable" // the authority itself cannot sign
)

// CSRError is the refusal of a certificate signing request, by fault of the
// request.
type CSRError struct {
	Reason Reason
	Detail string
	Err    error // may be nil
}

func (e *CSRError) Error() string {
	s := "certificate signing request refused (" + string(e.Reason) + "): " + e.Detail
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *CSRError) Unwrap() error { return e.Err }

func refuse(reason Reason, err error, format string, args ...any) *CSRError {
	return &CSRError{Reason: reason, Detail: fmt.Sprintf(format, args...), Err: err}
}

const csrPEMType = "CERTIFICATE REQUEST"

var (
	oidSubjectAltName    = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidSubjectKeyID      = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage          = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints  = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidExtendedKeyUsage  = asn1.ObjectIdentifier{2, 5, 29, 37}
	allowedCSRExtensions = []asn1.ObjectIdentifier{oidSubjectAltName, oidSubjectKeyID, oidKeyUsage, oidBasicConstraints, oidExtendedKeyUsage}
)

// allowedCSRSignatures leaves out SHA-1, which x509's CheckSignature still
// accepts on requests.
var allowedCSRSignatures = []x509.SignatureAlgorithm{
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512,
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
	x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
}

// ParseCSR parses a certificate signing request in PEM and checks everything
// that can be checked without knowing who asks: its size, its signature, its
// key (ECDSA P-256 or P-384, RSA of 2048 to 8192 bits) and that its only name
// is one SPIFFE ID, which it returns. The request's subject is ignored, as the
// issued certificate's is always empty. Errors are of type *CSRError.
func ParseCSR(csrPEM []byte) (*x509.CertificateRequest, spiffeid.ID, error) {
	if len(csrPEM) > MaxCSRBytes {
		return nil, spiffeid.ID{}, refuse(ReasonTooLarge, nil, "%d bytes, at most %d are read", len(csrPEM), MaxCSRBytes)
	}
	block, rest := pem.Decode(csrPEM)
	switch {
	case block == nil:
		return nil, spiffeid.ID{}, refuse(ReasonMalformed, nil, "no PEM block")
	case block.Type != csrPEMType:
		return nil, spiffeid.ID{}, refuse(ReasonMalformed, nil, "PEM block of type %.40q, want %q", block.Type, csrPEMType)
	case len(bytes.TrimSpace(rest)) > 0, bytes.Count(csrPEM, []byte(pemBegin)) != 1, len(block.Headers) > 0:
		return nil, spiffeid.ID{}, refuse(ReasonMalformed, nil, "more than one plain PEM block")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, spiffeid.ID{}, refuse(ReasonMalformed, err, "parse")
	}
	if err := checkRequestKey(req); err != nil {
		return nil, spiffeid.ID{}, err
	}
	if !slices.Contains(allowedCSRSignatures, req.SignatureAlgorithm) {
		return nil, spiffeid.ID{}, refuse(ReasonSignature, nil, "signature algorithm %v", req.SignatureAlgorithm)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, spiffeid.ID{}, refuse(ReasonSignature, err, "check")
	}
	id, err := requestIdentity(req)
	if err != nil {
		return nil, spiffeid.ID{}, err
	}
	return req, id, nil
}

func checkRequestKey(req *x509.CertificateRequest) error {
	switch key := req.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return refuse(ReasonKey, nil, "ECDSA on %s, want P-256 or P-384", key.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < MinRSABits || bits > MaxRSABits {
			return refuse(ReasonKey, nil, "RSA of %d bits, want %d to %d", bits, MinRSABits, MaxRSABits)
		}
		if key.E < minRSAExponent {
			return refuse(ReasonKey, nil, "RSA with public exponent %d, want at least %d", key.E, minRSAExponent)
		}
	case ed25519.PublicKey:
		return refuse(ReasonKey, nil, "Ed25519; want ECDSA P-256, P-384 or RSA")
	default:
		return refuse(ReasonKey, nil, "key algorithm %v; want ECDSA P-256, P-384 or RSA", req.PublicKeyAlgorithm)
	}
	return nil
}

// requestIdentity returns the one name of the request. It reads the extension
// itself, where x509 would pass over kinds of names that it does not know, such
// as otherName. That no extension is there twice x509 has checked.
func requestIdentity(req *x509.CertificateRequest) (spiffeid.ID, error) {
	var san *pkix.Extension
	for i, e := range req.Extensions {
		switch {
		case !slices.ContainsFunc(allowedCSRExtensions, e.Id.Equal):
			return spiffeid.ID{}, refuse(ReasonExtension, nil, "extension %v is not issued", e.Id)
		case e.Id.Equal(oidSubjectAltName):
			san = &req.Extensions[i]
		case e.Id.Equal(oidBasicConstraints):
			var c struct {
				IsCA       bool `asn1:"optional"`
				MaxPathLen int  `asn1:"optional,default:-1"`
			}
			if rest, err := asn1.Unmarshal(e.Value, &c); err != nil || len(rest) > 0 {
				return spiffeid.ID{}, refuse(ReasonExtension, err, "malformed basic constraints")
			}
			if c.IsCA {
				return spiffeid.ID{}, refuse(ReasonExtension, nil, "a certificate authority is asked for")
			}
		}
	}
	if san == nil {
		return spiffeid.ID{}, refuse(ReasonName, nil, "no subject alternative name, want one SPIFFE URI")
	}
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(san.Value, &names); err != nil || len(rest) > 0 {
		return spiffeid.ID{}, refuse(ReasonName, err, "malformed subject alternative name")
	}
	const uriTag = 6 // GeneralName's uniformResourceIdentifier, RFC 5280, 4.2.1.6
	if len(names) != 1 || names[0].Class != asn1.ClassContextSpecific || names[0].Tag != uriTag {
		return spiffeid.ID{}, refuse(ReasonName, nil, "%d subject alternative names (%d URI, %d DNS, %d IP, %d email), want one URI only",
			len(names), len(req.URIs), len(req.DNSNames), len(req.IPAddresses), len(req.EmailAddresses))
	}
	id, err := spiffeid.FromString(string(names[0].Bytes))
	if err != nil {
		return spiffeid.ID{}, refuse(ReasonName, err, "subject alternative name")
	}
	if id.Path() == "" {
		return spiffeid.ID{}, refuse(ReasonName, nil, "subject alternative name %s has no path", id)
	}
	return id, nil
}
