package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/tulle-mesh/tulle/api/auth"
	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/admin"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/nodetoken"
	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/istiod-lite/ca"
	"github.com/tulle-mesh/tulle/istiod-lite/config"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
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
	cfg       config.Config
	log       *zap.Logger
	registry  *prometheus.Registry
	authority *certs.Authority
	source    *file.Source
	pipeline  *pipeline
	xds       *xds.Server
	ca        *ca.Server
	conns     *connections
	grpc      *grpc.Server
	admin     *admin.Server
	ready     *readiness.Ready
	listener  net.Listener
}

// New opens the authority and the ports, so that Addr is known and a mistake is
// found before anything runs. When it fails, everything is closed again.
func New(cfg config.Config, options Options) (_ *App, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &App{cfg: cfg, log: options.Logger, ready: readiness.New()}
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
	trustDomain, err := spiffeid.TrustDomainFromString(cfg.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("--trust-domain: %w", err)
	}
	a.authority, err = certs.OpenAuthority(cfg.StateDir, certs.AuthorityConfig{TrustDomain: trustDomain, Logger: a.log.Named("ca")})
	if err != nil {
		return nil, fmt.Errorf("--state-dir %s: %w", cfg.StateDir, err)
	}
	if cfg.RootOut != "" {
		if err := writeFile(cfg.RootOut, a.authority.BundlePEM()); err != nil {
			return nil, fmt.Errorf("--root-out: %w", err)
		}
	}
	if err := a.buildPipeline(); err != nil {
		return nil, err
	}
	if err := a.buildServers(); err != nil {
		return nil, err
	}
	if err := a.buildAdmin(options.Levels); err != nil {
		return nil, err
	}
	a.listener, err = net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	if err := a.admin.Listen(); err != nil { // last, for only Run closes it
		return nil, fmt.Errorf("--admin: %w", err)
	}
	return a, nil
}

func (a *App) buildPipeline() error {
	src, err := file.New(file.Config{
		Path: a.cfg.ConfigDir, RootNamespace: a.cfg.RootNamespace, Logger: a.log.Named("config"), Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.source = src
	a.xds, err = xds.New(xds.Config{
		Authorize: a.authorize, Logger: a.log.Named("xds"), Registerer: a.registry,
		Disconnect: func(ctx context.Context) { a.conns.disconnect(ctx) },
	})
	if err != nil {
		return err
	}
	m, err := newPipelineMetrics(a.registry)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	a.pipeline = &pipeline{
		source:    src,
		publisher: a.xds,
		translator: translate.New(translate.Options{
			TrustDomain: a.cfg.TrustDomain, ClusterID: a.cfg.ClusterID, Network: a.cfg.Network,
			RootNamespace: a.cfg.RootNamespace, DomainSuffix: a.cfg.DomainSuffix,
		}),
		window:    a.cfg.Debounce,
		log:       a.log.Named("pipeline"),
		metrics:   m,
		published: a.ready.Pending("first configuration"),
	}
	return nil
}

func (a *App) buildServers() error {
	var keys []*nodetoken.PublicKey
	for _, path := range a.cfg.TokenKeys {
		key, err := nodetoken.LoadPublic(path)
		if err != nil {
			return fmt.Errorf("--token-key: %w", err)
		}
		keys = append(keys, key)
	}
	callers, err := ca.NewInterceptors(ca.InterceptorConfig{
		Authenticator: ca.TokenAuthenticator{Verifier: nodetoken.Verifier{Keys: keys}},
		Logger:        a.log.Named("auth"), Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.ca, err = ca.NewServer(ca.Config{
		Authority: a.authority, Placement: placement{a.source}, NodeAccounts: a.cfg.NodeAccounts,
		Logger: a.log.Named("ca"), Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	names, addresses := a.cfg.ServerSANs()
	certificates := a.authority.ServerSource(names, addresses)
	a.conns = newConnections(maxConnections)
	a.grpc = grpc.NewServer(
		grpc.Creds(credentials.NewTLS(mtls.ControlPlaneServer(certificates.Certificate))),
		grpc.UnaryInterceptor(callers.Unary),
		grpc.StreamInterceptor(callers.Stream),
		grpc.MaxRecvMsgSize(xds.MaxRequestBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.InitialWindowSize(initialWindowBytes),
		grpc.InitialConnWindowSize(initialWindowBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout,
			MaxConnectionAge: maxConnectionAge, MaxConnectionAgeGrace: maxConnectionAgeGrace,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
	)
	a.xds.Register(a.grpc)
	auth.RegisterIstioCertificateServiceServer(a.grpc, a.ca)
	return nil
}

// authorize lets node proxies subscribe and nobody else: the state of the whole
// mesh is theirs to know, not their pods'.
func (a *App) authorize(ctx context.Context) (string, error) {
	caller, ok := ca.CallerFromContext(ctx)
	if !ok {
		return "", errors.New("the caller is not authenticated")
	}
	if !slices.Contains(a.cfg.NodeAccounts, caller.Account()) {
		return caller.Account(), fmt.Errorf("%s is not one of the node accounts", caller.Account())
	}
	return caller.Account(), nil
}

// placement asks the objects in force.
type placement struct{ source *file.Source }

func (p placement) RunsOnNode(node, namespace, serviceAccount string) bool {
	return p.source.Objects().RunsOnNode(node, namespace, serviceAccount)
}

// Addr is where xDS and CA listen, AdminAddr where the admin interface does.
func (a *App) Addr() net.Addr      { return a.listener.Addr() }
func (a *App) AdminAddr() net.Addr { return a.admin.Addr() }

// Run serves until ctx ends, then ends streams, lets calls under way finish up
// to the drain deadline and returns nil. It returns an error when a part fails.
func (a *App) Run(ctx context.Context) error {
	defer a.close()
	a.log.Info("control plane serving", zap.Stringer("address", a.Addr()), zap.Stringer("admin", a.AdminAddr()),
		zap.String("trust_domain", a.cfg.TrustDomain), zap.String("config", a.cfg.ConfigDir), zap.String("root", a.cfg.RootFile()))
	g := lifecycle.NewGroup(ctx)
	g.Go("config", a.source.Run)
	g.Go("pipeline", a.pipeline.run)
	g.Go("admin", a.admin.Run)
	g.Go("grpc", func(context.Context) error { return a.grpc.Serve(a.conns.wrap(a.listener)) })
	g.Go("shutdown", func(ctx context.Context) error {
		<-ctx.Done()
		a.log.Info("control plane ends")
		a.xds.Close()
		stopped := make(chan struct{})
		go func() { a.grpc.GracefulStop(); close(stopped) }()
		timer := time.NewTimer(a.cfg.DrainDeadline)
		defer timer.Stop()
		select {
		case <-stopped:
		case <-timer.C:
			a.log.Warn("calls still under way at the drain deadline are cut")
			a.grpc.Stop()
			<-stopped
		}
		return nil
	})
	return g.Wait()
}

// close releases what New opened; what Run has closed stays closed.
func (a *App) close() {
	if a.listener != nil {
		a.listener.Close()
	}
	if a.authority != nil {
		if err := a.authority.Close(); err != nil {
			a.log.Warn("close authority", zap.Error(err))
		}
	}
}

// writeFile replaces path in one step, so that no client reads half of it.
func writeFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".root-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
