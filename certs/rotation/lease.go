package rotation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Lease is one workload's use of its identity's certificate. It implements
// x509svid.Source and x509bundle.Source and is safe for concurrent use.
type Lease struct {
	manager *Manager
	entry   *entry

	mu       sync.Mutex
	released bool
}

// ID returns the identity leased.
func (l *Lease) ID() spiffeid.ID { return l.entry.id }

// Ready waits until there is a valid certificate. When ctx is done before, the
// error says why there is none.
func (l *Lease) Ready(ctx context.Context) error {
	for {
		_, _, changed, err := l.current()
		var unavailable *UnavailableError
		if err == nil || !errors.As(err, &unavailable) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if _, _, _, err = l.current(); err == nil {
				return nil
			}
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
	}
}

func (l *Lease) current() (*x509svid.SVID, *x509bundle.Bundle, <-chan struct{}, error) {
	l.mu.Lock()
	released := l.released
	l.mu.Unlock()
	if released {
		return nil, nil, closedChannel, fmt.Errorf("certificate for %s: %w", l.entry.id, ErrReleased)
	}
	return l.entry.current(time.Now())
}

var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// GetX509SVID returns the certificate: the same value until it is rotated. It
// does not block. While there is no valid one, the error is an
// *UnavailableError; after the lease's or the manager's end it is ErrReleased
// or ErrClosed.
func (l *Lease) GetX509SVID() (*x509svid.SVID, error) {
	svid, _, _, err := l.current()
	return svid, err
}

// GetX509BundleForTrustDomain returns the bundle that came with the certificate.
// There is none for any trust domain but the identity's own.
func (l *Lease) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	_, bundle, _, err := l.current()
	if err != nil {
		return nil, err
	}
	return bundle.GetX509BundleForTrustDomain(td)
}

// Changed returns a channel that is closed when the certificate or its bundle
// next changes or the lease's certificate is forgotten. Take it before reading
// the certificate, so that no change is missed.
func (l *Lease) Changed() <-chan struct{} {
	_, _, changed, _ := l.current()
	return changed
}

// Release ends the use. Releasing again does nothing.
func (l *Lease) Release() {
	l.mu.Lock()
	released := l.released
	l.released = true
	l.mu.Unlock()
	if !released {
		l.manager.release(l.entry)
	}
}
