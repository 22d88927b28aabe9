package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/api/auth"
	apilease "github.com/tulle-mesh/tulle/api/lease"
	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/istiod-lite/ca"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
	"github.com/tulle-mesh/tulle/istiod-lite/xds"
)

// serve answers on the port of xDS and CA until ctx ends, once there is a key to
// answer with.
func (a *App) serve(ctx context.Context, g *lifecycle.Group) error {
	authority, err := a.backend.open(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	server, err := a.newServer(authority)
	if err != nil {
		return err
	}
	if a.backend.follow != nil {
		if err := a.backend.follow(g, authority); err != nil {
			return err
		}
	}
	a.keyReady()
	if a.backend.complete {
		select {
		case <-a.first:
		case <-ctx.Done():
			return nil
		}
	}
	g.Go("shutdown", func(ctx context.Context) error {
		<-ctx.Done()
		a.log.Info("control plane ends")
		a.xds.Close()
		a.stop(server)
		return nil
	})
	return server.Serve(a.conns.wrap(a.listener))
}

// stop lets calls under way finish up to the drain deadline.
func (a *App) stop(server *grpc.Server) {
	stopped := make(chan struct{})
	go func() { server.GracefulStop(); close(stopped) }()
	timer := time.NewTimer(a.cfg.DrainDeadline)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		a.log.Warn("calls still under way at the drain deadline are cut")
		server.Stop()
		<-stopped
	}
}

func (a *App) newServer(authority *certs.Authority) (*grpc.Server, error) {
	callers, err := ca.NewInterceptors(ca.InterceptorConfig{
		Authenticator: a.backend.authenticator, Logger: a.log.Named("auth"), Registerer: a.registry,
	})
	if err != nil {
		return nil, err
	}
	issuer, err := ca.NewServer(ca.Config{
		Authority: authority, Placement: a.backend.placement, Pods: a.backend.pods, NodeAccounts: a.cfg.NodeAccounts,
		Logger: a.log.Named("ca"), Registerer: a.registry,
	})
	if err != nil {
		return nil, err
	}
	names, addresses := a.cfg.ServerSANs()
	certificates := authority.ServerSource(names, addresses)
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(mtls.ControlPlaneServer(certificates.Certificate))),
		xds.ServerOption(),
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
	a.xds.Register(server)
	auth.RegisterIstioCertificateServiceServer(server, issuer)
	apilease.RegisterLeasesServer(server, a.leases)
	return server, nil
}

// authorize lets node proxies subscribe, and waypoints to what is theirs, and
// nobody else: the state of the whole mesh is not the pods' to know.
func (a *App) authorize(ctx context.Context) (string, error) {
	caller, ok := ca.CallerFromContext(ctx)
	if !ok {
		return "", errors.New("the caller is not authenticated")
	}
	scope := a.scope(caller.Account())
	if !scope.Everything && a.backend.source.Objects() == nil {
		return caller.Account(), status.Error(codes.Unavailable, "the configuration is not read yet")
	}
	if !scope.Everything && len(scope.Aliases) == 0 {
		return caller.Account(), fmt.Errorf("%s is neither one of the node accounts nor that of a waypoint", caller.Account())
	}
	return caller.Account(), nil
}

// scope is everything for node proxies, and for a waypoint what its Gateway is to
// do: the Gateways of its namespace whose proxies run under its account.
func (a *App) scope(account string) xds.Scope {
	if slices.Contains(a.cfg.NodeAccounts, account) {
		return xds.Scope{Everything: true}
	}
	objects := a.backend.source.Objects()
	if objects == nil {
		return xds.Scope{}
	}
	return xds.Scope{Aliases: translate.AliasesOf(objects, account)}
}

// expiry is when the token that a stream began with ends.
func (a *App) expiry(ctx context.Context) time.Time {
	caller, _ := ca.CallerFromContext(ctx)
	return caller.Expiry
}
