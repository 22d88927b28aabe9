package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func desc(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, labelNames, nil) }

var (
	descOpened   = desc("istio_tcp_connections_opened_total", "Connections opened.")
	descClosed   = desc("istio_tcp_connections_closed_total", "Connections closed.")
	descReceived = desc("istio_tcp_received_bytes_total", "Bytes received from the client.")
	descSent     = desc("istio_tcp_sent_bytes_total", "Bytes sent to the client.")
	descFailed   = desc("istio_tcp_connections_failed_total", "Connections failed or refused (unstable).")
	descSockets  = prometheus.NewDesc("istio_tcp_sockets_open", "Connections that are open now (unstable).", []string{"reporter"}, nil)
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descOpened, descClosed, descReceived, descSent, descFailed, descSockets} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. It also forgets idle pairs.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.scrape() {
		ch <- s
	}
}

// scrape takes all values under one lock, and sends none of them under it.
func (m *Metrics) scrape() []prometheus.Metric {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(now, false)
	out := make([]prometheus.Metric, 0, 5*len(m.series)+len(m.open))
	for _, s := range m.series {
		for c := s.live.next; c != &s.live; c = c.next {
			c.count()
		}
		s.unseen = false
		out = s.collect(out)
	}
	for r, n := range m.open {
		out = append(out, prometheus.MustNewConstMetric(descSockets, prometheus.GaugeValue, float64(n), Reporter(r).String()))
	}
	return out
}

func (s *series) collect(out []prometheus.Metric) []prometheus.Metric {
	if s.pairs == nil {
		s.pairs = prometheus.MakeLabelPairs(descOpened, s.labels)
	}
	add := func(d *prometheus.Desc, flag int, v uint64) {
		out = append(out, sample{desc: d, pairs: s.pairs.withFlag(flags[flag]), value: float64(v)})
	}
	if s.opened > 0 {
		add(descOpened, 0, s.opened)
		add(descReceived, 0, s.received)
		add(descSent, 0, s.sent)
	}
	for i, n := range s.closed {
		if n > 0 {
			add(descClosed, i, n)
		}
	}
	for i, n := range s.failed {
		if n > 0 {
			add(descFailed, i, n)
		}
	}
	return out
}

// labelPairs are the sorted labels of one series, made once and shared by all
// its families: 27 labels times five families would be most of a scrape.
type labelPairs []*dto.LabelPair

// withFlag returns the pairs with another response_flags.
func (p labelPairs) withFlag(f Flag) labelPairs {
	if f == FlagNone {
		return p
	}
	out := make(labelPairs, len(p))
	copy(out, p)
	for i, pair := range out {
		if pair.GetName() == labelNames[flagLabel] {
			name, value := pair.GetName(), string(f)
			out[i] = &dto.LabelPair{Name: &name, Value: &value}
		}
	}
	return out
}

// sample is one counter value of one scrape.
type sample struct {
	desc  *prometheus.Desc
	pairs labelPairs
	value float64
}

func (s sample) Desc() *prometheus.Desc { return s.desc }

func (s sample) Write(out *dto.Metric) error {
	out.Label = s.pairs
	out.Counter = &dto.Counter{Value: &s.value}
	return nil
}
