package app

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// reporter tells of requests when they are over.
type reporter struct {
	log      *zap.Logger
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

var labels = []string{
	"reporter", "source_workload", "source_workload_namespace", "source_principal",
	"destination_service", "destination_service_name", "destination_service_namespace",
	"request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security_policy",
}

func newReporter(log *zap.Logger, reg prometheus.Registerer) *reporter {
	r := &reporter{
		log: log,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_requests_total", Help: "Requests that were answered, or broken off.",
		}, labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "istio_request_duration_milliseconds", Help: "Time from the head of a request to the end of its response, in milliseconds.",
			Buckets: []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000},
		}, labels),
	}
	reg.MustRegister(r.requests, r.duration)
	return r
}

// refused tells of requests that the codecs answered themselves.
func (r *reporter) refused(err *message.ProtocolError) {
	r.log.Warn("request refused", zap.Int("status", err.Status), zap.String("reason", err.Reason))
}

// report is forward's Report.
func (r *reporter) report(q *forward.Record) {
	c := q.Client
	source, sourceNamespace := c.Workload, c.Peer.Namespace()
	if source == "" {
		source = "unknown"
	}
	protocol, grpc := "http", ""
	if q.Method == "" {
		protocol = "tcp"
	}
	if q.GRPC >= 0 {
		protocol, grpc = "grpc", strconv.Itoa(q.GRPC)
	}
	flag := q.Flag
	if flag == "" {
		flag = "-"
	}
	if protocol != "tcp" {
		values := []string{
			"waypoint", source, sourceNamespace, c.Identity.String(),
			c.Service.Hostname, q.Service, c.Service.Namespace,
			protocol, strconv.Itoa(q.Status), grpc, flag, "mutual_tls",
		}
		r.requests.WithLabelValues(values...).Inc()
		r.duration.WithLabelValues(values...).Observe(float64(q.Duration) / float64(time.Millisecond))
	}
	fields := []zap.Field{
		zap.Stringer("src.addr", c.Source), zap.String("src.workload", source), zap.String("src.namespace", sourceNamespace),
		zap.Stringer("src.identity", c.Identity), zap.Stringer("dst.addr", c.Destination), zap.String("dst.service", c.Service.Hostname),
		zap.String("flags", flag),
		zap.String("backend", q.Backend), zap.String("endpoint", q.Endpoint()), zap.Int("attempts", q.Attempts),
		zap.Int64("bytes_recv", q.Received), zap.Int64("bytes_sent", q.Sent), zap.Duration("duration", q.Duration),
	}
	what := "connection"
	if protocol != "tcp" {
		what = "request"
		fields = append(fields, zap.String("method", q.Method), zap.String("authority", q.Authority), zap.String("path", q.Path), zap.Int("status", q.Status))
	}
	if q.Route != "" {
		fields = append(fields, zap.String("route", q.Route))
	}
	if q.Policy != "" {
		fields = append(fields, zap.String("policy", q.Policy))
	}
	if q.Detail != "" {
		fields = append(fields, zap.String("detail", q.Detail))
	}
	if q.Err != nil {
		r.log.Warn(what+" failed", append(fields, zap.Error(q.Err))...)
		return
	}
	r.log.Info(what+" complete", fields...)
}
