package rotation

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/certs"
)

// Signer issues a certificate for an identity, with a key of its own, and the
// bundle that goes with it. An error with a method Permanent() bool that
// returns true is counted and told as a refusal.
type Signer interface {
	Sign(ctx context.Context, id spiffeid.ID) (*x509svid.SVID, *x509bundle.Bundle, error)
}

// Config is what a [Manager] needs. Only Signer must be set.
type Config struct {
	Signer Signer
	// Logger may be nil.
	Logger *zap.Logger
	// Registerer receives the metrics; it may be nil.
	Registerer prometheus.Registerer
	// Concurrency bounds the requests under way; zero means DefaultConcurrency.
	Concurrency int
	// RequestTimeout bounds one request; zero means DefaultRequestTimeout.
	RequestTimeout time.Duration
}

// ErrClosed says that the manager has been closed.
var ErrClosed = errors.New("certificate manager is closed")

// ErrReleased says that a lease is used after its release.
var ErrReleased = errors.New("certificate lease is released")

// Manager holds the certificates of a node. It is safe for concurrent use.
type Manager struct {
	cfg     Config
	gate    *gate
	metrics *metrics
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	entries map[spiffeid.ID]*entry
}

// NewManager returns a manager without certificates.
func NewManager(cfg Config) *Manager {
	cfg.Concurrency = cmp.Or(cfg.Concurrency, DefaultConcurrency)
	cfg.RequestTimeout = cmp.Or(cfg.RequestTimeout, DefaultRequestTimeout)
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	m := &Manager{cfg: cfg, gate: newGate(cfg.Concurrency), entries: map[spiffeid.ID]*entry{}}
	m.metrics = newMetrics(cfg.Registerer, m)
	return m
}

// Acquire returns a lease of id's certificate and starts fetching it when this
// is the first. It does not block. After Close the lease is a dead one.
func (m *Manager) Acquire(id spiffeid.ID) *Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[id]
	if e == nil {
		e = newEntry(id)
		if m.closed {
			e.end(ErrClosed)
			return &Lease{manager: m, entry: e}
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		e.cancel = cancel
		m.entries[id] = e
		m.running.Go(func() { m.run(ctx, e) })
	}
	e.leases++ // guarded by m.mu
	return &Lease{manager: m, entry: e}
}

func (m *Manager) release(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.leases--
	if e.leases > 0 || m.entries[e.id] != e {
		return
	}
	delete(m.entries, e.id)
	e.cancel(ErrReleased)
	e.end(ErrReleased)
}

// Close ends all rotation and forgets all certificates. It waits for requests
// under way to notice.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	for id, e := range m.entries {
		e.cancel(ErrClosed)
		e.end(ErrClosed)
		delete(m.entries, id)
	}
	m.mu.Unlock()
	m.running.Wait()
	m.metrics.unregister()
}

// Status tells of every certificate, sorted by identity.
func (m *Manager) Status() []certs.Status {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]certs.Status, 0, len(m.entries))
	for _, e := range m.entries {
		s := e.status(now)
		s.Leases = e.leases
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b certs.Status) int {
		return cmp.Compare(a.Identity.String(), b.Identity.String())
	})
	return all
}

// summary counts the identities by state and finds the first expiry.
func (m *Manager) summary(now time.Time) (counts map[certs.State]int, earliest time.Time) {
	counts = map[certs.State]int{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		e.mu.Lock()
		counts[e.stateLocked(now)]++
		if e.svid != nil {
			if at := e.svid.Certificates[0].NotAfter; earliest.IsZero() || at.Before(earliest) {
				earliest = at
			}
		}
		e.mu.Unlock()
	}
	return counts, earliest
}
