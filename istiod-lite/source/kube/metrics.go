package kube

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	problems prometheus.Gauge
	lastGood prometheus.Gauge
	objects  *prometheus.GaugeVec
	core     *prometheus.CounterVec
	custom   *prometheus.CounterVec
	failures *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		problems: gauge("istiod_config_problems", "Objects that are not understood in all parts; see /debug/errorz."),
		lastGood: gauge("istiod_config_last_good_timestamp_seconds", "When the configuration in force last changed."),
		objects:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "istiod_config_objects", Help: "Objects in force, by kind."}, []string{"kind"}),
		core:     counter("pilot_k8s_reg_events", "Events from the API server about Kubernetes's own kinds.", "type", "event"),
		custom:   counter("pilot_k8s_cfg_events", "Events from the API server about Istio's and the Gateway API's kinds.", "type", "event"),
		failures: counter("istiod_kube_failures_total", "Lists and watches that the API server did not answer, by kind.", "kind"),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.problems), reg.Register(m.lastGood), reg.Register(m.objects), reg.Register(m.core), reg.Register(m.custom), reg.Register(m.failures))
}

func (m *metrics) event(k *kind, event string) {
	if k.crd == "" {
		m.core.WithLabelValues(k.name, event).Inc()
	} else {
		m.custom.WithLabelValues(k.name, event).Inc()
	}
}
