package metrics

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config configures Metrics.
type Config struct {
	// Registerer takes the collector; nil leaves it unregistered.
	Registerer prometheus.Registerer
	// Idle is after how long without a connection a pair is forgotten; 0 is one hour.
	Idle time.Duration
	// MaxSeries bounds the pairs that are told apart; 0 is 20,000.
	MaxSeries int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Metrics counts connections. It is a prometheus.Collector and safe for
// concurrent use. It has no goroutine.
type Metrics struct {
	idle      time.Duration
	maxSeries int
	now       func() time.Time

	mu     sync.Mutex
	series map[key]*series // guarded by mu, as are the series themselves
	// open counts live connections by reporter.
	open [2]int
	// swept is when room was last looked for.
	swept time.Time
}

// New makes Metrics and registers them.
func New(cfg Config) *Metrics {
	if cfg.Idle <= 0 {
		cfg.Idle = defaultIdle
	}
	if cfg.MaxSeries <= 0 {
		cfg.MaxSeries = defaultMaxSeries
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m := &Metrics{idle: cfg.Idle, maxSeries: cfg.MaxSeries, now: cfg.Now, series: make(map[key]*series)}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(m)
	}
	return m
}

// series counts the connections of one pair of peers.
type series struct {
	labels []string
	pairs  labelPairs
	opened uint64
	closed [len(flags)]uint64
	failed [len(flags)]uint64
	// received is from the client and sent to it, for either reporter: that is
	// how Istio names them (istio/istio#32399).
	received, sent uint64
	// live is a ring of the open connections, through its own sentinel.
	live Connection
	// lastUsed is when the last connection opened, closed or failed; unseen says
	// that something changed since the last scrape.
	lastUsed time.Time
	unseen   bool
}

// Connection is one live connection in the counts.
type Connection struct {
	metrics                *Metrics
	series                 *series
	reporter               Reporter
	fromClient, fromServer *atomic.Uint64
	counted                [2]uint64
	prev, next             *Connection
}

// Open counts a connection that has been accepted. The counters hold its bytes
// from the client to the server and back; they are read at every scrape until
// Close, and either may be nil.
func (m *Metrics) Open(p Peers, fromClient, fromServer *atomic.Uint64) *Connection {
	c := &Connection{metrics: m, reporter: p.Reporter, fromClient: fromClient, fromServer: fromServer}
	k := newKey(p)
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.find(k, now)
	s.opened++
	m.open[p.Reporter&1]++
	c.series = s
	c.prev, c.next = s.live.prev, &s.live
	c.prev.next, c.next.prev = c, c
	return c
}

// Close counts the end of the connection and its last bytes, and, with any flag
// but FlagNone, its failure. Only the first call has an effect.
func (c *Connection) Close(f Flag) {
	m := c.metrics
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.next == nil {
		return
	}
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	m.open[c.reporter&1]--
	s := c.series
	c.count()
	s.closed[f.index()]++
	if f != FlagNone {
		s.failed[f.index()]++
	}
	s.lastUsed, s.unseen = now, true
}

// Failed counts a connection that was refused or failed before it was opened.
func (m *Metrics) Failed(p Peers, f Flag) {
	k := newKey(p)
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.find(k, now).failed[f.index()]++
}

// find returns the series of k, or, when there are too many, the one of peers
// that nobody knows. The caller holds mu.
func (m *Metrics) find(k key, now time.Time) *series {
	s, ok := m.series[k]
	if !ok && len(m.series) >= m.maxSeries {
		if now.Sub(m.swept) >= sweepInterval {
			m.swept = now
			m.expire(now, true)
		}
		if len(m.series) >= m.maxSeries {
			k = key{reporter: k.reporter, mutualTLS: k.mutualTLS}
			s, ok = m.series[k]
		}
	}
	if !ok {
		s = &series{labels: k.labels()}
		s.live.prev, s.live.next = &s.live, &s.live
		m.series[k] = s
	}
	s.lastUsed, s.unseen = now, true
	return s
}

// count adds the bytes since the last time. The caller holds mu.
func (c *Connection) count() {
	for i, counter := range [...]*atomic.Uint64{c.fromClient, c.fromServer} {
		if counter == nil {
			continue
		}
		n := counter.Load()
		if n <= c.counted[i] {
			continue
		}
		if i == 0 {
			c.series.received += n - c.counted[i]
		} else {
			c.series.sent += n - c.counted[i]
		}
		c.counted[i] = n
	}
}

// expire forgets pairs without live connections that have been silent for long.
// A pair that changed since the last scrape is kept until it was seen, unless
// room is needed. The caller holds mu.
func (m *Metrics) expire(now time.Time, needRoom bool) {
	for k, s := range m.series {
		if s.live.next == &s.live && now.Sub(s.lastUsed) >= m.idle && (needRoom || !s.unseen) {
			delete(m.series, k)
		}
	}
}
