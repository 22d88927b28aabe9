package proxies

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	connections, refused, timeouts prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, connected func() float64) *metrics {
	m := &metrics{
		connections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tulle_agent_proxy_connections_total",
			Help: "Connections of node proxies that were accepted (unstable).",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tulle_agent_proxy_refusals_total",
			Help: "Pods that a node proxy refused when told of them (unstable).",
		}),
		timeouts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tulle_agent_proxy_timeouts_total",
			Help: "Node proxies cut off because they did not answer in time (unstable).",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.connections, m.refused, m.timeouts, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tulle_agent_proxies_connected",
			Help: "Node proxies connected at the moment (unstable).",
		}, connected))
	}
	return m
}
