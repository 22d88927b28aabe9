package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/logging"
	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/ztunnel/agent/api"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/proxies"
)

// Times of the metrics server.
const (
	headerTimeout   = 5 * time.Second
	shutdownTimeout = 2 * time.Second
)

// Run runs the agent until ctx ends; nil means that it ended in order.
func Run(ctx context.Context, cfg Config) error {
	log, _, err := logging.New(logging.Config{Format: cfg.LogFormat, Level: cfg.LogLevel, Output: cfg.LogOutput})
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	if cfg.Clean {
		return clean(ctx, cfg, log)
	}
	for _, path := range []string{cfg.ZDSSocket, cfg.APISocket} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("folder of socket %s: %w", path, err)
		}
	}
	registry := telemetry.NewRegistry("agent", telemetry.Version)
	ready := readiness.New()
	started := ready.Pending("pods of before the restart")
	if cfg.Kubernetes != nil {
		if err := writableSysctls(cfg.Kubernetes.Proc); err != nil {
			return err
		}
	}

	link := &link{}
	pods, err := enrol.New(enrol.Config{
		StateDir: cfg.StateDir, Proxies: link, Rules: cfg.Rules, DrainDeadline: cfg.DrainDeadline,
		Logger: log.Named("enrol"), Registerer: registry,
	})
	if err != nil {
		return err
	}
	defer pods.Close()
	// The state directory is locked now: no other agent serves these sockets.
	pods.Restore(ctx)

	zds, err := proxies.Listen(proxies.Config{Socket: cfg.ZDSSocket, Logger: log.Named("zds"), Registerer: registry})
	if err != nil {
		return err
	}
	link.server = zds
	var node *node
	apiConfig := api.Config{Socket: cfg.APISocket, Pods: pods, Ready: ready.Handler(), Logger: log.Named("api")}
	if cfg.Kubernetes != nil {
		if node, err = newNode(cfg, pods, ready, log, registry); err != nil {
			zds.Close()
			return err
		}
		apiConfig.CNI = node.controller
	}
	local, err := api.Listen(apiConfig)
	if err != nil {
		if node != nil {
			node.controller.Close()
		}
		zds.Close()
		return err
	}
	// What serves pods outlives the signal: while the node is taken out of the
	// mesh, the proxy must hear of it.
	group := lifecycle.NewGroup(context.WithoutCancel(ctx))
	group.Go("zds", func(ctx context.Context) error { return zds.Run(ctx, pods) })
	group.Go("pods", pods.Run)
	group.Go("api", local.Run)
	if cfg.MetricsAddr != "" {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", telemetry.Handler(registry))
		mux.Handle("GET /healthz/ready", ready.Handler())
		if node != nil {
			mux.HandleFunc("GET /status", node.status)
		}
		group.Go("metrics", func(ctx context.Context) error { return serve(ctx, cfg.MetricsAddr, mux) })
	}
	started()
	log.Info("node agent started", zap.String("version", telemetry.Version), zap.String("zds", cfg.ZDSSocket),
		zap.String("api", cfg.APISocket), zap.String("state", cfg.StateDir))
	released := false
	if node != nil {
		if err = node.run(ctx, group.Context()); err == nil && ctx.Err() != nil && node.owner.Uninstalled(group.Context()) {
			node.release()
			released = true
		}
	} else {
		select {
		case <-ctx.Done():
		case <-group.Context().Done():
		}
	}
	group.Stop(nil)
	err = errors.Join(err, group.Wait())
	if released {
		log.Info("node agent ended; the node is out of the mesh", zap.Error(err))
		return errors.Join(err, os.RemoveAll(cfg.StateDir))
	}
	log.Info("node agent ended; pods stay captured", zap.Int("pods", len(pods.Pods())), zap.Error(err))
	return err
}

// link breaks the circle of the two: the proxies' server is made when the
// restored pods are captured.
type link struct{ server *proxies.Server }

func (l *link) Send(uid string) {
	if l.server != nil {
		l.server.Send(uid)
	}
}

func (l *link) Delete(ctx context.Context, uid string) error {
	if l.server == nil {
		return nil
	}
	return l.server.Delete(ctx, uid)
}

func serve(ctx context.Context, addr string, h http.Handler) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on --metrics %s: %w", addr, err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout}
	stop := context.AfterFunc(ctx, func() {
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if srv.Shutdown(sctx) != nil {
			srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
