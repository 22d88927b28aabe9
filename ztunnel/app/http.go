package app

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/internal/telemetry"
)

// metricsHandler serves the two paths that Istio's scrapers use.
func metricsHandler(reg *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	h := telemetry.Handler(reg)
	mux.Handle("GET /metrics", h)
	mux.Handle("GET /stats/prometheus", h)
	return mux
}

func readyHandler(r *readiness.Ready) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz/ready", r.Handler())
	return mux
}
