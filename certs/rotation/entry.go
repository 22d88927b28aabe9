package rotation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/certs"
)

// entry is one identity's certificate, shared by its leases.
type entry struct {
	id     spiffeid.ID
	cancel context.CancelCauseFunc
	leases int // guarded by Manager.mu

	mu      sync.Mutex
	svid    *x509svid.SVID
	bundle  *x509bundle.Bundle
	lastErr error         // of the last attempt; nil after a success
	asking  bool          // a request is waiting or under way
	nextAt  time.Time     // of the next attempt
	ended   error         // why there will be no more
	changed chan struct{} // closed at the next change of svid, bundle or ended
}

func newEntry(id spiffeid.ID) *entry {
	return &entry{id: id, changed: make(chan struct{})}
}

func (e *entry) notify() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *entry) begin() (first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asking = true
	return !e.validLocked(time.Now())
}

func (e *entry) succeed(svid *x509svid.SVID, bundle *x509bundle.Bundle, nextAt time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asking, e.lastErr, e.nextAt = false, nil, nextAt
	if e.ended != nil {
		return
	}
	e.svid, e.bundle = svid, bundle
	e.notify()
}

func (e *entry) fail(err error, nextAt time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asking, e.lastErr, e.nextAt = false, err, nextAt
}

// end forgets the certificate for good.
func (e *entry) end(why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended == nil {
		e.ended = why
		e.svid, e.bundle = nil, nil
		e.notify()
	}
}

func (e *entry) validLocked(now time.Time) bool {
	return e.svid != nil && now.Before(e.svid.Certificates[0].NotAfter)
}

func (e *entry) notAfter() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.svid == nil {
		return time.Time{}
	}
	return e.svid.Certificates[0].NotAfter
}

// UnavailableError says that an identity has no valid certificate now.
type UnavailableError struct {
	Identity spiffeid.ID
	// NotAfter is when the last one expired; zero when there never was one.
	NotAfter time.Time
	// Err says why there is no other; nil while the first is being fetched.
	Err error
}

func (e *UnavailableError) Error() string {
	s := "no certificate for " + e.Identity.String()
	if !e.NotAfter.IsZero() {
		s += ": it expired at " + e.NotAfter.UTC().Format(time.RFC3339)
	}
	switch {
	case e.Err != nil:
		s += ": " + e.Err.Error()
	case e.NotAfter.IsZero():
		s += ": it is being fetched"
	}
	return s
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// current returns the valid certificate with its bundle and the channel that
// closes when either changes.
func (e *entry) current(now time.Time) (*x509svid.SVID, *x509bundle.Bundle, <-chan struct{}, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.ended != nil:
		return nil, nil, e.changed, fmt.Errorf("certificate for %s: %w", e.id, e.ended)
	case e.validLocked(now):
		return e.svid, e.bundle, e.changed, nil
	}
	err := &UnavailableError{Identity: e.id, Err: e.lastErr}
	if e.svid != nil {
		err.NotAfter = e.svid.Certificates[0].NotAfter
	}
	return nil, nil, e.changed, err
}

func (e *entry) stateLocked(now time.Time) certs.State {
	switch valid := e.validLocked(now); {
	case valid && e.lastErr != nil:
		return certs.StateOverdue
	case valid && e.asking:
		return certs.StateRenewing
	case valid:
		return certs.StateValid
	case e.svid != nil:
		return certs.StateExpired
	case e.lastErr != nil:
		return certs.StateFailed
	default:
		return certs.StatePending
	}
}

func (e *entry) status(now time.Time) certs.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := certs.NewStatus(e.id, e.stateLocked(now), e.svid, e.bundle)
	if e.lastErr != nil {
		s.LastError = e.lastErr.Error()
	}
	if !e.asking {
		s.RenewAt = e.nextAt.UTC().Round(0)
	}
	return s
}
