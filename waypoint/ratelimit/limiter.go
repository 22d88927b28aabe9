package ratelimit

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Config makes a Limiter. The zero value counts locally, and reaches Redis by TCP.
type Config struct {
	// Dial connects to a host and port for Redis; nil dials by TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// DialService connects to an endpoint of a service "namespace/hostname" of the mesh,
	// for rate limit services; nil knows none.
	DialService func(ctx context.Context, service string, port uint32) (net.Conn, error)
	// PasswordDir is the directory that has one for each namespace, below which password
	// files of its policies must be; "" is any.
	PasswordDir string
	// MaxKeys bounds the keys in memory; 0 is 100,000.
	MaxKeys int
	// Registerer takes the metrics; nil none.
	Registerer prometheus.Registerer
	Logger     *zap.Logger
}

// Limiter counts requests. It is safe for concurrent use. Close ends it.
type Limiter struct {
	cfg     Config
	log     *zap.Logger
	keys    *Keys
	numbers atomic.Uint32
	leases  leases
	metric  *prometheus.CounterVec
	base    time.Time
	tickets sync.Pool

	mu       sync.Mutex
	remotes  map[string]*shared
	policies map[string]*Policy // in force
}

// shared is a backend that several policies count by.
type shared struct {
	remote
	users int
}

// New returns a Limiter.
func New(cfg Config) *Limiter {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	l := &Limiter{
		cfg: cfg, log: cfg.Logger, keys: NewKeys(cfg.MaxKeys), base: time.Now(), remotes: map[string]*shared{}, policies: map[string]*Policy{},
		metric: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tulle_rate_limit_decisions_total", Help: "Requests that a rule of a RateLimitPolicy counted, by what it decided.",
		}, []string{"policy", "rule", "decision"}),
	}
	l.tickets.New = func() any { return &Ticket{limiter: l} }
	l.leases.init()
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(l.metric)
		cfg.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tulle_rate_limit_keys", Help: "Keys of rate limits that are counted in memory.",
		}, func() float64 { return float64(l.keys.Len()) }))
	}
	return l
}

// Close ends the connections to backends. Policies must not be used afterwards.
func (l *Limiter) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, s := range l.remotes {
		s.close()
		delete(l.remotes, name)
	}
}

// now is nanoseconds of a clock that nobody sets.
func (l *Limiter) now() int64 { return int64(time.Since(l.base)) }

// share returns the backend of that name, which open makes when nobody has it, and how
// to give it up.
func (l *Limiter) share(name string, open func() remote) (remote, func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.remotes[name]
	if s == nil {
		s = &shared{remote: open()}
		l.remotes[name] = s
	}
	s.users++
	return s.remote, sync.OnceFunc(func() {
		l.mu.Lock()
		s.users--
		last := s.users == 0 && l.remotes[name] == s
		if last {
			delete(l.remotes, name)
		}
		l.mu.Unlock()
		if last {
			s.close() // not under mu: it waits for a connection to end
		}
	})
}

// remote is a backend outside of the process.
type remote interface {
	// take takes of all buckets, or of none, and fills their outcomes. The error says
	// that it is not known whether it did.
	take(ctx context.Context, list []*bucket) error
	// charge takes of them whether it is there or not. It does not wait.
	charge(list []charge)
	close()
	// note keeps what became of take, trouble tells why nothing is counted now; nil when
	// all is well.
	note(err error)
	trouble() *failure
	// kind is the backend's name for operators.
	kind() string
}

// charge is the cost of a request that has been served.
type charge struct {
	rule *rule
	key  string
	cost uint64
}

// decisions are a rule's metrics.
type decisions struct {
	allowed, limited, shadowed, open, closed prometheus.Counter
}

func (l *Limiter) decisions(policy, rule string) decisions {
	at := func(decision string) prometheus.Counter { return l.metric.WithLabelValues(policy, rule, decision) }
	return decisions{allowed: at("allowed"), limited: at("limited"), shadowed: at("shadow_limited"), open: at("failed_open"), closed: at("failed_closed")}
}
