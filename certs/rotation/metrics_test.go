package rotation_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tulle-mesh/tulle/certs/rotation"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, 0)
		registry := prometheus.NewPedanticRegistry()
		m := rotation.NewManager(rotation.Config{Signer: s, Registerer: registry})
		good := m.Acquire(identity("web"))
		must(t, good.Ready(t.Context()))
		s.fail(refusal{})
		refused := m.Acquire(identity("refused"))
		synctest.Wait()
		s.fail(errors.New("down"))
		down := m.Acquire(identity("down"))
		synctest.Wait()

		// The bubble's time begins at the turn of the millennium.
		want := `
# HELP tulle_certificate_earliest_expiry_timestamp_seconds When the first of the certificates in use on this node expires, absent without any (unstable).
# TYPE tulle_certificate_earliest_expiry_timestamp_seconds gauge
tulle_certificate_earliest_expiry_timestamp_seconds 9.467712e+08
# HELP tulle_certificate_identities Identities on this node by the state of their certificate (unstable).
# TYPE tulle_certificate_identities gauge
tulle_certificate_identities{state="expired"} 0
tulle_certificate_identities{state="failed"} 2
tulle_certificate_identities{state="overdue"} 0
tulle_certificate_identities{state="pending"} 0
tulle_certificate_identities{state="renewing"} 0
tulle_certificate_identities{state="valid"} 1
# HELP tulle_certificate_requests_total Requests for certificates, by result (unstable).
# TYPE tulle_certificate_requests_total counter
tulle_certificate_requests_total{result="failed"} 1
tulle_certificate_requests_total{result="issued"} 1
tulle_certificate_requests_total{result="refused"} 1
`
		got := scrape(registry)
		if !strings.Contains(got, "tulle_certificate_request_duration_seconds_count 3\n") {
			t.Errorf("metrics\n%s\nlack the durations", got)
		}
		var rest strings.Builder
		for line := range strings.Lines(got) {
			if !strings.Contains(line, "duration") {
				rest.WriteString(line)
			}
		}
		if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), rest.String()); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
		good.Release()
		refused.Release()
		down.Release()
		m.Close()
		if got := scrape(registry); got != "" {
			t.Errorf("metrics after Close:\n%s", got)
		}
	})
}

// scrape returns what Prometheus would read.
func scrape(registry *prometheus.Registry) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}
