package ca

import (
	"crypto/x509"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tulle-mesh/tulle/certs"
)

// metrics carry the names of Istio's CA, on which operators have alerts.
type metrics struct {
	requests, issued prometheus.Counter
	failures         *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer, authority *certs.Authority) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "citadel_server_csr_count",
			Help: "Certificate signing requests received.",
		}),
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "citadel_server_success_cert_issuance_count",
			Help: "Certificates issued.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "citadel_server_csr_sign_err_count",
			Help: "Certificate signing requests refused or failed, by reason.",
		}, []string{"reason"}),
	}
	if registerer == nil {
		return m, nil
	}
	collectors := []prometheus.Collector{m.requests, m.issued, m.failures}
	for _, cert := range []struct {
		timestamp, seconds, what string
		of                       func(chain []*x509.Certificate) *x509.Certificate
	}{
		{"citadel_server_cert_chain_expiry_timestamp", "citadel_server_cert_chain_expiry_seconds", "the certificate that signs",
			func(chain []*x509.Certificate) *x509.Certificate { return chain[0] }},
		{"citadel_server_root_cert_expiry_timestamp", "citadel_server_root_cert_expiry_seconds", "the root certificate",
			func(chain []*x509.Certificate) *x509.Certificate { return chain[len(chain)-1] }},
	} {
		notAfter := func() time.Time { return cert.of(authority.Chain()).NotAfter }
		collectors = append(collectors,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: cert.timestamp,
				Help: "When " + cert.what + " expires, in seconds since the epoch.",
			}, func() float64 { return float64(notAfter().Unix()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: cert.seconds,
				Help: "Time left until " + cert.what + " expires; negative after it.",
			}, func() float64 { return time.Until(notAfter()).Seconds() }))
	}
	for _, c := range collectors {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// refused counts a refusal. The reasons are constants, so their number is bounded.
func (m *metrics) refused(reason certs.Reason) { m.failures.WithLabelValues(string(reason)).Inc() }
