package xdsclient

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/internal/backoff"
)

// Config says what a Client talks to and what it keeps up to date.
type Config struct {
	// Dial opens a connection to the control plane; it is called once per
	// attempt and the Client closes what it returns. Dialer makes one. Required.
	Dial func(ctx context.Context) (*grpc.ClientConn, error)
	// Node introduces the proxy; NewNode makes one. Required.
	Node *core.Node
	// Handlers are the subscribed types, by type URL. At least one.
	Handlers map[string]Handler
	// Names asks for resources of a type by name or alias; a type without any is
	// subscribed to as a whole. What the server does not have it answers as removed.
	Names map[string][]string
	// OnDemand lists types of which nothing is wanted but what Subscribe asks for. Synced
	// does not wait for them.
	OnDemand []string
	// MinBackoff and MaxBackoff space the attempts; zero means 10 ms and 15 s.
	MinBackoff, MaxBackoff time.Duration
	// Logger is required.
	Logger *zap.Logger
	// Registerer takes the istio_xds_* metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

// Client keeps its Handlers in step with a control plane. Make it with New; all
// methods are safe for concurrent use, Run may be called once.
type Client struct {
	cfg     Config
	types   []string // sorted
	log     *zap.Logger
	metrics *metrics
	backoff *backoff.Backoff
	synced  chan struct{}

	// applying is held while a Handler takes a delta. It guards accepted, the last
	// accepted version of each resource by type.
	applying sync.Mutex
	accepted map[string]map[string]string

	// wake says that names were added or given back; it holds one at most.
	wake chan struct{}

	mu       sync.Mutex
	status   Status
	unsynced map[string]bool
	names    map[string][]string        // what is asked for by name, in order
	named    map[string]map[string]bool // the same as sets
	idle     map[string][]string        // resources that are of no use any more
}

// Status is a Client's state for people.
type Status struct {
	// Connected is true while a stream is open.
	Connected bool
	// Since is when Connected last changed.
	Since time.Time
	// LastError is why the last stream ended or could not be opened.
	LastError string
	// Types holds one entry per subscribed type URL.
	Types map[string]TypeStatus
}

// TypeStatus is the state of one subscribed type.
type TypeStatus struct {
	// Synced is true once the first response was applied.
	Synced bool
	// Resources counts those held at an accepted version.
	Resources int
	// Nonce and LastResponse are those of the last response.
	Nonce        string
	LastResponse time.Time
	// LastRejection is the message of the last NACK, empty when the last
	// response was taken whole.
	LastRejection string
}

// New checks cfg and returns a Client that does nothing until Run.
func New(cfg Config) (*Client, error) {
	switch {
	case cfg.Dial == nil:
		return nil, errors.New("xdsclient: Config.Dial is required")
	case cfg.Node == nil:
		return nil, errors.New("xdsclient: Config.Node is required")
	case len(cfg.Handlers) == 0:
		return nil, errors.New("xdsclient: Config.Handlers is empty")
	case cfg.Logger == nil:
		return nil, errors.New("xdsclient: Config.Logger is required")
	}
	for url := range cfg.Names {
		if cfg.Handlers[url] == nil {
			return nil, fmt.Errorf("xdsclient: Config.Names of %s, which has no handler", url)
		}
	}
	for _, url := range cfg.OnDemand {
		if cfg.Handlers[url] == nil {
			return nil, fmt.Errorf("xdsclient: Config.OnDemand has %s, which has no handler", url)
		}
	}
	if cfg.MinBackoff == 0 {
		cfg.MinBackoff = defaultMinBackoff
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = defaultMaxBackoff
	}
	if cfg.MinBackoff < 0 || cfg.MaxBackoff < cfg.MinBackoff {
		return nil, fmt.Errorf("xdsclient: back-off from %v to %v is not a range", cfg.MinBackoff, cfg.MaxBackoff)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("xdsclient: register metrics: %w", err)
	}
	c := &Client{
		cfg:      cfg,
		types:    slices.Sorted(maps.Keys(cfg.Handlers)),
		log:      cfg.Logger,
		metrics:  m,
		backoff:  backoff.New(cfg.MinBackoff, cfg.MaxBackoff),
		synced:   make(chan struct{}),
		accepted: make(map[string]map[string]string, len(cfg.Handlers)),
		wake:     make(chan struct{}, 1),
		unsynced: make(map[string]bool, len(cfg.Handlers)),
		names:    map[string][]string{},
		named:    map[string]map[string]bool{},
		idle:     map[string][]string{},
		status:   Status{Types: make(map[string]TypeStatus, len(cfg.Handlers))},
	}
	for _, url := range c.types {
		if cfg.Handlers[url] == nil {
			return nil, fmt.Errorf("xdsclient: no handler for %s", url)
		}
		c.accepted[url] = map[string]string{}
		c.named[url] = map[string]bool{}
		if !slices.Contains(cfg.OnDemand, url) {
			c.unsynced[url] = true
		}
		c.Subscribe(url, cfg.Names[url]...)
		c.status.Types[url] = TypeStatus{}
	}
	return c, nil
}

// Subscribe asks for resources of a type by name or alias, now and after each
// reconnect, besides those that were asked for before. It does not block.
func (c *Client) Subscribe(url string, names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := false
	for _, name := range names {
		if !c.named[url][name] {
			c.named[url][name] = true
			c.names[url] = append(c.names[url], name)
			added = true
		}
	}
	if !added {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Unsubscribe gives names back. What they stood for tells its Handler nobody but the
// caller: resources are removed there, as if the control plane had done it. It does not
// block.
func (c *Client) Unsubscribe(url string, names, resources []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		delete(c.named[url], name)
	}
	c.names[url] = slices.DeleteFunc(c.names[url], func(name string) bool { return !c.named[url][name] })
	c.idle[url] = append(c.idle[url], resources...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// wanted returns the names of a type.
func (c *Client) wanted(url string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.names[url])
}

// forget removes what was given back, unless it was asked for again.
func (c *Client) forget(url string) {
	c.mu.Lock()
	var removed []string
	for _, name := range c.idle[url] {
		if !c.named[url][name] {
			removed = append(removed, name)
		}
	}
	delete(c.idle, url)
	c.mu.Unlock()
	if len(removed) == 0 {
		return
	}
	c.applying.Lock()
	defer c.applying.Unlock()
	for _, name := range removed {
		delete(c.accepted[url], name)
	}
	c.cfg.Handlers[url].Apply(Delta{Removed: removed})
}

// Synced is closed when the first response of every subscribed type has been
// applied. It never opens again: a lost stream leaves the state in force.
func (c *Client) Synced() <-chan struct{} { return c.synced }

// Status returns a copy of the present state.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Types = maps.Clone(s.Types)
	return s
}

// Run keeps a stream open until ctx ends, and returns nil then. It must be
// called at most once.
func (c *Client) Run(ctx context.Context) error {
	for {
		started := time.Now()
		answered, err := c.session(ctx)
		if ctx.Err() != nil {
			c.disconnected(nil)
			return nil
		}
		c.disconnected(err)
		if answered && time.Since(started) >= stableSession {
			c.backoff.Reset()
		}
		delay := c.backoff.Next()
		reason := terminationReason(err)
		c.metrics.terminations.WithLabelValues(reason).Inc()
		log := c.log.Warn
		if reason == reasonComplete || reason == reasonReconnect {
			log = c.log.Info
		}
		log("xds stream ended", zap.String("reason", reason), zap.Error(err), zap.Duration("retry_in", delay))
		if !sleep(ctx, delay) {
			return nil
		}
	}
}

func (c *Client) connected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Connected = true
	c.status.Since = time.Now()
}

func (c *Client) disconnected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.Connected || c.status.Since.IsZero() {
		c.status.Since = time.Now()
	}
	c.status.Connected = false
	if err != nil {
		c.status.LastError = err.Error()
	}
}

// record notes one applied response and closes synced with the last missing type.
func (c *Client) record(url, nonce, nack string, held int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Types[url] = TypeStatus{
		Synced:        true,
		Resources:     held,
		Nonce:         nonce,
		LastResponse:  time.Now(),
		LastRejection: nack,
	}
	if c.unsynced[url] {
		delete(c.unsynced, url)
		if len(c.unsynced) == 0 {
			close(c.synced)
		}
	}
}

// first reports whether url has had no response yet.
func (c *Client) first(url string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsynced[url]
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
