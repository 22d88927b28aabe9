package rotation

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tulle-mesh/tulle/certs"
)

// metrics counts requests as they end and reads the states when scraped.
type metrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector
	requests   *prometheus.CounterVec
	duration   prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer, m *Manager) *metrics {
	x := &metrics{
		registerer: registerer,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tulle_certificate_requests_total",
			Help: "Requests for certificates, by result (unstable).",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tulle_certificate_request_duration_seconds",
			Help:    "Time from asking for a certificate to the answer (unstable).",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	for _, result := range []string{"issued", "refused", "failed"} {
		x.requests.WithLabelValues(result)
	}
	x.collectors = []prometheus.Collector{x.requests, x.duration, &stateCollector{manager: m}}
	if registerer != nil {
		registerer.MustRegister(x.collectors...)
	}
	return x
}

func (x *metrics) unregister() {
	if x.registerer == nil {
		return
	}
	for _, c := range x.collectors {
		x.registerer.Unregister(c)
	}
}

func (x *metrics) observe(err error, took time.Duration) {
	result := "issued"
	switch {
	case refused(err):
		result = "refused"
	case err != nil:
		result = "failed"
	}
	x.requests.WithLabelValues(result).Inc()
	x.duration.Observe(took.Seconds())
}

var (
	statesDesc = prometheus.NewDesc("tulle_certificate_identities",
		"Identities on this node by the state of their certificate (unstable).", []string{"state"}, nil)
	expiryDesc = prometheus.NewDesc("tulle_certificate_earliest_expiry_timestamp_seconds",
		"When the first of the certificates in use on this node expires, absent without any (unstable).", nil, nil)
)

// stateCollector reads the manager when it is scraped.
type stateCollector struct{ manager *Manager }

func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- statesDesc
	ch <- expiryDesc
}

func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	counts, earliest := c.manager.summary(time.Now())
	for _, state := range certs.States() {
		ch <- prometheus.MustNewConstMetric(statesDesc, prometheus.GaugeValue, float64(counts[state]), string(state))
	}
	if !earliest.IsZero() {
		ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(earliest.Unix()))
	}
}
