package app

import (
	"maps"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/extauthz"
)

// authorizersAlone collects what statistics tells of authorizers.
type authorizersAlone []extauthz.Summary

func (authorizersAlone) Describe(ch chan<- *prometheus.Desc)   { ch <- descAsked; ch <- descAsking }
func (a authorizersAlone) Collect(ch chan<- prometheus.Metric) { collectAuthorizers(ch, a) }

func TestAuthorizersAreMeasured(t *testing.T) {
	var stats extauthz.Stats
	stats.Asked("sessions", extauthz.Failed(&api.ExternalAuth{}, nil), 2*time.Millisecond)
	stats.Asked("sessions", extauthz.Failed(&api.ExternalAuth{}, extauthz.ErrLate), 10*time.Second)
	registry := prometheus.NewRegistry()
	registry.MustRegister(authorizersAlone(stats.Summaries()))
	families, err := registry.Gather()
	if err != nil || len(families) != 2 {
		t.Fatalf("%v, %v", families, err)
	}
	asking, asked := families[0], families[1]
	if asking.GetName() != "tulle_waypoint_authorizer_duration_seconds" || asked.GetName() != "tulle_waypoint_authorizer_requests_total" {
		t.Fatalf("%s, %s", asking.GetName(), asked.GetName())
	}
	results := map[string]float64{}
	for _, m := range asked.GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		results[labels["provider"]+" "+labels["result"]] = m.GetCounter().GetValue()
	}
	want := map[string]float64{"sessions allowed": 0, "sessions denied": 1, "sessions error": 0, "sessions timed_out": 1}
	if !maps.Equal(results, want) {
		t.Errorf("%v, want %v", results, want)
	}
	h := asking.GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 2 || h.GetSampleSum() != 10.002 {
		t.Errorf("%d questions in %v s", h.GetSampleCount(), h.GetSampleSum())
	}
	for _, b := range h.GetBucket() {
		if n := b.GetCumulativeCount(); n != 0 && b.GetUpperBound() < 0.002 || n != 1 && b.GetUpperBound() > 0.002 {
			t.Errorf("%d took at most %v s", n, b.GetUpperBound())
		}
	}
}
