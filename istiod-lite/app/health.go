package app

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tulle-mesh/tulle/internal/admin"
	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/internal/telemetry"
)

// health shows metrics and probes to others than this machine, and nothing else.
type health struct {
	listener net.Listener
	mux      *http.ServeMux
}

func newHealth(address string, registry *prometheus.Registry, ready *readiness.Ready) (*health, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", telemetry.Handler(registry))
	mux.Handle("GET /healthz/ready", ready.Handler())
	mux.HandleFunc("GET /healthz/live", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "live") })
	return &health{listener, mux}, nil
}

func (h *health) run(ctx context.Context) error { return admin.Serve(ctx, h.mux, h.listener) }
