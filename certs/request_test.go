package certs_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/forge"
)

// answer is a response's chain: leaf, intermediates, roots.
func answer(svid *x509svid.SVID, roots ...*x509.Certificate) []string {
	var chain []string
	for _, c := range svid.Certificates {
		chain = append(chain, string(certs.EncodeChain(c)))
	}
	return append(chain, string(certs.EncodeChain(roots...)))
}

func TestAnswersThatAreTaken(t *testing.T) {
	id := spiffeid.RequireFromString(web)
	root := forge.Root(t, "cluster.local")
	intermediate := root.Intermediate(t)
	deep := intermediate.Intermediate(t)
	old := forge.Root(t, "cluster.local")
	for _, tt := range []struct {
		name string
		svid *x509svid.SVID
		with func([]string) []string
		cas  []*x509.Certificate
	}{
		{name: "leaf and root", svid: root.Leaf(t, web), cas: []*x509.Certificate{root.Cert}},
		{name: "an intermediate", svid: intermediate.Leaf(t, web), cas: []*x509.Certificate{root.Cert}},
		{name: "two intermediates", svid: deep.Leaf(t, web), cas: []*x509.Certificate{root.Cert}},
		{name: "two roots, as in a rollover", svid: intermediate.Leaf(t, web), cas: []*x509.Certificate{old.Cert, root.Cert}},
		{name: "leaf and intermediate in one part, as Istio's plugged-in CA sends", svid: intermediate.Leaf(t, web), cas: []*x509.Certificate{root.Cert},
			with: func(parts []string) []string { return []string{parts[0] + parts[1], parts[2]} }},
		{name: "the root repeated among the intermediates", svid: intermediate.Leaf(t, web), cas: []*x509.Certificate{root.Cert},
			with: func(parts []string) []string { return []string{parts[0], parts[1], parts[2], parts[2]} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parts := answer(tt.svid, tt.cas...)
			if tt.with != nil {
				parts = tt.with(parts)
			}
			svid, bundle, err := certs.VerifyIssued(parts, tt.svid.PrivateKey, id, time.Now())
			must(t, err)
			if svid.ID != id || svid.PrivateKey != tt.svid.PrivateKey || !svid.Certificates[0].Equal(tt.svid.Certificates[0]) {
				t.Errorf("got another SVID, for %s", svid.ID)
			}
			if got := bundle.X509Authorities(); len(got) != len(tt.cas) || bundle.TrustDomain() != id.TrustDomain() {
				t.Errorf("bundle of %s with %d roots", bundle.TrustDomain(), len(got))
			}
		})
	}
}

func TestAnswersThatAreRefused(t *testing.T) {
	id := spiffeid.RequireFromString(web)
	root := forge.Root(t, "cluster.local")
	intermediate := root.Intermediate(t)
	good := intermediate.Leaf(t, web)
	now := time.Now()
	expired := root.Intermediate(t, forge.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour)))
	weak := root.Intermediate(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	noCA := root.Intermediate(t, func(c *x509.Certificate) { c.IsCA = false; c.KeyUsage = x509.KeyUsageDigitalSignature })
	shallow := root.Intermediate(t, func(c *x509.Certificate) { c.MaxPathLenZero = true }).Intermediate(t)
	keyPEM := func(key crypto.Signer) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		must(t, err)
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	good3 := answer(good, root.Cert)

	for _, tt := range []struct {
		name  string
		parts []string
		key   crypto.Signer
		want  string
	}{
		{"nothing", nil, good.PrivateKey, "0 parts"},
		{"no roots", good3[:1], good.PrivateKey, "1 parts"},
		{"empty strings", []string{"", "", ""}, good.PrivateKey, "no certificate in PEM"},
		{"empty root bundle", []string{good3[0], good3[1], ""}, good.PrivateKey, "root bundle: no certificate"},
		{"a truncated root bundle", []string{good3[0], good3[1], good3[2][:200]}, good.PrivateKey, "PEM blocks are broken"},
		{"a private key in the bundle", []string{good3[0], good3[1], good3[2] + keyPEM(forge.Key(t))}, good.PrivateKey, `"PRIVATE KEY" among certificates`},
		{"too large", []string{good3[0], good3[1], good3[2] + strings.Repeat("\n", certs.MaxChainBytes)}, good.PrivateKey, "at most"},
		{"too many certificates", []string{good3[0], strings.Repeat(good3[1], certs.MaxChainCertificates-1), good3[2]}, good.PrivateKey, "at most"},

		{"for another key", good3, forge.Key(t), "another key"},
		{"for another identity", answer(intermediate.Leaf(t, "spiffe://cluster.local/ns/shop/sa/api"), root.Cert), nil, "the leaf is for spiffe://cluster.local/ns/shop/sa/api"},
		{"of another trust domain", answer(forge.Root(t, "example.org").Leaf(t, "spiffe://example.org/ns/shop/sa/web"), root.Cert), nil, "example.org"},
		{"two names", answer(intermediate.Leaf(t, web, func(c *x509.Certificate) {
			c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/x"})
		}), root.Cert), nil, "more than one URI SAN"},
		{"no name", answer(intermediate.Leaf(t, web, func(c *x509.Certificate) { c.URIs = nil }), root.Cert), nil, "no URI SAN"},
		{"expired", answer(intermediate.Leaf(t, web, forge.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour))), root.Cert), nil, "expired"},
		{"not valid yet", answer(intermediate.Leaf(t, web, forge.Validity(now.Add(time.Hour), now.Add(2*time.Hour))), root.Cert), nil, "not yet valid"},
		{"by an expired intermediate", answer(expired.Leaf(t, web), root.Cert), nil, "expired"},
		{"by an intermediate that may not sign", answer(weak.Leaf(t, web), root.Cert), nil, "verify"},
		{"by one that is no authority", answer(noCA.Leaf(t, web), root.Cert), nil, "verify"},
		{"below the path length", answer(shallow.Leaf(t, web), root.Cert), nil, "too many intermediates"},
		{"by another root", answer(good, forge.Root(t, "cluster.local").Cert), nil, "unknown authority"},
		{"without its intermediate", []string{good3[0], good3[2]}, good.PrivateKey, "unknown authority"},
		{"itself an authority", answer(intermediate.Leaf(t, web, func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign }), root.Cert), nil, "CA flag"},
		{"without digitalSignature", answer(intermediate.Leaf(t, web, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), root.Cert), nil, "digitalSignature"},
		{"with itself as root", []string{good3[0], good3[0]}, good.PrivateKey, "no authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := tt.key
			if key == nil {
				// Whatever is wrong, it is not the key.
				key = keyOf(t, tt.parts[0])
			}
			svid, bundle, err := certs.VerifyIssued(tt.parts, key, id, now)
			var refused *certs.IssuedError
			if !errors.As(err, &refused) || svid != nil || bundle != nil {
				t.Fatalf("error %v with %v and %v, want an *IssuedError alone", err, svid, bundle)
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), web) {
				t.Errorf("error %q, want it to name the identity and say %q", err, tt.want)
			}
		})
	}
}

// publicOnly is a signer that has the key of a certificate without being able
// to use it: only its public half is looked at.
type publicOnly struct {
	crypto.Signer
	public crypto.PublicKey
}

func (p publicOnly) Public() crypto.PublicKey { return p.public }

func keyOf(t *testing.T, text string) crypto.Signer {
	t.Helper()
	chain, err := certs.ParseChain([]byte(text))
	must(t, err)
	return publicOnly{public: chain[0].PublicKey}
}

func TestNewRequestNeedsAnIdentity(t *testing.T) {
	if _, _, err := certs.NewRequest(spiffeid.ID{}); err == nil {
		t.Error("a request without an identity was made")
	}
}

func TestEveryTruncationOfAChainIsRefusedOrWhole(t *testing.T) {
	root := forge.Root(t, "cluster.local")
	text := bytes.TrimSpace(certs.EncodeChain(root.Cert, root.Intermediate(t).Cert))
	boundary := len(certs.EncodeChain(root.Cert))
	for n := range text {
		chain, err := certs.ParseChain(text[:n])
		// At the boundary between the two (with or without its line feed, and
		// before the next begins) the text is one whole certificate.
		if whole := n >= boundary-1 && n < boundary+len("-----BEGIN "); whole {
			if err != nil || len(chain) != 1 {
				t.Errorf("the first %d bytes, one certificate: %v", n, err)
			}
		} else if err == nil {
			t.Errorf("the first %d of %d bytes passed as %d certificates", n, len(text), len(chain))
		}
	}
}

func FuzzParseChain(f *testing.F) {
	root := forge.Root(f, "cluster.local")
	f.Add(certs.EncodeChain(root.Cert, root.Intermediate(f).Cert))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		chain, err := certs.ParseChain(text)
		if err != nil {
			if chain != nil {
				t.Fatal("certificates beside an error")
			}
			return
		}
		if len(chain) == 0 || len(chain) > certs.MaxChainCertificates {
			t.Fatalf("%d certificates", len(chain))
		}
		again, err := certs.ParseChain(certs.EncodeChain(chain...))
		if err != nil || !slices.EqualFunc(again, chain, (*x509.Certificate).Equal) {
			t.Fatalf("not the same after encoding: %v", err)
		}
	})
}
