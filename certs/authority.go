package certs

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
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
	cfg    AuthorityConfig
	state  *state
	root   *issuer
	bundle []byte // the root in PEM

	issuer atomic.Pointer[issuer]

	renewal    sync.Mutex // held while the intermediate is replaced
	retryAfter time.Time  // guarded by renewal
	closed     bool       // guarded by renewal
}

// OpenAuthority opens the authority whose state is in dir, and makes a new one
// when dir is empty or missing. It fails when another process has it open
// ([ErrInUse]), when a key file may be read by others ([*ModeError]), when the
// root is unreadable, expired or another trust domain's. Close it after use.
func OpenAuthority(dir string, cfg AuthorityConfig) (*Authority, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s, err := openState(dir, cfg.disk)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a := &Authority{cfg: cfg, state: s}
	if err := a.open(); err != nil {
		_ = s.close()
		return nil, fmt.Errorf("authority in %s: %w", dir, err)
	}
	return a, nil
}

func (a *Authority) open() error {
	now := a.cfg.Now()
	root, err := a.state.load(rootFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if root, err = newRoot(a.cfg, now); err != nil {
			return err
		}
		if err := a.state.save(rootFile, root); err != nil {
			return err
		}
		a.cfg.Logger.Info("root made", issuerFields(root)...)
	case err != nil:
		return err
	}
	if err := a.checkRoot(root, now); err != nil {
		return fmt.Errorf("%s: %w", rootFile, err)
	}
	a.root, a.bundle = root, EncodeChain(root.cert)
	if err := a.state.publish(a.bundle); err != nil {
		return err
	}

	intermediate, err := a.state.load(intermediateFile)
	var mode *ModeError
	switch {
	case errors.As(err, &mode):
		return err
	case err == nil:
		if err = a.checkIntermediate(intermediate, now); err == nil {
			a.issuer.Store(intermediate)
			// Due or not is decided at the first signature.
			return nil
		}
		a.cfg.Logger.Warn("intermediate is replaced", append(issuerFields(intermediate), zap.Error(err))...)
	case !errors.Is(err, fs.ErrNotExist):
		a.cfg.Logger.Warn("intermediate is replaced", zap.String("file", a.state.path(intermediateFile)), zap.Error(err))
	}
	return a.renewIntermediate(now)
}

func (a *Authority) checkRoot(root *issuer, now time.Time) error {
	td := a.cfg.TrustDomain
	if uris := root.cert.URIs; len(uris) != 1 || uris[0].String() != td.IDString() {
		return fmt.Errorf("the root is for %v, want %s: the trust domain of an authority cannot be changed, use another directory", uris, td.IDString())
	}
	if err := root.cert.CheckSignatureFrom(root.cert); err != nil {
		return fmt.Errorf("the root is not self-signed: %w", err)
	}
	if now.Before(root.cert.NotBefore) {
		return fmt.Errorf("the root is valid only from %s on: is the clock right?", root.cert.NotBefore.UTC().Format(time.RFC3339))
	}
	if now.After(root.cert.NotAfter) {
		return fmt.Errorf("the root expired at %s", root.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

func (a *Authority) checkIntermediate(i *issuer, now time.Time) error {
	if err := i.cert.CheckSignatureFrom(a.root.cert); err != nil {
		return fmt.Errorf("the intermediate is not signed by the root: %w", err)
	}
	if now.Before(i.cert.NotBefore) {
		// Made while the clock was ahead.
		return fmt.Errorf("the intermediate is valid only from %s on", i.cert.NotBefore.UTC().Format(time.RFC3339))
	}
	if now.After(i.cert.NotAfter) {
		return fmt.Errorf("the intermediate expired at %s", i.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// Close releases the directory. Signing goes on to work with what is in memory
// but nothing is renewed any more.
func (a *Authority) Close() error {
	a.renewal.Lock()
	defer a.renewal.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	return a.state.close()
}

// TrustDomain returns the trust domain that the authority signs for.
func (a *Authority) TrustDomain() spiffeid.TrustDomain { return a.cfg.TrustDomain }

// Bundle returns the roots to trust, a copy of the caller's own.
func (a *Authority) Bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(a.cfg.TrustDomain, []*x509.Certificate{a.root.cert})
}

// BundlePEM returns the roots to trust as one PEM text.
func (a *Authority) BundlePEM() []byte { return bytes.Clone(a.bundle) }

// Chain returns the authority's own certificates: the intermediate that signs
// now, and the root.
func (a *Authority) Chain() []*x509.Certificate {
	return []*x509.Certificate{a.issuer.Load().cert, a.root.cert}
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
	leaf, issuer, err := a.sign(leafTemplate(id), req.PublicKey, ttl)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", id, err)
	}
	return &Issued{
		Chain: []string{string(EncodeChain(leaf)), string(EncodeChain(issuer.cert)), string(a.bundle)},
		Leaf:  leaf,
	}, nil
}

// sign fills in the template's serial and times and signs it with the
// intermediate, which it renews first when that is due.
func (a *Authority) sign(template *x509.Certificate, key crypto.PublicKey, ttl time.Duration) (*x509.Certificate, *issuer, error) {
	now := a.cfg.Now()
	issuer, err := a.current(now)
	if err != nil {
		return nil, nil, err
	}
	if ttl <= 0 {
		ttl = a.cfg.LeafTTL
	}
	ttl = min(max(ttl, MinLeafTTL), a.cfg.MaxLeafTTL)
	cert, err := issuer.sign(template, key, now, ttl)
	return cert, issuer, err
}

// current returns the intermediate to sign with. One caller renews it when it
// is due while the others sign on with the old one; only when that has expired
// do they wait.
func (a *Authority) current(now time.Time) (*issuer, error) {
	i := a.issuer.Load()
	if now.Before(a.renewAt(i)) {
		return i, nil
	}
	expired := !now.Before(i.cert.NotAfter)
	if expired {
		a.renewal.Lock()
	} else if !a.renewal.TryLock() {
		return i, nil
	}
	defer a.renewal.Unlock()
	if i = a.issuer.Load(); now.Before(a.renewAt(i)) {
		return i, nil // renewed meanwhile
	}
	if a.closed || now.Before(a.retryAfter) {
		if expired {
			return nil, fmt.Errorf("the intermediate expired at %s", i.cert.NotAfter.UTC().Format(time.RFC3339))
		}
		return i, nil
	}
	if err := a.renewIntermediate(now); err != nil {
		a.retryAfter = now.Add(renewalRetry)
		a.cfg.Logger.Error("intermediate cannot be renewed", append(issuerFields(i), zap.Error(err))...)
		if expired {
			return nil, err
		}
		return i, nil
	}
	return a.issuer.Load(), nil
}

// renewAt is when i should be replaced. One that ends with the root is used to
// its end, since a new one would end then too.
func (a *Authority) renewAt(i *issuer) time.Time {
	if !i.cert.NotAfter.Before(a.root.cert.NotAfter) {
		return i.cert.NotAfter
	}
	life := i.cert.NotAfter.Sub(i.cert.NotBefore.Add(Backdate))
	return i.cert.NotAfter.Add(-life / renewalReserve)
}

// renewIntermediate makes a new intermediate, and uses it once it is on disk.
func (a *Authority) renewIntermediate(now time.Time) error {
	i, err := newIntermediate(a.cfg, a.root, now)
	if err != nil {
		return err
	}
	if err := a.state.save(intermediateFile, i); err != nil {
		return err
	}
	a.issuer.Store(i)
	a.cfg.Logger.Info("intermediate made", issuerFields(i)...)
	return nil
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
