package kube

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	attachments *prometheus.CounterVec
	failures    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		attachments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tulle_agent_cni_adds_total",
			Help: "New pods that the CNI plugin asked for, by result: enrolled, outside (of the mesh), failed (unstable).",
		}, []string{"result"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tulle_agent_pod_retries_total",
			Help: "Times that a pod could not be brought to where it should be and is tried again (unstable).",
		}),
	}
	for _, result := range []string{"enrolled", "outside", "failed"} {
		m.attachments.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(m.attachments, m.failures)
	}
	return m
}
