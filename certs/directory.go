package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"go.uber.org/zap"
)

// directory is the state of an authority that made itself: its root, and the
// intermediate that it renews on the way to a signature.
type directory struct {
	cfg   AuthorityConfig
	state *state
	root  *issuer

	mu         sync.Mutex // held while the intermediate is replaced
	retryAfter time.Time  // guarded by mu
	closed     bool       // guarded by mu
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
	d := &directory{cfg: cfg, state: s}
	intermediate, err := d.open()
	if err != nil {
		_ = s.close()
		return nil, fmt.Errorf("authority in %s: %w", dir, err)
	}
	a := &Authority{cfg: cfg, directory: d}
	a.inForce.Store(d.signer(intermediate))
	return a, nil
}

// signer is the intermediate below the directory's root.
func (d *directory) signer(intermediate *issuer) *signer {
	root := d.root.cert
	return newSigner(intermediate, []*x509.Certificate{intermediate.cert, root}, []*x509.Certificate{root})
}

// open loads or makes the root and returns the intermediate to begin with.
func (d *directory) open() (*issuer, error) {
	now := d.cfg.Now()
	root, err := d.state.load(rootFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if root, err = newRoot(d.cfg, now); err != nil {
			return nil, err
		}
		if err := d.state.save(rootFile, root); err != nil {
			return nil, err
		}
		d.cfg.Logger.Info("root made", issuerFields(root)...)
	case err != nil:
		return nil, err
	}
	if err := d.checkRoot(root, now); err != nil {
		return nil, fmt.Errorf("%s: %w", rootFile, err)
	}
	d.root = root
	if err := d.state.publish(EncodeChain(root.cert)); err != nil {
		return nil, err
	}

	intermediate, err := d.state.load(intermediateFile)
	var mode *ModeError
	switch {
	case errors.As(err, &mode):
		return nil, err
	case err == nil:
		if err = d.checkIntermediate(intermediate, now); err == nil {
			// Due or not is decided at the first signature.
			return intermediate, nil
		}
		d.cfg.Logger.Warn("intermediate is replaced", append(issuerFields(intermediate), zap.Error(err))...)
	case !errors.Is(err, fs.ErrNotExist):
		d.cfg.Logger.Warn("intermediate is replaced", zap.String("file", d.state.path(intermediateFile)), zap.Error(err))
	}
	return d.renewIntermediate(now)
}

func (d *directory) checkRoot(root *issuer, now time.Time) error {
	td := d.cfg.TrustDomain
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

func (d *directory) checkIntermediate(i *issuer, now time.Time) error {
	if err := i.cert.CheckSignatureFrom(d.root.cert); err != nil {
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

// Close releases the authority's directory, if it has one. Signing goes on to
// work with what is in memory but nothing is renewed any more.
func (a *Authority) Close() error {
	if a.directory == nil {
		return nil
	}
	d := a.directory
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return d.state.close()
}

// current returns what to sign with. One caller renews the intermediate when it
// is due while the others sign on with the old one; only when that has expired
// do they wait.
func (d *directory) current(a *Authority, now time.Time) (*signer, error) {
	s := a.inForce.Load()
	if now.Before(d.renewAt(s.issuer)) {
		return s, nil
	}
	expired := !now.Before(s.issuer.cert.NotAfter)
	if expired {
		d.mu.Lock()
	} else if !d.mu.TryLock() {
		return s, nil
	}
	defer d.mu.Unlock()
	if s = a.inForce.Load(); now.Before(d.renewAt(s.issuer)) {
		return s, nil // renewed meanwhile
	}
	if d.closed || now.Before(d.retryAfter) {
		if expired {
			return nil, fmt.Errorf("the intermediate expired at %s", s.issuer.cert.NotAfter.UTC().Format(time.RFC3339))
		}
		return s, nil
	}
	fresh, err := d.renewIntermediate(now)
	if err != nil {
		d.retryAfter = now.Add(renewalRetry)
		d.cfg.Logger.Error("intermediate cannot be renewed", append(issuerFields(s.issuer), zap.Error(err))...)
		if expired {
			return nil, err
		}
		return s, nil
	}
	s = d.signer(fresh)
	a.inForce.Store(s)
	return s, nil
}

// renewAt is when i should be replaced. One that ends with the root is used to
// its end, since a new one would end then too.
func (d *directory) renewAt(i *issuer) time.Time {
	if !i.cert.NotAfter.Before(d.root.cert.NotAfter) {
		return i.cert.NotAfter
	}
	life := i.cert.NotAfter.Sub(i.cert.NotBefore.Add(Backdate))
	return i.cert.NotAfter.Add(-life / renewalReserve)
}

// renewIntermediate makes a new intermediate, and returns it once it is on disk.
func (d *directory) renewIntermediate(now time.Time) (*issuer, error) {
	i, err := newIntermediate(d.cfg, d.root, now)
	if err != nil {
		return nil, err
	}
	if err := d.state.save(intermediateFile, i); err != nil {
		return nil, err
	}
	d.cfg.Logger.Info("intermediate made", issuerFields(i)...)
	return i, nil
}
