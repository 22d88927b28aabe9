package xds

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	clients     prometheus.Gauge
	pushes      *prometheus.CounterVec
	resources   *prometheus.CounterVec
	pushTime    *prometheus.HistogramVec
	queueTime   prometheus.Histogram
	convergence prometheus.Histogram
	configSize  *prometheus.HistogramVec
	bytes       *prometheus.CounterVec
	rejects     *prometheus.CounterVec
	expired     *prometheus.CounterVec
	timeouts    prometheus.Counter
	refused     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		clients: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pilot_xds", Help: "Proxies connected.",
		}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pilot_xds_pushes", Help: "Responses sent, by type.",
		}, []string{"type"}),
		resources: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pilot_xds_resources_total", Help: "Resources sent, by type and whether they changed or were removed.",
		}, []string{"type", "change"}),
		pushTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pilot_xds_push_time", Help: "Seconds to build a response, by type.",
			Buckets: []float64{.0001, .001, .01, .05, .1, .5, 1, 5},
		}, []string{"type"}),
		queueTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_proxy_queue_time", Help: "Seconds from a publication to the building of a proxy's response.",
			Buckets: []float64{.0001, .001, .01, .05, .1, .5, 1, 3, 5, 10, 20, 30},
		}),
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_proxy_convergence_time", Help: "Seconds from a change to its acknowledgement by a proxy.",
			Buckets: []float64{.01, .05, .1, .2, .5, 1, 3, 5, 10, 20, 30},
		}),
		configSize: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pilot_xds_config_size_bytes", Help: "Bytes of responses, by type.",
			Buckets: []float64{1e3, 1e4, 1e5, 1e6, 4e6, 1e7, 4e7, 1e8},
		}, []string{"type"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pilot_xds_send_bytes_total", Help: "Bytes of responses sent, by type.",
		}, []string{"type"}),
		rejects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pilot_total_xds_rejects", Help: "Responses that a proxy refused, by type.",
		}, []string{"type"}),
		expired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pilot_xds_expired_nonce", Help: "Acknowledgements of a response that is not the last one, by type.",
		}, []string{"type"}),
		timeouts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pilot_xds_write_timeout", Help: "Proxies cut off because they did not take a response in time.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pilot_xds_refused_total", Help: "Streams refused: not authorized, or too many.",
		}),
	}
	for _, name := range shortTypes {
		m.pushes.WithLabelValues(name)
		m.rejects.WithLabelValues(name)
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.clients), reg.Register(m.pushes), reg.Register(m.resources), reg.Register(m.pushTime),
		reg.Register(m.queueTime),
		reg.Register(m.convergence), reg.Register(m.configSize), reg.Register(m.bytes), reg.Register(m.rejects), reg.Register(m.expired), reg.Register(m.timeouts), reg.Register(m.refused))
}
