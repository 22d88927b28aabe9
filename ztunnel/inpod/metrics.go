package inpod

import "github.com/prometheus/client_golang/prometheus"

// metrics carry the names of Istio's proxy (interop 3.1).
type metrics struct {
	active, pending  prometheus.Gauge
	started, stopped prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "workload_manager_active_proxy_count",
			Help: "The number of pods whose proxy runs (unstable).",
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "workload_manager_pending_proxy_count",
			Help: "The number of pods whose proxy does not run yet (unstable).",
		}),
		started: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "workload_manager_proxies_started_total",
			Help: "The number of pods' proxies that were started (unstable).",
		}),
		stopped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "workload_manager_proxies_stopped_total",
			Help: "The number of pods' proxies that were drained to the end (unstable).",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.active, m.pending, m.started, m.stopped)
	}
	return m
}
