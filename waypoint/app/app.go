package app

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/certs/caclient"
	"github.com/tulle-mesh/tulle/certs/rotation"
	"github.com/tulle-mesh/tulle/internal/admin"
	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/logging"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/config"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/listener"
	"github.com/tulle-mesh/tulle/waypoint/memory"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
	"github.com/tulle-mesh/tulle/waypoint/report"
	"github.com/tulle-mesh/tulle/waypoint/trace"
	"github.com/tulle-mesh/tulle/waypoint/tunnel"
)

// errQuit is the cause of an end by the admin interface.
var errQuit = errors.New("asked to quit by the admin interface")

// Run runs a waypoint until ctx ends, drains it, and returns nil, or returns what
// broke it.
func Run(ctx context.Context, cfg config.Config) error {
	log, levels, err := logging.New(logging.Config{Format: cfg.LogFormat, Level: cfg.LogLevel})
	if err != nil {
		return err
	}
	if cfg.MemoryLimit > 0 {
		debug.SetMemoryLimit(cfg.MemoryLimit)
	}
	defer memory.Floor(memory.DefaultFloor)()
	w, err := build(cfg, log, levels)
	if err != nil {
		return err
	}
	ctx, quit := context.WithCancelCause(ctx)
	defer quit(nil)
	srv, err := admin.New(admin.Config{
		Addr: cfg.AdminAddr, Component: "waypoint", Levels: levels, Dump: w.dump, Quit: func() { quit(errQuit) },
	})
	if err != nil {
		return err
	}
	w.pages(srv)
	return w.run(ctx, srv)
}

// waypoint is the parts of one process.
type waypoint struct {
	cfg      config.Config
	log      *zap.Logger
	ready    *readiness.Ready
	registry *prometheus.Registry
	store    *state.Store
	keys     *jwt.Keys
	limiter  *ratelimit.Limiter
	mesh     *mesh.Mesh
	xds      *xdsclient.Client
	ca       *grpc.ClientConn
	certs    *rotation.Manager
	lease    *rotation.Lease
	drain    *lifecycle.Drain
	dialer   *tunnel.Dialer
	report   *report.Reporter
	sessions sessions
	forward  *forward.Forwarder
	listener *listener.Listener
	silent   silent
	http1    *http1.Server
	http2    *http2.Server
}

// build makes the parts; nothing runs yet.
func build(cfg config.Config, log *zap.Logger, levels *logging.Levels) (*waypoint, error) {
	w := &waypoint{
		cfg: cfg, log: log, ready: readiness.New(), drain: lifecycle.NewDrain(),
		registry: telemetry.NewRegistry("waypoint", telemetry.Version),
		store:    state.New(state.Config{ClusterID: cfg.ClusterID, Logger: log.Named("state")}),
	}
	id, err := cfg.Identity()
	if err != nil {
		return nil, err
	}
	roots := mtls.RootsFromFile(cfg.RootCert)
	controlPlane := mtls.ControlPlaneClient(roots, cfg.ServerName)
	if w.ca, err = caclient.Dial(cfg.CAAddress, controlPlane); err != nil {
		return nil, err
	}
	w.certs = rotation.NewManager(rotation.Config{
		Signer: caclient.New(w.ca, caclient.Config{Token: caclient.TokenFile{Path: cfg.TokenFile}, Own: true}),
		Logger: log.Named("certs"), Registerer: w.registry,
	})
	w.lease = w.certs.Acquire(id)
	budget := hbone.NewBudget(windowBudgetBytes)
	w.dialer = tunnel.NewDialer(tunnel.Config{SVID: w.lease, Bundles: w.lease, Budget: budget, ConnectTimeout: cfg.ConnectTimeout})
	w.keys = jwt.NewKeys(jwt.Config{Fetcher: jwt.NewHTTPFetcher(w.dialIssuer), Log: log.Named("jwt")})
	w.limiter = w.newLimiter()
	w.mesh = mesh.New(mesh.Config{
		Keys: w.keys, Limiter: w.limiter,
		SVID: w.lease, Bundles: w.lease,
		Store: w.store, Dialer: dialer{w.dialer}, Network: cfg.Network, Namespace: cfg.PodNamespace, Pod: cfg.PodName, Own: cfg.InstanceIP != "",
		Want:   func(names ...string) { w.xds.Subscribe(xdsclient.AddressType, names...) },
		Drop:   func(names, resources []string) { w.xds.Unsubscribe(xdsclient.AddressType, names, resources) },
		Logger: log.Named("mesh"),
	})
	tracer := trace.NewTracer()
	if w.report, err = report.New(report.Config{
		Store: w.store, Network: cfg.Network, Registerer: w.registry, Output: os.Stderr, JSON: cfg.LogFormat == "json", Levels: levels,
		Logger: log.Named("report"), Tracer: tracer, Self: report.Self{
			Gateway: cfg.Gateway, Namespace: cfg.PodNamespace, Pod: cfg.PodName, Node: cfg.Node, Cluster: cfg.ClusterID, Version: telemetry.Version,
		},
	}); err != nil {
		return nil, err
	}
	w.forward = forward.New(forward.Config{
		Mesh: w.mesh, Identity: id, Report: w.report.Report, Opened: w.report.Opened, Tracer: tracer, Logger: log.Named("forward"),
	})
	w.registry.MustRegister(&statistics{w: w})
	w.http1 = &http1.Server{Handler: w.forward.Serve, Config: http1.ServerConfig{
		HeadTimeout: headTimeout, IdleTimeout: idleTimeout, StallTimeout: stallTimeout, OnError: w.report.Refused,
	}}
	w.http2 = &http2.Server{Handler: w.forward.Serve, Config: http2.ServerConfig{
		HeadTimeout: headTimeout, IdleTimeout: idleTimeout, StallTimeout: stallTimeout, OnError: w.report.Refused,
	}}
	w.listener = listener.New(listener.Config{
		Gate:    handshake.NewGate(handshake.Config{TLS: mtls.Server(w.lease, w.lease), Certificate: w.lease, Timeout: cfg.HandshakeTimeout}),
		Handler: w.serve, Drain: w.drain, Budget: budget, Logger: log.Named("listener"),
	})
	if w.xds, err = w.subscribe(roots); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// subscribe makes the client of the control plane.
func (w *waypoint) subscribe(roots mtls.Roots) (*xdsclient.Client, error) {
	node, err := xdsclient.NewNode(xdsclient.Identity{
		Kind: "waypoint", InstanceIP: w.cfg.InstanceIP, Name: w.cfg.PodName, Namespace: w.cfg.PodNamespace,
		Node: w.cfg.Node, Version: telemetry.Version, Environ: os.Environ(),
	})
	if err != nil {
		return nil, err
	}
	own := []string{mesh.Alias(w.cfg.PodNamespace, w.cfg.Gateway)}
	client, err := xdsclient.New(xdsclient.Config{
		Dial: xdsclient.Dialer(xdsclient.DialConfig{
			Address: w.cfg.XDSAddress, TokenFile: w.cfg.TokenFile, ClusterID: w.cfg.ClusterID,
			TLS: func() (*tls.Config, error) { return mtls.ControlPlaneClient(roots, w.cfg.ServerName), nil },
		}),
		Node: node,
		Handlers: map[string]xdsclient.Handler{
			xdsclient.AddressType: w.mesh.Wanted(w.store.AddressHandler()),
			mesh.ServiceType:      w.mesh.ServiceHandler(),
			mesh.PolicyType:       w.mesh.PolicyHandler(),
			mesh.RateLimitType:    w.mesh.RateLimitHandler(),

			mesh.AuthenticationType: w.mesh.AuthenticationHandler(),
			report.TelemetryType:    w.report.Handler(),
			mesh.DestinationType:    w.mesh.DestinationHandler(),
		},
		Names:    map[string][]string{mesh.ServiceType: own, mesh.PolicyType: own, mesh.RateLimitType: own, mesh.AuthenticationType: own, report.TelemetryType: own, mesh.DestinationType: own},
		OnDemand: []string{xdsclient.AddressType},
		Logger:   w.log.Named("xds"), Registerer: w.registry,
	})
	if err != nil {
		return nil, err
	}
	if w.cfg.InstanceIP != "" {
		client.Subscribe(xdsclient.AddressType, w.cfg.Network+"/"+w.cfg.InstanceIP)
	}
	return client, nil
}

// run runs everything until ctx ends, and ends it in order: first the requests, by a
// drain, then what they need.
func (w *waypoint) run(ctx context.Context, srv *admin.Server) error {
	background := lifecycle.NewGroup(context.WithoutCancel(ctx))
	defer w.close()
	background.Go("admin", srv.Run)
	background.Go("metrics", func(ctx context.Context) error {
		return admin.ListenAndServe(ctx, w.cfg.MetricsAddr, metricsHandler(w.registry))
	})
	background.Go("readiness", func(ctx context.Context) error {
		mux := http.NewServeMux()
		mux.Handle("GET /healthz/ready", w.ready.Handler())
		mux.HandleFunc("GET /healthz/live", func(http.ResponseWriter, *http.Request) {}) // 200 as long as it answers
		return admin.ListenAndServe(ctx, w.cfg.ReadinessAddr, mux)
	})
	background.Go("mesh", w.mesh.Run)
	background.Go("xds", w.xds.Run)
	background.Go("leases", w.leases)
	w.log.Info("waypoint started", zap.String("version", telemetry.Version), zap.String("gateway", w.cfg.PodNamespace+"/"+w.cfg.Gateway),
		zap.Stringer("identity", w.lease.ID()), zap.String("xds", w.cfg.XDSAddress))

	err := w.serveTunnels(ctx, background)
	if err == nil && ctx.Err() != nil {
		w.log.Info("waypoint ended", zap.NamedError("cause", context.Cause(ctx)))
	}
	background.Stop(nil)
	return errors.Join(err, background.Wait())
}

// serveTunnels takes tunnels once the waypoint knows what to do and who it is, until
// ctx ends or the background breaks, and then drains them.
func (w *waypoint) serveTunnels(ctx context.Context, background *lifecycle.Group) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(background.Context(), func() { cancel(context.Cause(background.Context())) })
	defer stop()

	synced := w.ready.Pending("first full answer of the control plane " + w.cfg.XDSAddress)
	certified := w.ready.Pending("certificate of " + w.lease.ID().String())
	listening := w.ready.Pending("listener " + w.cfg.ListenAddr)
	select {
	case <-w.xds.Synced():
		w.mesh.Await(ctx)
		synced()
	case <-ctx.Done():
		return nil
	}
	if err := w.lease.Ready(ctx); err != nil {
		return nil // ctx ended before
	}
	certified()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp", w.cfg.ListenAddr)
	if err != nil {
		return err
	}
	listening()
	w.log.Info("waypoint serves", zap.Int("services", len(w.mesh.Services())), zap.Stringer("address", ln.Addr()))

	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	served := make(chan error, 1)
	go func() { served <- w.listener.Serve(serving, ln) }()
	select {
	case <-ctx.Done():
	case err := <-served:
		return err
	}
	w.drainAll()
	end()
	return <-served
}

// drainAll lets requests finish: clients are told to come no more, and new ones are
// still served until they have heard.
func (w *waypoint) drainAll() {
	w.ready.Pending("draining") // for good
	w.log.Info("draining", zap.Int("connections", w.drain.Held()), zap.Duration("deadline", w.cfg.DrainDeadline))
	deadline, cancel := context.WithTimeout(context.Background(), max(w.cfg.DrainDeadline, time.Nanosecond))
	defer cancel()
	// The control plane takes this waypoint out at the same moment. Until node proxies
	// have heard of it they open tunnels here, which are served as ever.
	leave := time.NewTimer(min(leaveTime, w.cfg.DrainDeadline/4))
	defer leave.Stop()
	<-leave.C
	w.silent.drain()
	w.http1.Drain()
	w.http2.Drain()
	w.listener.Drain(deadline)
	if left := w.drain.Wait(deadline); left > 0 {
		w.log.Warn("requests were broken off at the drain's deadline", zap.Int("connections", left))
	}
	// Connections that are kept for later requests would hold the tunnels open.
	w.forward.Close()
	w.mesh.CloseBackends()
	_ = w.dialer.Drain(deadline)
}

// close releases what build made.
func (w *waypoint) close() {
	w.forward.Close()
	w.sessions.close()
	w.report.Close()
	w.limiter.Close()
	w.keys.Close()
	w.lease.Release()
	w.certs.Close()
	_ = w.ca.Close()
	_ = w.log.Sync()
}

func metricsHandler(reg *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	h := telemetry.Handler(reg)
	mux.Handle("GET /metrics", h)
	mux.Handle("GET /stats/prometheus", h)
	return mux
}
