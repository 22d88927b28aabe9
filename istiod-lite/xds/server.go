package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
)

// Config says who may subscribe and how patient the server is.
type Config struct {
	// Authorize returns the account behind a stream, as namespace/name, or why
	// it may not subscribe; the error's text goes to the log only. Required.
	Authorize func(ctx context.Context) (account string, err error)
	// Scope returns what an account may subscribe to that Authorize let in. It is
	// asked at each subscription. Nil is Everything for all.
	Scope func(account string) Scope
	// Expiry returns until when a stream's caller is who it proved to be, zero for
	// ever. The stream ends then, in order, and the client comes again with a
	// newer token. Nil is for ever.
	Expiry func(ctx context.Context) time.Time
	// SendTimeout is how long a client may take to acknowledge a response; zero
	// means 60 s.
	SendTimeout time.Duration
	// Disconnect closes the connection of a stream's context. It is called when a
	// client is cut off that takes nothing: what gRPC has buffered for it would
	// stay until the connection ends. Nil leaves it to gRPC's keepalive.
	Disconnect func(ctx context.Context)
	// MaxClients bounds the streams; zero means 10,000.
	MaxClients int
	// Logger is required.
	Logger *zap.Logger
	// Registerer takes the pilot_xds_* metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

// Scope is what an account may subscribe to. The zero value is nothing.
type Scope struct {
	// Everything of the mesh's state, which node proxies keep.
	Everything bool
	// Aliases are those of the resources of waypoints that are the account's. Who
	// has any may also ask for addresses, one by one.
	Aliases []string
}

// permits returns why a subscription to key, or to "*", is refused.
func (s Scope) permits(url, key string) error {
	switch {
	case snapshot.Scoped(url):
		if !slices.Contains(s.Aliases, key) {
			return errors.New("these resources are another account's")
		}
		return nil
	case s.Everything:
		return nil
	case url == snapshot.AddressType && key != "*" && len(s.Aliases) > 0:
		return nil
	}
	return errors.New("this account may not subscribe to it")
}

// Server serves snapshots to subscribed proxies. All methods are safe for
// concurrent use.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer

	cfg     Config
	log     *zap.Logger
	metrics *metrics
	current atomic.Pointer[snapshot.Snapshot]
	nextID  atomic.Uint64
	closing chan struct{}
	workers sync.WaitGroup // the goroutines of all streams

	published chan struct{} // closed with the first Publish
	turns     chan struct{} // one for each stream that starts

	mu      sync.Mutex
	clients map[*client]struct{}
	closed  bool

	wholeMu sync.Mutex
	wholes  map[string]whole // by type
}

// whole is everything of a set in one body.
type whole struct {
	set  *snapshot.Set
	body *body
}

var shortTypes = map[string]string{
	snapshot.AddressType:       "address",
	snapshot.AuthorizationType: "authorization",

	snapshot.WaypointServiceType:        "waypoint_service",
	snapshot.WaypointPolicyType:         "waypoint_policy",
	snapshot.WaypointAuthenticationType: "waypoint_authentication",
	snapshot.WaypointDestinationType:    "waypoint_destination",
	snapshot.WaypointRateLimitType:      "waypoint_rate_limit",
	snapshot.WaypointTelemetryType:      "waypoint_telemetry",
}

// New checks cfg and returns a server that has nothing to serve: streams are
// taken and wait until the first Publish.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Authorize == nil:
		return nil, errors.New("xds: Config.Authorize is required")
	case cfg.Logger == nil:
		return nil, errors.New("xds: Config.Logger is required")
	case cfg.SendTimeout < 0 || cfg.MaxClients < 0:
		return nil, errors.New("xds: a limit is negative")
	}
	if cfg.SendTimeout == 0 {
		cfg.SendTimeout = defaultSendTimeout
	}
	if cfg.MaxClients == 0 {
		cfg.MaxClients = defaultMaxClients
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("xds: register metrics: %w", err)
	}
	return &Server{
		cfg: cfg, log: cfg.Logger, metrics: m, closing: make(chan struct{}), clients: map[*client]struct{}{},
		published: make(chan struct{}), turns: make(chan struct{}, maxStarting), wholes: map[string]whole{},
	}, nil
}

// Register makes r serve the discovery service.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discovery.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// Publish puts a snapshot into force and tells the clients what changed; since
// is when the first of the changes was seen. It does not wait for any client.
// Snapshots must be published in their order, by one caller at a time.
func (s *Server) Publish(snap *snapshot.Snapshot, change snapshot.Change, since time.Time) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	prev := s.current.Swap(snap)
	updates := make(map[string]*update, len(change.Deltas))
	for url, deltas := range change.Deltas {
		var from *snapshot.Set
		if prev != nil {
			from = prev.Sets[url]
		}
		updates[url] = newUpdate(from, snap.Sets[url], deltas)
	}
	for c := range s.clients {
		c.mark(snap, updates, since, now)
	}
	if prev == nil {
		close(s.published)
	}
}

// whole returns all of a set in one body, encoded once for the clients that
// come while it is in force.
func (s *Server) whole(set *snapshot.Set) *body {
	s.wholeMu.Lock()
	defer s.wholeMu.Unlock()
	w := s.wholes[set.Type]
	if w.set != set {
		entries := make([]*snapshot.Entry, 0, len(set.Entries))
		for _, e := range set.Entries {
			entries = append(entries, e)
		}
		slices.SortFunc(entries, func(a, b *snapshot.Entry) int { return strings.Compare(a.Name, b.Name) })
		w = whole{set, newBody(entries, nil)}
		s.wholes[set.Type] = w
	}
	return w.body
}

// Snapshot returns the one in force, nil before the first.
func (s *Server) Snapshot() *snapshot.Snapshot { return s.current.Load() }

// Close ends all streams, refuses new ones and waits for their goroutines.
// Clients come again to wherever the address then leads.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.workers.Wait()
}

// DeltaAggregatedResources serves one stream until either side ends it.
func (s *Server) DeltaAggregatedResources(stream deltaStream) error {
	ctx := stream.Context()
	address := ""
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		address = p.Addr.String()
	}
	account, err := s.cfg.Authorize(ctx)
	if err != nil {
		s.metrics.refused.Inc()
		s.log.Info("xds stream refused", zap.String("peer", address), zap.Error(err))
		if code := status.Code(err); code == codes.Unauthenticated || code == codes.Unavailable {
			return err
		}
		return status.Error(codes.PermissionDenied, "this account may not subscribe")
	}
	c := newClient(s, stream, s.nextID.Add(1), account, address)
	if s.cfg.Expiry != nil {
		c.expiry = s.cfg.Expiry(ctx)
	}
	if err := s.add(c); err != nil {
		s.metrics.refused.Inc()
		s.log.Warn("xds stream refused", zap.String("peer", address), zap.String("account", account), zap.Error(err))
		return err
	}
	defer s.remove(c)
	return c.serve()
}

func (s *Server) add(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return status.Error(codes.Unavailable, "the control plane is shutting down")
	}
	if len(s.clients) >= s.cfg.MaxClients {
		return status.Errorf(codes.ResourceExhausted, "already %d streams", len(s.clients))
	}
	s.clients[c] = struct{}{}
	c.latest = s.current.Load()
	s.metrics.clients.Set(float64(len(s.clients)))
	s.workers.Add(3) // serve, receive, send
	return nil
}

func (s *Server) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	s.metrics.clients.Set(float64(len(s.clients)))
	s.workers.Done()
}
