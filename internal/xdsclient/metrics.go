package xdsclient

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons why a stream ended, the label of istio_xds_connection_terminations_total.
const (
	reasonConnectionError = "ConnectionError" // no stream could be opened
	reasonError           = "Error"           // an open stream failed
	reasonReconnect       = "Reconnect"       // the server asked to come again
	reasonComplete        = "Complete"        // the server ended the stream in order
)

type metrics struct {
	terminations *prometheus.CounterVec
	messages     *prometheus.CounterVec
	bytes        *prometheus.CounterVec
	rejected     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		terminations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_connection_terminations_total",
			Help: "Streams to the control plane that ended, by reason (unstable).",
		}, []string{"reason"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_message_total",
			Help: "Responses received from the control plane, by resource type (unstable).",
		}, []string{"url"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_message_bytes_total",
			Help: "Bytes of resources received from the control plane, by resource type (unstable).",
		}, []string{"url"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_xds_rejected_resources_total",
			Help: "Resources refused, by resource type (unstable).",
		}, []string{"url"}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.terminations), reg.Register(m.messages), reg.Register(m.bytes), reg.Register(m.rejected))
}
