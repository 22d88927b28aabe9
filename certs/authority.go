package certs

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"
)

// AuthorityConfig says how an [Authority] issues. Only TrustDomain is needed.
type AuthorityConfig struct {
	// TrustDomain is the only one for which certificates are signed. A
	// directory made for another is refused.
	TrustDomain spiffeid.TrustDomain
	// RootTTL, IntermediateTTL, LeafTTL and MaxLeafTTL are lifetimes; zero
	// means the defaults of this package. Those of root and intermediate hold
	// for certificates made from now on.
	RootTTL, IntermediateTTL, LeafTTL, MaxLeafTTL time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger may be nil.
	Logger *zap.Logger

	disk disk // nil: the real one
}

func (c AuthorityConfig) withDefaults() (AuthorityConfig, error) {
	if c.TrustDomain.IsZero() {
		return c, errors.New("authority: no trust domain")
	}
	c.RootTTL = cmp.Or(c.RootTTL, DefaultRootTTL)
	c.IntermediateTTL = cmp.Or(c.IntermediateTTL, DefaultIntermediateTTL)
	c.LeafTTL = cmp.Or(c.LeafTTL, DefaultLeafTTL)
	c.MaxLeafTTL = cmp.Or(c.MaxLeafTTL, max(DefaultMaxLeafTTL, c.LeafTTL))
	if c.LeafTTL < MinLeafTTL || c.MaxLeafTTL < c.LeafTTL || c.IntermediateTTL < c.LeafTTL || c.RootTTL < c.IntermediateTTL {
		return c, fmt.Errorf("authority: lifetimes must not decrease from leaf %v (at least %v) to its maximum %v, nor from leaf to intermediate %v to root %v",
			c.LeafTTL, MinLeafTTL, c.MaxLeafTTL, c.IntermediateTTL, c.RootTTL)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.disk == nil {
		c.disk = realDisk{}
	}
	return c, nil
}

// Authority signs certificates of one trust domain. It is safe for concurrent
// use.
type Authority struct {
	cfg     AuthorityConfig
	inForce atomic.Pointer[signer]
	// directory renews what signs; nil when that is given from outside, for
	// then only Replace can bring another.
	directory *directory
	replacing sync.Mutex // held by Replace
}

// signer is what signs at a moment, with what its certificates need to be
// believed. Immutable.
type signer struct {
	issuer *issuer
	chain  []*x509.Certificate // what is sent after a leaf: issuer and above, without the root
	root   *x509.Certificate   // where the chain ends
	roots  []*x509.Certificate // all to trust
	// notAfter is the first end of all of these: what is signed must not outlive it.
	notAfter time.Time
	chainPEM []string
	bundle   []byte
}

// newSigner takes the path from the issuer's certificate to a root, both
// included, and all roots that are to be trusted.
func newSigner(i *issuer, path, roots []*x509.Certificate) *signer {
	s := &signer{issuer: i, chain: path[:len(path)-1], root: path[len(path)-1], roots: roots, bundle: EncodeChain(roots...), notAfter: i.cert.NotAfter}
	for _, cert := range s.chain {
		s.chainPEM = append(s.chainPEM, string(EncodeChain(cert)))
	}
	for _, cert := range path {
		if cert.NotAfter.Before(s.notAfter) {
			s.notAfter = cert.NotAfter
		}
	}
	return s
}

// TrustDomain returns the trust domain that the authority signs for.
func (a *Authority) TrustDomain() spiffeid.TrustDomain { return a.cfg.TrustDomain }

// Bundle returns the roots to trust, a copy of the caller's own.
func (a *Authority) Bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(a.cfg.TrustDomain, slices.Clone(a.inForce.Load().roots))
}

// BundlePEM returns the roots to trust as one PEM text.
func (a *Authority) BundlePEM() []byte { return bytes.Clone(a.inForce.Load().bundle) }

// Chain returns the authority's own certificates: first the one that signs now,
// last the root where it ends. A root that signs by itself stands alone.
func (a *Authority) Chain() []*x509.Certificate {
	s := a.inForce.Load()
	return append(slices.Clone(s.chain), s.root)
}

// Issued is a certificate with what an audit needs to know of it.
type Issued struct {
	// Chain holds PEM: the leaf, the intermediates, and as last the root
	// bundle, as in an IstioCertificateResponse.
	Chain []string
	// Leaf is the parsed first certificate of Chain.
	Leaf *x509.Certificate
}

// Sign signs the request for id; see [Authority.Issue].
func (a *Authority) Sign(csrPEM []byte, id spiffeid.ID, ttl time.Duration) ([]string, error) {
	issued, err := a.Issue(csrPEM, id, ttl)
	if err != nil {
		return nil, err
	}
	return issued.Chain, nil
}

// Issue signs the request csrPEM, whose only name must be id. A ttl that is not
// positive means the default; any other is brought between MinLeafTTL and the
// configured maximum, and no certificate outlives its issuer. A fault of the
// request is a *CSRError; other errors are the authority's own.
func (a *Authority) Issue(csrPEM []byte, id spiffeid.ID, ttl time.Duration) (*Issued, error) {
	req, asked, err := ParseCSR(csrPEM)
	if err != nil {
		return nil, err
	}
	switch {
	case id.IsZero():
		return nil, errors.New("sign: no identity is granted")
	case asked != id:
		return nil, refuse(ReasonIdentity, nil, "it names %s, granted is %s", asked, id)
	case id.TrustDomain() != a.cfg.TrustDomain:
		return nil, refuse(ReasonTrustDomain, nil, "%s is not in the trust domain %s", id, a.cfg.TrustDomain)
	}
	leaf, by, err := a.sign(leafTemplate(id), req.PublicKey, ttl)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", id, err)
	}
	chain := make([]string, 0, len(by.chainPEM)+2)
	chain = append(chain, string(EncodeChain(leaf)))
	chain = append(chain, by.chainPEM...)
	return &Issued{Chain: append(chain, string(by.bundle)), Leaf: leaf}, nil
}

// sign fills in the template's serial and times and signs it with what is in
// force, which is renewed first when that is due and the authority's to do.
func (a *Authority) sign(template *x509.Certificate, key crypto.PublicKey, ttl time.Duration) (*x509.Certificate, *signer, error) {
	now := a.cfg.Now()
	s, err := a.current(now)
	if err != nil {
		return nil, nil, err
	}
	if ttl <= 0 {
		ttl = a.cfg.LeafTTL
	}
	ttl = min(max(ttl, MinLeafTTL), a.cfg.MaxLeafTTL, s.notAfter.Sub(now))
	cert, err := s.issuer.sign(template, key, now, ttl)
	return cert, s, err
}

func (a *Authority) current(now time.Time) (*signer, error) {
	if a.directory != nil {
		return a.directory.current(a, now)
	}
	return a.inForce.Load(), nil
}

func issuerFields(i *issuer) []zap.Field {
	return []zap.Field{
		zap.String("serial", SerialText(i.cert.SerialNumber)),
		zap.Time("not_before", i.cert.NotBefore),
		zap.Time("not_after", i.cert.NotAfter),
	}
}

// SerialText writes a serial number the way operators compare it: lower-case
// hexadecimal, as in openssl's output without the colons.
func SerialText(serial *big.Int) string { return fmt.Sprintf("%x", serial) }
