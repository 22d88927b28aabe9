// Package telemetry makes the Prometheus registry that each binary exports and
// the handler that serves it.
package telemetry

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// NewRegistry returns a registry with the metrics of the Go runtime, of the
// process, and istio_build{component, tag} with the value 1.
func NewRegistry(component, version string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "istio_build",
			Help:        "Build of the running component (unstable).",
			ConstLabels: prometheus.Labels{"component": component, "tag": version},
		}, func() float64 { return 1 }),
	)
	return reg
}

// Handler serves what reg gathers, as OpenMetrics where the client asks for it.
func Handler(reg *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true, Registry: reg})
}
