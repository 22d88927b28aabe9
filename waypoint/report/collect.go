package report

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// labelNames are Istio's of waypoints, sorted as Prometheus wants them. The two of
// responses are not those of connections.
var labelNames = []string{
	"connection_security_policy",
	"destination_app", "destination_canonical_revision", "destination_canonical_service", "destination_cluster",
	"destination_principal", "destination_service", "destination_service_name", "destination_service_namespace",
	"destination_version", "destination_workload", "destination_workload_namespace",
	"grpc_response_status", "reporter", "request_protocol", "response_code", "response_flags",
	"source_app", "source_canonical_revision", "source_canonical_service", "source_cluster",
	"source_principal", "source_version", "source_workload", "source_workload_namespace",
}

// labels returns the values of labelNames; empty ones are left out.
func (k *seriesKey) labels() []string {
	s, d := k.source.known(), k.destination.known()
	code, grpcStatus, flag := "", "", k.flag
	if k.kind != tcp {
		code = strconv.Itoa(int(k.code))
	}
	if k.kind == grpc && k.grpc >= 0 {
		grpcStatus = strconv.Itoa(int(k.grpc))
	}
	if flag == "" {
		flag = "-"
	}
	security := "mutual_tls"
	if k.source.principal == "" {
		security = unknown
	}
	return []string{
		security,
		d.canonical, d.revision, d.canonical, d.cluster,
		d.principal, or(k.service.hostname), or(k.service.name), or(k.service.namespace),
		d.revision, d.workload, d.namespace,
		grpcStatus, "waypoint", k.kind.String(), code, flag,
		s.canonical, s.revision, s.canonical, s.cluster,
		s.principal, s.revision, s.workload, s.namespace,
	}
}

func or(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

func (f facts) known() facts {
	return facts{or(f.workload), or(f.canonical), or(f.revision), or(f.namespace), or(f.principal), or(f.cluster)}
}

// family is one metric of Istio's.
type family struct {
	desc *prometheus.Desc
	// telemetry is its name in the Telemetry API.
	telemetry string
	tcp       bool
	histogram func(*series) (*histogram, float64)
	counter   func(*series) uint64
	// unless is true of series that do not have it.
	unless func(*series) bool
}

func desc(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }

var families = []family{
	{desc: desc("istio_requests_total", "Requests that were answered, or broken off."), telemetry: "REQUEST_COUNT",
		counter: func(s *series) uint64 { return s.requests.Load() }},
	{desc: desc("istio_request_duration_milliseconds", "Time from the head of a request to the end of its response, in milliseconds."), telemetry: "REQUEST_DURATION",
		histogram: func(s *series) (*histogram, float64) { return &s.duration, float64(time.Millisecond) }},
	{desc: desc("istio_request_bytes", "Bytes of requests' content."), telemetry: "REQUEST_SIZE",
		histogram: func(s *series) (*histogram, float64) { return &s.received, 1 }},
	{desc: desc("istio_response_bytes", "Bytes of responses' content."), telemetry: "RESPONSE_SIZE",
		histogram: func(s *series) (*histogram, float64) { return &s.sent, 1 }},
	{desc: desc("istio_request_messages_total", "Messages of gRPC in requests."), telemetry: "GRPC_REQUEST_MESSAGES",
		counter: func(s *series) uint64 { return s.requestMessages.Load() }, unless: func(s *series) bool { return s.key.kind != grpc }},
	{desc: desc("istio_response_messages_total", "Messages of gRPC in responses."), telemetry: "GRPC_RESPONSE_MESSAGES",
		counter: func(s *series) uint64 { return s.responseMessages.Load() }, unless: func(s *series) bool { return s.key.kind != grpc }},
	{desc: desc("istio_tcp_connections_opened_total", "Connections opened."), telemetry: "TCP_OPENED_CONNECTIONS", tcp: true,
		counter: func(s *series) uint64 { return s.opened.Load() }, unless: func(s *series) bool { return s.opened.Load() == 0 }},
	{desc: desc("istio_tcp_connections_closed_total", "Connections closed."), telemetry: "TCP_CLOSED_CONNECTIONS", tcp: true,
		counter: func(s *series) uint64 { return s.closed.Load() }, unless: func(s *series) bool { return s.closed.Load() == 0 }},
	{desc: desc("istio_tcp_received_bytes_total", "Bytes received from the client."), telemetry: "TCP_RECEIVED_BYTES", tcp: true,
		counter: func(s *series) uint64 { return s.bytesIn.Load() }},
	{desc: desc("istio_tcp_sent_bytes_total", "Bytes sent to the client."), telemetry: "TCP_SENT_BYTES", tcp: true,
		counter: func(s *series) uint64 { return s.bytesOut.Load() }},
}

var (
	descRefused = prometheus.NewDesc("tulle_waypoint_requests_refused_total", "Requests that the codecs refused, because they break the protocol or a limit.", nil, nil)
	descLost    = prometheus.NewDesc("tulle_waypoint_telemetry_lost_total", "Access lines and spans that were dropped, because a queue was full or a collector did not take them.", []string{"what"}, nil)
)

// Describe implements prometheus.Collector. Labels may change with the Telemetry
// resource, so that nothing is promised.
func (r *Reporter) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. It also forgets what is idle.
func (r *Reporter) Collect(ch chan<- prometheus.Metric) {
	now := r.cfg.Now()
	s := r.settings.Load()
	all := r.sweep(now)
	for i := range families {
		r.collectFamily(ch, s, i, all)
	}
	ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(r.refused.Load()))
	ch <- prometheus.MustNewConstMetric(descLost, prometheus.CounterValue, float64(r.lines.Lost()), "lines")
	logs, spans := r.exports.lost()
	ch <- prometheus.MustNewConstMetric(descLost, prometheus.CounterValue, float64(logs), "logs")
	ch <- prometheus.MustNewConstMetric(descLost, prometheus.CounterValue, float64(spans), "spans")
}

// sweep forgets what is idle, and returns the rest.
func (r *Reporter) sweep(now time.Time) []*series {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*series, 0, len(r.series))
	for k, s := range r.series {
		if n := s.total(); n != s.seen {
			s.seen, s.changed = n, now
		}
		// Connections that are open keep theirs.
		if now.Sub(s.changed) >= idle && s.opened.Load() == s.closed.Load() {
			delete(r.series, k)
			r.refreshed = time.Time{}
			continue
		}
		if s.pairs == nil {
			s.pairs = pairsOf(labelNames, s.key.labels())
		}
		all = append(all, s)
	}
	if now.Sub(r.refreshed) >= refresh {
		r.refreshed = now
		r.handles.forget()
	}
	return all
}

// labelPairs are the labels of a series, sorted by name.
type labelPairs []*dto.LabelPair

func pairsOf(names, values []string) labelPairs {
	out := make(labelPairs, 0, len(names))
	for i, v := range values {
		if v != "" {
			out = append(out, &dto.LabelPair{Name: &names[i], Value: &v})
		}
	}
	return out
}

// text tells labels apart.
func (p labelPairs) text() string {
	var b strings.Builder
	for _, pair := range p {
		b.WriteString(pair.GetName() + "\x00" + pair.GetValue() + "\x00")
	}
	return b.String()
}

// collectFamily sends one metric. What an override removes may leave several series
// with the same labels, which then are one.
func (r *Reporter) collectFamily(ch chan<- prometheus.Metric, s *settings, i int, all []*series) {
	f, view := &families[i], &s.views[i]
	if view.disabled {
		return
	}
	var merged map[string]*sample
	if len(view.removed) > 0 {
		merged = map[string]*sample{}
	}
	for _, x := range all {
		if f.tcp != (x.key.kind == tcp) || f.unless != nil && f.unless(x) {
			continue
		}
		m := f.sample(x)
		m.pairs = view.apply(x.pairs, s.values(x.key.extra))
		if merged == nil {
			ch <- m
			continue
		}
		key := m.pairs.text()
		if one := merged[key]; one != nil {
			one.add(m)
		} else {
			merged[key] = m
		}
	}
	for _, m := range merged {
		ch <- m
	}
}

func (f *family) sample(x *series) *sample {
	m := &sample{desc: f.desc}
	if f.counter != nil {
		m.value = float64(f.counter(x))
		return m
	}
	h, unit := f.histogram(x)
	m.sum = float64(h.sum.Load()) / unit
	m.buckets = make([]uint64, len(h.buckets))
	for i := range h.buckets {
		m.count += h.buckets[i].Load()
		m.buckets[i] = m.count
	}
	return m
}

// sample is one value of one scrape, of a counter, or of a histogram with its buckets.
type sample struct {
	desc    *prometheus.Desc
	pairs   labelPairs
	value   float64
	sum     float64
	count   uint64
	buckets []uint64
}

func (m *sample) add(o *sample) {
	m.value, m.sum, m.count = m.value+o.value, m.sum+o.sum, m.count+o.count
	for i := range m.buckets {
		m.buckets[i] += o.buckets[i]
	}
}

// Desc implements prometheus.Metric.
func (m *sample) Desc() *prometheus.Desc { return m.desc }

// Write implements prometheus.Metric.
func (m *sample) Write(out *dto.Metric) error {
	out.Label = m.pairs
	if m.buckets == nil {
		out.Counter = &dto.Counter{Value: &m.value}
		return nil
	}
	h := &dto.Histogram{SampleCount: &m.count, SampleSum: &m.sum, Bucket: make([]*dto.Bucket, len(bounds))}
	for i := range bounds {
		h.Bucket[i] = &dto.Bucket{UpperBound: &bounds[i], CumulativeCount: &m.buckets[i]}
	}
	out.Histogram = h
	return nil
}

// view is one metric as the Telemetry resource wants it.
type view struct {
	disabled bool
	removed  map[string]bool
	// tags are further labels, by the place of their value.
	tags map[string]int
}

// apply returns the labels with what the view changes.
func (v *view) apply(p labelPairs, extra []string) labelPairs {
	if len(v.removed) == 0 && len(v.tags) == 0 {
		return p
	}
	out := make(labelPairs, 0, len(p)+len(v.tags))
	for _, pair := range p {
		if _, other := v.tags[pair.GetName()]; !other && !v.removed[pair.GetName()] {
			out = append(out, pair)
		}
	}
	for name, i := range v.tags {
		if i < len(extra) {
			value := or(extra[i])
			out = append(out, &dto.LabelPair{Name: &name, Value: &value})
		}
	}
	slices.SortFunc(out, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}
