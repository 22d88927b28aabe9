package app

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/admin"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/istiod-lite/config"
	"github.com/tulle-mesh/tulle/istiod-lite/lease"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
	"github.com/tulle-mesh/tulle/istiod-lite/xds"
)

// Options are what a process hands to its App besides the settings.
type Options struct {
	// Logger is required.
	Logger *zap.Logger
	// Levels are shown and changed at /logging; nil leaves that out.
	Levels admin.Levels
	// Version is reported in istio_build; empty means dev.
	Version string
}

// App is one control plane. Make it with New and drive it with Run, once.
type App struct {
	cfg      config.Config
	log      *zap.Logger
	registry *prometheus.Registry
	backend  *backend
	pipeline *pipeline
	xds      *xds.Server
	leases   *lease.Server
	conns    *connections
	admin    *admin.Server
	health   *health // nil when no address is set
	listener net.Listener

	ready    *readiness.Ready
	keyReady func()        // ends what readiness waits for
	first    chan struct{} // closed with the first publication
}

// New opens the ports, and without a cluster the authority, so that Addr is
// known and a mistake is found before anything runs. When it fails, everything
// is closed again.
func New(cfg config.Config, options Options) (_ *App, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &App{cfg: cfg, log: options.Logger, ready: readiness.New(), first: make(chan struct{}), conns: newConnections(maxConnections)}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	version := options.Version
	if version == "" {
		version = "dev"
	}
	a.registry = telemetry.NewRegistry("istiod", version)
	started := time.Now()
	if err := a.registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "istiod_uptime_seconds", Help: "Seconds since the control plane was started.",
	}, func() float64 { return time.Since(started).Seconds() })); err != nil {
		return nil, err
	}
	a.keyReady = a.ready.Pending("signing key")
	if cfg.Kubernetes.Enabled {
		a.backend, err = newCluster(cfg, version, a.log, a.registry)
	} else {
		a.backend, err = newFiles(cfg, a.log, a.registry)
	}
	if err != nil {
		return nil, err
	}
	if err := a.buildPipeline(); err != nil {
		return nil, err
	}
	if err := a.buildAdmin(options.Levels); err != nil {
		return nil, err
	}
	a.listener, err = net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	if address := cfg.MetricsAddress(); address != "" {
		if a.health, err = newHealth(address, a.registry, a.ready); err != nil {
			return nil, fmt.Errorf("--metrics: %w", err)
		}
	}
	if err := a.admin.Listen(); err != nil { // last, for only Run closes it
		return nil, fmt.Errorf("--admin: %w", err)
	}
	return a, nil
}

func (a *App) buildPipeline() (err error) {
	a.leases = lease.NewServer(lease.Config{Authorize: a.authorizeCounting, Permitted: a.permitted, Leading: a.backend.leading, Logger: a.log.Named("lease")})
	a.xds, err = xds.New(xds.Config{
		Authorize: a.authorize, Scope: a.scope, Expiry: a.expiry, Logger: a.log.Named("xds"), Registerer: a.registry,
		Disconnect: func(ctx context.Context) { a.conns.disconnect(ctx) },
	})
	if err != nil {
		return err
	}
	m, err := newPipelineMetrics(a.registry)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	published := a.ready.Pending("first configuration")
	a.pipeline = &pipeline{
		source:     a.backend.source,
		publisher:  a.xds,
		translator: translate.New(a.backend.options),
		window:     a.cfg.Debounce,
		log:        a.log.Named("pipeline"),
		metrics:    m,
		observe:    a.backend.observe,
		complete:   a.backend.warnings,
		published: func() {
			close(a.first)
			published()
		},
	}
	return nil
}

// Addr is where xDS and CA listen, AdminAddr where the admin interface does, and
// MetricsAddr where metrics and health are for others; nil when nowhere.
func (a *App) Addr() net.Addr      { return a.listener.Addr() }
func (a *App) AdminAddr() net.Addr { return a.admin.Addr() }
func (a *App) MetricsAddr() net.Addr {
	if a.health == nil {
		return nil
	}
	return a.health.listener.Addr()
}

// Run serves until ctx ends, then ends streams, lets calls under way finish up
// to the drain deadline and returns nil. It returns an error when a part fails.
func (a *App) Run(ctx context.Context) error {
	defer a.close()
	a.log.Info("control plane starts", append(a.backend.describe, zap.Stringer("address", a.Addr()),
		zap.Stringer("admin", a.AdminAddr()), zap.String("trust_domain", a.cfg.TrustDomain))...)
	g := lifecycle.NewGroup(ctx)
	g.Go("config", a.backend.source.Run)
	g.Go("pipeline", a.pipeline.run)
	g.Go("memory", keepSmall)
	g.Go("admin", a.admin.Run)
	if a.health != nil {
		g.Go("metrics", a.health.run)
	}
	g.Go("leases", a.leases.Run)
	g.Go("serve", func(ctx context.Context) error { return a.serve(ctx, g) })
	return g.Wait()
}

// close releases what New opened; what Run has closed stays closed.
func (a *App) close() {
	if a.listener != nil {
		a.listener.Close()
	}
	if a.health != nil {
		a.health.listener.Close()
	}
	if a.backend != nil {
		a.backend.close()
	}
}
