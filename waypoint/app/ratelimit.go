package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc"

	apilease "github.com/tulle-mesh/tulle/api/lease"
	"github.com/tulle-mesh/tulle/certs/caclient"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// newLimiter makes what counts requests; it reaches backends through the mesh, where
// they are in it.
func (w *waypoint) newLimiter() *ratelimit.Limiter {
	return ratelimit.New(ratelimit.Config{
		Dial: w.dialAddress, PasswordDir: passwordDir, Registerer: w.registry, Logger: w.log.Named("ratelimit"),
		DialService: func(ctx context.Context, service string, port uint32) (net.Conn, error) {
			return w.dialService(ctx, service, port, "h2") // they speak gRPC
		},
	})
}

// dialAddress connects to host:port: to a service of the mesh as one, to all else by TCP,
// but for addresses of this machine or its link. A policy's author chooses it.
func (w *waypoint) dialAddress(ctx context.Context, address string) (net.Conn, error) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if labels := strings.Split(host, "."); len(labels) >= 3 && labels[2] == "svc" {
		key := workload.ServiceKey{Namespace: labels[1], Hostname: host}
		if port, err := strconv.ParseUint(digits, 10, 16); err == nil {
			conn, err := w.dialService(ctx, key.String(), uint32(port))
			if !errors.Is(err, mesh.ErrNoService) {
				return conn, err
			}
		}
	}
	return jwt.Dial(ctx, "tcp", address)
}

// dialService connects to an endpoint of a service "namespace/hostname" of the mesh, with
// the TLS that its Destination wants, where the protocols are offered.
func (w *waypoint) dialService(ctx context.Context, service string, port uint32, protocols ...string) (net.Conn, error) {
	key, ok := workload.ParseServiceKey(service)
	if !ok || port == 0 || port > 65535 {
		return nil, fmt.Errorf("%s:%d is no service", service, port)
	}
	w.mesh.Ask(service)
	up, _, err := w.mesh.Backend(ctx, key, uint16(port))
	if err != nil {
		return nil, err
	}
	var tried []*upstream.Target
	for {
		target, err := up.Pick(upstream.Options{Avoid: tried})
		if err != nil {
			return nil, err
		}
		conn, err := dialer{w.dialer}.connect(ctx, target.Endpoint(), protocols...)
		if err == nil || ctx.Err() != nil || len(tried) == dialAttempts-1 {
			return conn, err
		}
		tried = append(tried, target)
	}
}

// leases goes by the shares of limits that the control plane hands out.
func (w *waypoint) leases(ctx context.Context) error {
	roots := mtls.RootsFromFile(w.cfg.RootCert)
	return w.limiter.Lease(ctx, w.cfg.PodName, leaseInterval, func(ctx context.Context) (ratelimit.Shares, error) {
		// A connection each time: another replica of the control plane may lead by now.
		conn, err := caclient.Dial(w.cfg.XDSAddress, mtls.ControlPlaneClient(roots, w.cfg.ServerName))
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		return apilease.NewLeasesClient(conn).Share(ctx, grpc.PerRPCCredentials(caclient.TokenFile{Path: w.cfg.TokenFile}))
	})
}

// rateLimits shows what the limiter counts.
func (w *waypoint) rateLimits(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := ratelimit.Filter{Policy: q.Get("policy"), Rule: q.Get("rule")}
	if text := q.Get("keys"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxKeysShown {
			http.Error(rw, fmt.Sprintf("keys: %q is not a number from 1 to %d", text, maxKeysShown), http.StatusBadRequest)
			return
		}
		f.Keys = n
	}
	writeJSON(rw, w.limiter.Status(f))
}
