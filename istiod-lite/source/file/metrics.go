package file

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	problems prometheus.Gauge
	loads    *prometheus.CounterVec
	lastGood prometheus.Gauge
	objects  *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		problems: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "istiod_config_problems",
			Help: "Problems that keep the newest configuration from coming into force; see /debug/errorz.",
		}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istiod_config_loads_total",
			Help: "Readings of changed configuration, by result good or bad.",
		}, []string{"result"}),
		lastGood: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "istiod_config_last_good_timestamp_seconds",
			Help: "When the configuration in force was read.",
		}),
		objects: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "istiod_config_objects",
			Help: "Objects in force, by kind.",
		}, []string{"kind"}),
	}
	for _, result := range []string{"good", "bad"} {
		m.loads.WithLabelValues(result)
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.problems), reg.Register(m.loads), reg.Register(m.lastGood), reg.Register(m.objects))
}
