package certs_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/certs"
)

const web = "spiffe://cluster.local/ns/shop/sa/web"

func parseURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	must(t, err)
	return u
}

// csrFor makes a request as the template says.
func csrFor(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func ecKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	must(t, err)
	return key
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	must(t, err)
	return key
}

// names makes a subject alternative name extension of raw general names.
func names(t testing.TB, raw ...asn1.RawValue) []pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(raw)
	must(t, err)
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
}

func uriName(s string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(s)}
}

func TestRequestsThatAreSigned(t *testing.T) {
	a := open(t, t.TempDir(), certs.AuthorityConfig{})
	id := spiffeid.RequireFromString(web)
	one := &x509.CertificateRequest{URIs: []*url.URL{parseURL(t, web)}}
	_, own, err := certs.NewRequest(id)
	must(t, err)
	for name, csr := range map[string][]byte{
		"our own":    own,
		"ECDSA P256": csrFor(t, ecKey(t, elliptic.P256()), one),
		"ECDSA P384": csrFor(t, ecKey(t, elliptic.P384()), one),
		"RSA 2048":   csrFor(t, rsaKey(t, 2048), one),
		"RSA-PSS": csrFor(t, rsaKey(t, 2048), &x509.CertificateRequest{
			SignatureAlgorithm: x509.SHA256WithRSAPSS, URIs: one.URIs}),
		"with a subject, which is ignored": csrFor(t, ecKey(t, elliptic.P256()), &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, URIs: one.URIs}),
		"with blank lines around": append([]byte("\n\n"), append(slices.Clone(own), '\n', '\n')...),
	} {
		t.Run(name, func(t *testing.T) {
			issued, err := a.Issue(csr, id, 0)
			must(t, err)
			if len(issued.Leaf.URIs) != 1 || issued.Leaf.URIs[0].String() != web {
				t.Errorf("names %v", issued.Leaf.URIs)
			}
			if len(issued.Leaf.Subject.Names) != 0 {
				t.Errorf("subject %v came through", issued.Leaf.Subject)
			}
			if len(issued.Chain) != 3 {
				t.Errorf("chain of %d parts", len(issued.Chain))
			}
		})
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	a := open(t, t.TempDir(), certs.AuthorityConfig{})
	id := spiffeid.RequireFromString(web)
	key := ecKey(t, elliptic.P256())
	uri := parseURL(t, web)
	_, good, err := certs.NewRequest(id)
	must(t, err)
	block, _ := pem.Decode(good)
	// The last byte of a request is the signature's.
	broken := slices.Clone(block.Bytes)
	broken[len(broken)-1] ^= 1
	// The request of one key carrying another's signature.
	_, other, err := certs.NewRequest(id)
	must(t, err)
	encode := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	caConstraint, err := asn1.Marshal(struct{ IsCA bool }{true})
	must(t, err)
	weakExponent := rsaKey(t, 2048)

	for _, tt := range []struct {
		name   string
		csr    []byte
		id     spiffeid.ID
		reason certs.Reason
	}{
		{"nothing", nil, id, certs.ReasonMalformed},
		{"no PEM", []byte("hello"), id, certs.ReasonMalformed},
		{"DER without PEM", block.Bytes, id, certs.ReasonMalformed},
		{"a certificate", a.BundlePEM(), id, certs.ReasonMalformed},
		{"DER of something else", encode("CERTIFICATE REQUEST", a.Chain()[0].Raw), id, certs.ReasonMalformed},
		{"DER cut short", encode("CERTIFICATE REQUEST", block.Bytes[:len(block.Bytes)-1]), id, certs.ReasonMalformed},
		{"bytes after the DER", encode("CERTIFICATE REQUEST", append(slices.Clone(block.Bytes), 0)), id, certs.ReasonMalformed},
		{"two requests", append(slices.Clone(good), other...), id, certs.ReasonMalformed},
		{"text after", append(slices.Clone(good), "more"...), id, certs.ReasonMalformed},
		{"a broken block before", append([]byte("-----BEGIN CERTIFICATE REQUEST-----\n"), good...), id, certs.ReasonMalformed},
		{"PEM headers", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Headers: map[string]string{"A": "b"}, Bytes: block.Bytes}), id, certs.ReasonMalformed},
		{"too large", append(slices.Clone(good), bytes.Repeat([]byte("\n"), certs.MaxCSRBytes)...), id, certs.ReasonTooLarge},

		{"broken signature", encode("CERTIFICATE REQUEST", broken), id, certs.ReasonSignature},
		{"SHA-1 signature", sha1Request(t, uri), id, certs.ReasonSignature},

		{"ECDSA P-224", csrFor(t, ecKey(t, elliptic.P224()), &x509.CertificateRequest{URIs: []*url.URL{uri}}), id, certs.ReasonKey},
		{"ECDSA P-521", csrFor(t, ecKey(t, elliptic.P521()), &x509.CertificateRequest{URIs: []*url.URL{uri}}), id, certs.ReasonKey},
		{"Ed25519", csrFor(t, ed, &x509.CertificateRequest{URIs: []*url.URL{uri}}), id, certs.ReasonKey},
		{"RSA 1024", csrFor(t, rsaKey(t, 1024), &x509.CertificateRequest{URIs: []*url.URL{uri}}), id, certs.ReasonKey},
		{"RSA with exponent 3", withExponent3(t, weakExponent, uri), id, certs.ReasonKey},

		{"no name", csrFor(t, key, &x509.CertificateRequest{}), id, certs.ReasonName},
		{"common name only", csrFor(t, key, &x509.CertificateRequest{Subject: pkix.Name{CommonName: web}}), id, certs.ReasonName},
		{"two URIs", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri, parseURL(t, "spiffe://cluster.local/ns/shop/sa/admin")}}), id, certs.ReasonName},
		{"the same URI twice", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri, uri}}), id, certs.ReasonName},
		{"a DNS name beside", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri}, DNSNames: []string{"istiod.istio-system.svc"}}), id, certs.ReasonName},
		{"a DNS name only", csrFor(t, key, &x509.CertificateRequest{DNSNames: []string{"istiod.istio-system.svc"}}), id, certs.ReasonName},
		{"an address beside", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}), id, certs.ReasonName},
		{"an email beside", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri}, EmailAddresses: []string{"a@b.c"}}), id, certs.ReasonName},
		{"another kind of name beside", csrFor(t, key, &x509.CertificateRequest{ExtraExtensions: names(t, uriName(web),
			asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{42, 3, 4}})}), id, certs.ReasonName}, // a registeredID
		{"no SPIFFE URI", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{parseURL(t, "https://cluster.local/ns/shop/sa/web")}}), id, certs.ReasonName},
		{"SPIFFE URI with a port", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{parseURL(t, "spiffe://cluster.local:80/ns/shop/sa/web")}}), id, certs.ReasonName},
		{"SPIFFE URI with a query", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{parseURL(t, web+"?a")}}), id, certs.ReasonName},
		{"SPIFFE URI with dots", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{parseURL(t, "spiffe://cluster.local/ns/x/../shop/sa/web")}}), id, certs.ReasonName},
		{"SPIFFE URI without a path", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{parseURL(t, "spiffe://cluster.local")}}), id, certs.ReasonName},
		{"SPIFFE URI with a NUL", csrFor(t, key, &x509.CertificateRequest{ExtraExtensions: names(t, uriName(web+"\x00.evil"))}), id, certs.ReasonMalformed},

		{"another identity", good, identity("shop", "api"), certs.ReasonIdentity},
		{"an identity with the right prefix", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{parseURL(t, web+"-admin")}}), id, certs.ReasonIdentity},
		{"a foreign trust domain", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{parseURL(t, "spiffe://example.org/ns/shop/sa/web")}}),
			spiffeid.RequireFromString("spiffe://example.org/ns/shop/sa/web"), certs.ReasonTrustDomain},

		{"an authority", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri}, ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: caConstraint}}}), id, certs.ReasonExtension},
		{"garbled basic constraints", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri}, ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{1}}}}), id, certs.ReasonExtension},
		{"name constraints", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri}, ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Value: []byte{0x30, 0}}}}), id, certs.ReasonExtension},
		{"an unknown extension", csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri}, ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}}), id, certs.ReasonExtension},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.Issue(tt.csr, tt.id, 0)
			var refused *certs.CSRError
			if !errors.As(err, &refused) {
				t.Fatalf("error %v, want a *CSRError", err)
			}
			if refused.Reason != tt.reason {
				t.Errorf("reason %s (%v), want %s", refused.Reason, err, tt.reason)
			}
			if !strings.Contains(err.Error(), string(tt.reason)) {
				t.Errorf("%q does not say its reason", err)
			}
		})
	}
	if _, err := a.Issue(good, spiffeid.ID{}, 0); err == nil {
		t.Error("signed although no identity is granted")
	}
}

// rsaRequest builds a request by hand where x509 refuses to.
func rsaRequest(t testing.TB, key *rsa.PrivateKey, public *rsa.PublicKey, uri *url.URL, oid asn1.ObjectIdentifier, hash crypto.Hash) []byte {
	t.Helper()
	template := csrFor(t, key, &x509.CertificateRequest{URIs: []*url.URL{uri}})
	block, _ := pem.Decode(template)
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	_, err := asn1.Unmarshal(block.Bytes, &outer)
	must(t, err)
	if public != nil {
		old, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		must(t, err)
		fresh, err := x509.MarshalPKIXPublicKey(public)
		must(t, err)
		var tbs asn1.RawValue
		_, err = asn1.Unmarshal(outer.TBS.FullBytes, &tbs)
		must(t, err)
		content := bytes.Replace(tbs.Bytes, old, fresh, 1)
		tbs = asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content}
		full, err := asn1.Marshal(tbs)
		must(t, err)
		outer.TBS = asn1.RawValue{FullBytes: full}
	}
	h := hash.New()
	h.Write(outer.TBS.FullBytes)
	signature, err := rsa.SignPKCS1v15(nil, key, hash, h.Sum(nil))
	must(t, err)
	outer.Algorithm = pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.NullRawValue}
	outer.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err := asn1.Marshal(outer)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func sha1Request(t testing.TB, uri *url.URL) []byte {
	return rsaRequest(t, rsaKey(t, 2048), nil, uri, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, crypto.SHA1)
}

// withExponent3 is refused for its key before its signature, which is another
// key's, is looked at.
func withExponent3(t testing.TB, key *rsa.PrivateKey, uri *url.URL) []byte {
	return rsaRequest(t, key, &rsa.PublicKey{N: key.N, E: 3}, uri, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, crypto.SHA256)
}

func TestEveryTruncationOfARequestIsRefused(t *testing.T) {
	_, csr, err := certs.NewRequest(spiffeid.RequireFromString(web))
	must(t, err)
	whole := bytes.TrimSpace(csr)
	for n := range whole {
		if _, _, err := certs.ParseCSR(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes passed", n, len(whole))
		}
	}
}

func FuzzParseCSR(f *testing.F) {
	id := spiffeid.RequireFromString(web)
	_, own, err := certs.NewRequest(id)
	must(f, err)
	seeds := [][]byte{own, csrFor(f, ecKey(f, elliptic.P384()), &x509.CertificateRequest{
		URIs: []*url.URL{parseURL(f, web)}, DNSNames: []string{"a.b"}})}
	for _, seed := range seeds {
		block, _ := pem.Decode(seed)
		f.Add(seed, false)
		f.Add(block.Bytes, true)
	}
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"), false)
	f.Fuzz(func(t *testing.T, csr []byte, der bool) {
		if der {
			csr = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
		}
		req, got, err := certs.ParseCSR(csr)
		if err != nil {
			var refused *certs.CSRError
			if !errors.As(err, &refused) || req != nil || !got.IsZero() {
				t.Fatalf("refusal %v with request %v, identity %s", err, req, got)
			}
			return
		}
		if len(req.URIs) != 1 || req.URIs[0].String() != got.String() || len(req.DNSNames)+len(req.IPAddresses)+len(req.EmailAddresses) > 0 {
			t.Fatalf("accepted names %v %v %v %v as %s", req.URIs, req.DNSNames, req.IPAddresses, req.EmailAddresses, got)
		}
	})
}
