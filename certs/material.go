package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Part is one PEM text of a [Material] and the name under which its owner knows
// it, such as the key of a Secret; errors begin with it.
type Part struct {
	Name string
	PEM  []byte
}

// Material is an authority's key and certificates as they are kept outside of
// the process, in the parts that Istio's Secrets have.
type Material struct {
	// Certificate is the one that signs; more may follow it, on the way to a root.
	Certificate Part
	// Key is its private key: PKCS #8, or the older forms of RSA and EC keys.
	Key Part
	// Chain are certificates on the way to a root. It may be empty, and may
	// begin with Certificate.
	Chain Part
	// Roots are the certificates to trust.
	Roots Part
}

// Names of the parts of a material made by [NewMaterial], which are the keys of
// Istio's Secrets too.
const (
	CertificatePart = "ca-cert.pem"
	KeyPart         = "ca-key.pem"
	ChainPart       = "cert-chain.pem"
	RootsPart       = "root-cert.pem"
)

// NewMaterial makes a self-signed root that signs by itself.
func NewMaterial(cfg AuthorityConfig) (Material, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Material{}, err
	}
	root, err := newRoot(cfg, cfg.Now())
	if err != nil {
		return Material{}, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(root.key)
	if err != nil {
		return Material{}, err
	}
	cert := EncodeChain(root.cert)
	return Material{
		Certificate: Part{CertificatePart, cert},
		Key:         Part{KeyPart, pem.EncodeToMemory(&pem.Block{Type: keyPEMType, Bytes: key})},
		Chain:       Part{ChainPart, nil},
		Roots:       Part{RootsPart, cert},
	}, nil
}

// NewAuthority returns an authority that signs with what m holds. It refuses a
// material of which any certificate would not be believed: an expired one, a
// key that is not the certificate's, a chain that ends at none of the roots, an
// authority of another trust domain.
func NewAuthority(m Material, cfg AuthorityConfig) (*Authority, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s, err := m.signer(cfg)
	if err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg}
	a.inForce.Store(s)
	return a, nil
}

// RootsError says that a material was not taken because it would change what
// the mesh is to trust.
type RootsError struct{ InForce, New []*x509.Certificate }

func (e *RootsError) Error() string {
	return fmt.Sprintf("the roots differ from those in force (%s instead of %s): they cannot be changed under a running mesh, "+
		"whose proxies would not trust each other; only the certificate that signs, below the same roots, can be replaced", serials(e.New), serials(e.InForce))
}

func serials(certs []*x509.Certificate) string {
	var b bytes.Buffer
	for i, c := range certs {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "serial %s", SerialText(c.SerialNumber))
	}
	return b.String()
}

// Replace has the authority sign with m from now on, and reports whether that
// is another certificate than before. It fails as [NewAuthority] does, and with
// a *RootsError when m has other roots; then the authority goes on with what it
// has. Only an authority made by NewAuthority can be given another material.
func (a *Authority) Replace(m Material) (changed bool, err error) {
	if a.directory != nil {
		return false, errors.New("the authority keeps its state in a directory")
	}
	a.replacing.Lock()
	defer a.replacing.Unlock()
	next, err := m.signer(a.cfg)
	if err != nil {
		return false, err
	}
	now := a.inForce.Load()
	if !sameCertificates(now.roots, next.roots) {
		return false, &RootsError{InForce: now.roots, New: next.roots}
	}
	if now.issuer.cert.Equal(next.issuer.cert) && slices.EqualFunc(now.chain, next.chain, (*x509.Certificate).Equal) {
		return false, nil
	}
	a.inForce.Store(next)
	return true, nil
}

// sameCertificates compares two sets.
func sameCertificates(a, b []*x509.Certificate) bool {
	within := func(a, b []*x509.Certificate) bool {
		return !slices.ContainsFunc(a, func(c *x509.Certificate) bool { return !slices.ContainsFunc(b, c.Equal) })
	}
	return within(a, b) && within(b, a)
}

// signer checks the material and puts it in order.
func (m Material) signer(cfg AuthorityConfig) (*signer, error) {
	now := cfg.Now()
	own, err := m.Certificate.certificates()
	if err != nil {
		return nil, err
	}
	i := &issuer{cert: own[0]}
	if i.key, err = m.Key.key(); err != nil {
		return nil, err
	}
	if err := i.check(m, cfg.TrustDomain, now); err != nil {
		return nil, err
	}
	above := own[1:]
	if len(bytes.TrimSpace(m.Chain.PEM)) > 0 {
		chain, err := m.Chain.certificates()
		if err != nil {
			return nil, err
		}
		above = append(above, chain...)
	}
	roots, err := m.Roots.certificates()
	if err != nil {
		return nil, err
	}
	for n, root := range roots {
		if !root.IsCA {
			return nil, fmt.Errorf("%s: certificate %d (serial %s) is no authority's", m.Roots.Name, n, SerialText(root.SerialNumber))
		}
	}
	path, err := pathToRoot(i.cert, above, roots, now)
	if err != nil {
		return nil, fmt.Errorf("%s does not lead to a root of %s by way of %s: %w", m.Certificate.Name, m.Roots.Name, m.Chain.Name, err)
	}
	s := newSigner(i, path, roots)
	if err := s.try(cfg); err != nil {
		return nil, fmt.Errorf("%s: what it signs would not be believed: %w", m.Certificate.Name, err)
	}
	return s, nil
}

// check is about the signing certificate alone.
func (i *issuer) check(m Material, td spiffeid.TrustDomain, now time.Time) error {
	c := i.cert
	if public, ok := i.key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(c.PublicKey) {
		return fmt.Errorf("%s is not the private key of the certificate in %s", m.Key.Name, m.Certificate.Name)
	}
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: "+format, append([]any{m.Certificate.Name}, args...)...)
	}
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return fail("the certificate is no authority's (basic constraints without CA)")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fail("the certificate must not sign others (key usage without certificate signing)")
	case len(c.RawSubject) <= len("\x30\x00"):
		return fail("the certificate has an empty subject, which no authority may have (RFC 5280, 4.1.2.6)")
	case now.Before(c.NotBefore):
		return fail("the certificate is valid only from %s on: is the clock right?", c.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fail("the certificate expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	for _, uri := range c.URIs {
		if uri.Scheme == "spiffe" && uri.String() != td.IDString() {
			return fail("the certificate is for %s, the trust domain of this mesh is %s (--trust-domain)", uri, td.IDString())
		}
	}
	return nil
}

// pathToRoot returns the certificates from cert to a root, both included. A root
// that signs by itself is a path of one.
func pathToRoot(cert *x509.Certificate, above, roots []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	for _, c := range above {
		between.AddCert(c)
	}
	paths, err := cert.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil, err
	}
	return paths[0], nil
}

// try signs a certificate and verifies it as a peer would, which tells of path
// lengths, name constraints and usages that forbid what a mesh needs.
func (s *signer) try(cfg AuthorityConfig) error {
	id, err := spiffeid.FromSegments(cfg.TrustDomain, "ns", "trial", "sa", "trial")
	if err != nil {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	now := cfg.Now()
	leaf, err := s.issuer.sign(leafTemplate(id), key.Public(), now, MinLeafTTL)
	if err != nil {
		return err
	}
	bundle := x509bundle.FromX509Authorities(cfg.TrustDomain, s.roots)
	if _, _, err := x509svid.Verify(append([]*x509.Certificate{leaf}, s.chain...), bundle, x509svid.WithTime(now)); err != nil {
		return err
	}
	// An authority's extended usages bind what is below it, for TLS.
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(s.root)
	for _, c := range s.chain {
		between.AddCert(c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return err
		}
	}
	return nil
}

func (p Part) certificates() ([]*x509.Certificate, error) {
	certs, err := ParseChain(p.PEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return certs, nil
}

// key parses a private key. Its errors never hold any of it.
func (p Part) key() (crypto.Signer, error) {
	block, rest := pem.Decode(p.PEM)
	// openssl puts the curve in a block of its own before an EC key.
	if block != nil && block.Type == "EC PARAMETERS" {
		block, rest = pem.Decode(rest)
	}
	switch {
	case len(p.PEM) > maxStateBytes:
		return nil, fmt.Errorf("%s: larger than %d bytes", p.Name, maxStateBytes)
	case block == nil:
		return nil, fmt.Errorf("%s: no private key in PEM", p.Name)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%s: more than one private key", p.Name)
	}
	var parsed any
	var err error
	switch block.Type {
	case keyPEMType:
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("%s: PEM block of type %.40q, want an unencrypted %q", p.Name, block.Type, keyPEMType)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: the private key cannot be parsed", p.Name)
	}
	switch key := parsed.(type) {
	case *ecdsa.PrivateKey:
		return key, nil
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < MinRSABits || bits > MaxRSABits {
			return nil, fmt.Errorf("%s: RSA key of %d bits, want %d to %d", p.Name, bits, MinRSABits, MaxRSABits)
		}
		return key, nil
	}
	return nil, fmt.Errorf("%s: private key of type %T, want ECDSA or RSA", p.Name, parsed)
}
