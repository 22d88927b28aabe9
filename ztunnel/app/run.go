package app

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/certs/caclient"
	"github.com/tulle-mesh/tulle/certs/rotation"
	"github.com/tulle-mesh/tulle/internal/accesslog"
	"github.com/tulle-mesh/tulle/internal/admin"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/logging"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/metrics"
)

// errQuit is the cause of an end by the admin interface.
var errQuit = errors.New("asked to quit by the admin interface")

// Run runs ztunnel until ctx ends, drains it, and returns nil, or returns what
// broke it.
func Run(ctx context.Context, cfg config.Config) error {
	log, levels, err := logging.New(logging.Config{Format: cfg.LogFormat, Level: cfg.LogLevel})
	if err != nil {
		return err
	}
	if cfg.MemoryLimit > 0 {
		debug.SetMemoryLimit(cfg.MemoryLimit)
	}
	z, err := build(cfg, log)
	if err != nil {
		return err
	}
	ctx, quit := context.WithCancelCause(ctx)
	defer quit(nil)
	srv, err := admin.New(admin.Config{
		Addr: cfg.AdminAddr, Component: "ztunnel", Levels: levels, Dump: z.dump, Quit: func() { quit(errQuit) },
	})
	if err != nil {
		return err
	}
	z.explainPages(srv)
	return z.run(ctx, srv)
}

// ztunnel is the parts of one process.
type ztunnel struct {
	cfg      config.Config
	log      *zap.Logger
	ready    *readiness.Ready
	registry *prometheus.Registry
	access   *accesslog.Log
	store    *state.Store
	xds      *xdsclient.Client
	ca       *grpc.ClientConn
	certs    *rotation.Manager
	pods     *pods
	// agent is the node agent's client once the mesh is known.
	agent atomic.Pointer[inpod.Client]
}

// build makes the parts; nothing runs yet.
func build(cfg config.Config, log *zap.Logger) (*ztunnel, error) {
	z := &ztunnel{cfg: cfg, log: log, ready: readiness.New(), registry: telemetry.NewRegistry("ztunnel", telemetry.Version)}
	z.store = state.New(state.Config{ClusterID: cfg.ClusterID, Logger: log.Named("state")})
	roots := mtls.RootsFromFile(cfg.RootCert)
	node, err := z.node()
	if err != nil {
		return nil, err
	}
	z.xds, err = xdsclient.New(xdsclient.Config{
		Dial: xdsclient.Dialer(xdsclient.DialConfig{
			Address: cfg.XDSAddress, TokenFile: cfg.TokenFile, ClusterID: cfg.ClusterID,
			TLS: func() (*tls.Config, error) { return mtls.ControlPlaneClient(roots, cfg.ServerName), nil },
		}),
		Node: node,
		Handlers: map[string]xdsclient.Handler{
			xdsclient.AddressType:       z.store.AddressHandler(),
			xdsclient.AuthorizationType: z.store.AuthorizationHandler(),
		},
		Logger: log.Named("xds"), Registerer: z.registry,
	})
	if err != nil {
		return nil, err
	}
	z.ca, err = caclient.Dial(cfg.CAAddress, mtls.ControlPlaneClient(roots, cfg.ServerName))
	if err != nil {
		return nil, err
	}
	z.certs = rotation.NewManager(rotation.Config{
		Signer: caclient.New(z.ca, caclient.Config{Token: caclient.TokenFile{Path: cfg.TokenFile}}),
		Logger: log.Named("certs"), Registerer: z.registry,
	})
	z.access = accesslog.New(accesslog.Config{Output: os.Stderr, JSON: cfg.LogFormat == "json", Logger: log})
	z.pods = &pods{
		cfg: cfg, store: z.store, certificates: z.certs, log: log.Named("pods"),
		reporter: &reporter{log: z.access, metrics: metrics.New(metrics.Config{Registerer: z.registry})},
		byUID:    map[string]*podProxy{}, byName: map[podName]*podProxy{},
	}
	return z, nil
}

func (z *ztunnel) node() (*core.Node, error) {
	return xdsclient.NewNode(xdsclient.Identity{
		InstanceIP: z.cfg.InstanceIP, Name: z.cfg.PodName, Namespace: z.cfg.PodNamespace,
		Node: z.cfg.Node, Version: telemetry.Version, Environ: os.Environ(),
	})
}

// run runs everything until ctx ends, and ends it in order: first the pods, by a
// drain, then what they need.
func (z *ztunnel) run(ctx context.Context, srv *admin.Server) error {
	// The background outlives ctx: pods that drain need certificates, and an
	// operator wants to look at them.
	background := lifecycle.NewGroup(context.WithoutCancel(ctx))
	defer z.close()
	z.pods.life = background.Context()
	background.Go("admin", srv.Run)
	background.Go("metrics", func(ctx context.Context) error {
		return admin.ListenAndServe(ctx, z.cfg.MetricsAddr, metricsHandler(z.registry))
	})
	background.Go("readiness", func(ctx context.Context) error {
		return admin.ListenAndServe(ctx, z.cfg.ReadinessAddr, readyHandler(z.ready))
	})
	background.Go("xds", z.xds.Run)
	background.Go("policies", z.pods.watchMesh)
	background.Go("memory", watchMemory)
	z.log.Info("ztunnel started", zap.String("version", telemetry.Version), zap.String("node", z.cfg.Node),
		zap.String("xds", z.cfg.XDSAddress), zap.String("carrier", string(z.cfg.Carrier)))

	served := make(chan error, 1)
	go func() { served <- z.servePods(ctx, background.Context()) }()
	err := <-served
	if err == nil && ctx.Err() != nil {
		z.log.Info("ztunnel ended", zap.NamedError("cause", context.Cause(ctx)))
	}
	background.Stop(nil)
	return errors.Join(err, background.Wait())
}

// servePods takes pods from the node agent once the mesh is known, until ctx
// ends or the background breaks, and then drains them all.
func (z *ztunnel) servePods(ctx, background context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(background, func() { cancel(context.Cause(background)) })
	defer stop()

	synced := z.ready.Pending("first full answer of the control plane " + z.cfg.XDSAddress)
	select {
	case <-z.xds.Synced():
		synced()
	case <-ctx.Done():
		return nil
	}
	counts := z.store.Snapshot().Counts()
	z.log.Info("control plane synced", zap.Int("workloads", counts.Workloads), zap.Int("services", counts.Services), zap.Int("policies", counts.Policies))

	client, err := inpod.New(inpod.Config{
		Dial: z.dialer(ctx), Start: z.pods.Start, DrainDeadline: max(z.cfg.DrainDeadline, time.Nanosecond),
		Readiness: z.ready, Logger: z.log.Named("inpod"), Registerer: z.registry,
	})
	if err != nil {
		return err
	}
	z.agent.Store(client)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	ending := context.AfterFunc(ctx, func() {
		defer stopServing()
		z.announceDrain()
		z.pods.linger(background)
	})
	defer ending()
	return client.Run(serving) // ends with a drain of all pods
}

// announceDrain tells that the end has begun: not ready any more, and the log says
// what is still alive.
func (z *ztunnel) announceDrain() {
	z.ready.Pending("draining") // for good
	all := z.pods.all()
	live := 0
	for _, x := range all {
		live += x.table.Len()
	}
	z.log.Info("draining", zap.Int("pods", len(all)), zap.Int("connections", live), zap.Duration("deadline", z.cfg.DrainDeadline))
}

// close releases what build made.
func (z *ztunnel) close() {
	z.certs.Close()
	_ = z.ca.Close()
	_ = z.access.Close()
	_ = z.log.Sync()
}
