package upstream

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// Config of a backend. The zero value of every field but Name is a good default.
type Config struct {
	// Name is "namespace/hostname:port", for logs and errors.
	Name     string
	Balancer Balancer
	// LoadBalancing prefers near endpoints, from Place.
	LoadBalancing workload.LoadBalancing
	Place         Place
	// FailoverTo is the region that follows the own one where LoadBalancing fails over
	// from region to region; "" makes all others equal.
	FailoverTo string
	// RingSize is the least number of points on a ring: 1,024 when 0. TableSize is that
	// of Maglev's table, a prime: 65,537 when 0.
	RingSize, TableSize int
	// Hash are the keys that hashed balancers choose by, the first that a request has.
	Hash      []HashKey
	SlowStart SlowStart
	// EWMADecay is how long peak EWMA remembers: 10 s when 0.
	EWMADecay time.Duration
	// Outlier ejects targets that fail requests; nil ejects none.
	Outlier *Outlier
	// PanicPercent: with fewer than this part of the targets left by ejection and
	// checks, all of them take part, because then the fault may well be here. 0, which
	// is what Istio sets, never panics. Endpoints that are not ready never take part.
	PanicPercent int
	// Health checks targets actively; nil does not.
	Health *Health
	// Circuit limits what is under way.
	Circuit CircuitLimits
	// Adaptive bounds the requests under way by what latency tells; nil does not.
	Adaptive *Adaptive
	Pool     PoolConfig
	// Budget bounds retries.
	Budget BudgetConfig
	// Log gets ejections and failed checks; nil none.
	Log *zap.Logger
}

func (c *Config) validate() error {
	switch {
	case int(c.Balancer) >= len(balancerNames):
		return fmt.Errorf("balancer %d is unknown", c.Balancer)
	case c.PanicPercent < 0 || c.PanicPercent > 100:
		return fmt.Errorf("panic threshold of %d %%", c.PanicPercent)
	case c.SlowStart.Window < 0 || c.SlowStart.Aggression < 0 || c.SlowStart.MinPercent < 0 || c.SlowStart.MinPercent > 100:
		return errors.New("slow start: negative, or more than 100 %")
	case c.EWMADecay < 0:
		return errors.New("a negative EWMA decay")
	case c.RingSize < 0 || c.RingSize > maxRing:
		return fmt.Errorf("a ring of %d points, of %d that are allowed", c.RingSize, maxRing)
	case c.TableSize != 0 && (c.TableSize < 2 || c.TableSize > maxTable || !prime(c.TableSize)):
		return fmt.Errorf("a table of %d places: not a prime up to %d", c.TableSize, maxTable)
	}
	return errors.Join(c.Outlier.validate(), c.Health.validate(), c.Adaptive.validate(), c.Pool.validate(), c.Budget.validate())
}

// Backend is one port of a service as a destination. It is safe for concurrent use.
type Backend struct {
	dialer   Dialer
	base     time.Time // of now
	settings atomic.Pointer[settings]
	set      atomic.Pointer[set]
	circuit  circuit
	place    atomic.Uint64 // of the round robin
	// ejections by cause, since the start.
	ejections [ejectionCauses]atomic.Uint64

	checks sync.WaitGroup

	mu      sync.Mutex
	byKey   map[key]*Target
	targets []*Target // of byKey; never changed, only replaced, as byHash
	byHash  map[uint64]*Target
	// generation counts updates.
	generation uint64
	started    bool // endpoints were told once
	closed     bool
}

// settings is a Config with what is made from it: immutable.
type settings struct {
	Config
	decay   float32
	outlier *detector
	limiter *limiter
	budget  *budget
}

// New returns a backend without endpoints. Close releases what it holds.
func New(cfg Config, dialer Dialer) (*Backend, error) {
	b := &Backend{dialer: dialer, base: time.Now(), byKey: map[key]*Target{}}
	// Replicas of a waypoint begin elsewhere.
	b.place.Store(rand.Uint64() >> 32)
	b.set.Store(&set{next: never})
	if err := b.Configure(cfg); err != nil {
		return nil, err
	}
	return b, nil
}

// Configure changes the configuration in place: endpoints, connections, what is
// under way and all counts stay. What is wrong changes nothing.
func (b *Backend) Configure(cfg Config) error {
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("backend %s: %w", cfg.Name, err)
	}
	if cfg.EWMADecay == 0 {
		cfg.EWMADecay = 10 * time.Second
	}
	if cfg.SlowStart.MinPercent == 0 {
		cfg.SlowStart.MinPercent = 10
	}
	if cfg.SlowStart.Aggression == 0 {
		cfg.SlowStart.Aggression = 1
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	cfg.Pool = cfg.Pool.withDefaults()
	s := &settings{Config: cfg, decay: perMilli(cfg.EWMADecay)}

	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.settings.Load()
	if old == nil {
		old = &settings{}
	}
	if s.budget = old.budget; s.budget == nil || old.Budget != cfg.Budget {
		s.budget = newBudget(cfg.Budget)
	}
	if cfg.Outlier != nil {
		if s.outlier = old.outlier; s.outlier == nil || *old.Outlier != *cfg.Outlier {
			s.outlier = newDetector(b, *cfg.Outlier)
		}
	}
	if cfg.Adaptive != nil {
		if s.limiter = old.limiter; s.limiter == nil || *old.Adaptive != *cfg.Adaptive {
			s.limiter = newLimiter(*cfg.Adaptive)
		}
	}
	b.settings.Store(s)
	b.circuit.limit(cfg.Circuit)
	if s.outlier == nil {
		for _, t := range b.targets {
			t.ejectedUntil, t.ejections = 0, 0
		}
	}
	if !reflect.DeepEqual(old.Health, cfg.Health) {
		for _, t := range b.targets {
			b.restartChecks(t)
		}
	}
	if !b.closed {
		b.rebuild(b.now())
	}
	return nil
}

// Name returns the configured name.
func (b *Backend) Name() string { return b.settings.Load().Name }

// now is the time of the backend's clock, from 1.
func (b *Backend) now() int64 { return int64(time.Since(b.base)) + 1 }

// Update replaces the endpoints. Those that were there before keep what is known of
// them and their connections; the connections of those that are gone end with what
// is under way on them. Of two endpoints that are the same one, the last counts. It
// refuses more endpoints than 65,536, and then changes nothing.
func (b *Backend) Update(endpoints []Endpoint) error {
	if len(endpoints) > maxEndpoints {
		return fmt.Errorf("backend %s: %d endpoints, more than %d", b.Name(), len(endpoints), maxEndpoints)
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	now := b.now()
	b.generation++
	known := 0
	var fresh, gone []*Target
	for i := range endpoints {
		e := &endpoints[i]
		t := b.byKey[e.key()]
		if t == nil {
			t = b.newTarget(e)
			b.byKey[e.key()] = t
			fresh = append(fresh, t)
		}
		if t.generation != b.generation {
			t.generation = b.generation
			known++
		}
		if was := t.endpoint.Load(); was == nil || *was != *e {
			own := *e
			t.endpoint.Store(&own)
			if b.started && own.Healthy && (was == nil || !was.Healthy) {
				b.warm(t, now)
			}
		}
	}
	if known < len(b.byKey) {
		for k, t := range b.byKey {
			if t.generation != b.generation {
				t.retired = true
				gone = append(gone, t)
				delete(b.byKey, k)
			}
		}
	}
	if len(fresh)+len(gone) > 0 {
		b.arrangeTargets()
	}
	b.started = b.started || len(endpoints) > 0
	b.rebuild(now)
	for _, t := range fresh {
		b.restartChecks(t)
	}
	for _, t := range gone {
		t.endChecks()
	}
	b.mu.Unlock()
	for _, t := range gone {
		t.retire()
	}
	return nil
}

// arrangeTargets lists the targets in an order of its own, so that the same endpoints
// make the same tables in every replica. Backend.mu is held.
func (b *Backend) arrangeTargets() {
	targets := make([]*Target, 0, len(b.byKey))
	byHash := make(map[uint64]*Target, len(b.byKey))
	for _, t := range b.byKey {
		targets = append(targets, t)
		byHash[t.hash] = t
	}
	slices.SortFunc(targets, func(x, y *Target) int {
		if x.hash != y.hash {
			return cmp.Compare(x.hash, y.hash)
		}
		return x.Endpoint().Addr.Compare(y.Endpoint().Addr)
	})
	b.targets, b.byHash = targets, byHash
}

func (b *Backend) newTarget(e *Endpoint) *Target {
	t := &Target{backend: b, hash: HashString(e.Name())}
	for p := range t.pools {
		t.pools[p].init(t, Protocol(p))
	}
	return t
}

// retire lets the target's connections end.
func (t *Target) retire() {
	t.serving.Store(false)
	for p := range t.pools {
		t.pools[p].retire()
	}
}

// Close ends the checks and the idle connections; those in use end with what is
// under way on them. Nothing can be picked afterwards.
func (b *Backend) Close() {
	b.mu.Lock()
	targets := b.targets
	b.byKey, b.targets, b.byHash, b.closed = nil, nil, nil, true
	for _, t := range targets {
		t.retired = true
		t.endChecks()
	}
	b.set.Store(&set{next: never})
	b.mu.Unlock()
	for _, t := range targets {
		t.retire()
	}
	b.checks.Wait()
}
