package enrol

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	enrolments     *prometheus.CounterVec
	repairs, ended prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, m *Manager) *metrics {
	s := &metrics{
		enrolments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tulle_agent_enrolments_total",
			Help: "Requests to enrol a pod, by result: ok, invalid, no_proxy, failed (unstable).",
		}, []string{"result"}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tulle_agent_rule_repairs_total",
			Help: "Times that a pod's rules were found changed and written again (unstable).",
		}),
		ended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tulle_agent_older_connections_ended_total",
			Help: "Connections older than their strict pod's enrolment that were ended (unstable).",
		}),
	}
	for _, result := range []string{"ok", "invalid", "no_proxy", "failed"} {
		s.enrolments.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(s.enrolments, s.repairs, s.ended, &podCollector{
			manager: m,
			pods: prometheus.NewDesc("tulle_agent_pods",
				"Pods on the list, by state: pending, enrolled, failed, and leaving for those that left and still drain (unstable).", []string{"state"}, nil),
			older: prometheus.NewDesc("tulle_agent_older_connections",
				"Living connections that are older than their pod's enrolment and go past the proxy (unstable).", nil, nil),
		})
	}
	return s
}

func (s *metrics) enrolment(err error) {
	result := "failed"
	var invalid *InvalidError
	switch {
	case err == nil:
		result = "ok"
	case errors.As(err, &invalid):
		result = "invalid"
	case errors.Is(err, ErrNoProxy):
		result = "no_proxy"
	}
	s.enrolments.WithLabelValues(result).Inc()
}

// podCollector counts the list when it is asked.
type podCollector struct {
	manager     *Manager
	pods, older *prometheus.Desc
}

func (c *podCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.pods; ch <- c.older }

func (c *podCollector) Collect(ch chan<- prometheus.Metric) {
	m := c.manager
	counts := map[State]int{Pending: 0, Enrolled: 0, Failed: 0}
	older := 0
	m.mu.Lock()
	counts[leaving] = len(m.leaving)
	for _, e := range m.pods {
		state, _ := m.state(e)
		counts[state]++
		older += len(e.older.alive)
	}
	m.mu.Unlock()
	for state, n := range counts {
		ch <- prometheus.MustNewConstMetric(c.pods, prometheus.GaugeValue, float64(n), string(state))
	}
	ch <- prometheus.MustNewConstMetric(c.older, prometheus.GaugeValue, float64(older))
}
