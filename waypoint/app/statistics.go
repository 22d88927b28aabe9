package app

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tulle-mesh/tulle/waypoint/extauthz"
)

// statistics are Tulle's own metrics of a waypoint, read when they are scraped.
type statistics struct{ w *waypoint }

var (
	descActive = prometheus.NewDesc("tulle_waypoint_requests_active", "Requests that are under way.", nil, nil)
	descRetry  = prometheus.NewDesc("tulle_waypoint_retries_total", "Attempts beyond the first.", []string{"destination_service"}, nil)
	descDenied = prometheus.NewDesc("tulle_waypoint_denied_total", "Requests that policies refused.", []string{"destination_service"}, nil)
	descAsked  = prometheus.NewDesc("tulle_waypoint_authorizer_requests_total", "Questions to external authorizers, by how they ended.", []string{"provider", "result"}, nil)
	descAsking = prometheus.NewDesc("tulle_waypoint_authorizer_duration_seconds", "Time that questions to external authorizers took.", []string{"provider"}, nil)
	descEnded  = prometheus.NewDesc("tulle_waypoint_limited_total", "Requests that rate limits refused.", []string{"destination_service"}, nil)

	descEndpoints = prometheus.NewDesc("tulle_waypoint_endpoints", "Endpoints of backends that are in use, by state.", []string{"backend", "state"}, nil)
	descUnder     = prometheus.NewDesc("tulle_waypoint_backend_active", "What is under way at a backend, by the limit that counts it.", []string{"backend", "limit"}, nil)
	descOverflow  = prometheus.NewDesc("tulle_waypoint_overflow_total", "What a backend's limits turned away.", []string{"backend", "limit"}, nil)
	descEjections = prometheus.NewDesc("tulle_waypoint_ejections_total", "Endpoints that were ejected, by cause.", []string{"backend", "cause"}, nil)
)

// Describe implements prometheus.Collector.
func (s *statistics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descActive, descRetry, descDenied, descEnded, descAsked, descAsking, descEndpoints, descUnder, descOverflow, descEjections} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *statistics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descActive, float64(s.w.forward.Active()))

	type sums struct{ retries, denied, limited uint64 }
	services := map[string]*sums{}
	for _, t := range s.w.report.Top() {
		_, host, _ := strings.Cut(t.Service, "/")
		if services[host] == nil {
			services[host] = &sums{}
		}
		services[host].retries += t.Retries
		services[host].denied += t.Denied
		services[host].limited += t.Limited
	}
	for host, n := range services {
		counter(descRetry, n.retries, host)
		counter(descDenied, n.denied, host)
		counter(descEnded, n.limited, host)
	}
	collectAuthorizers(ch, s.w.forward.Authorizers())
	seen := map[string]bool{}
	for _, b := range s.w.mesh.Backends() {
		if seen[b.Name] {
			continue // one that goes, and the one that comes
		}
		seen[b.Name] = true
		states := map[string]int{"serving": 0, "ejected": 0, "failing": 0, "unready": 0}
		for _, t := range b.Targets {
			switch {
			case !t.Healthy:
				states["unready"]++
			case t.Failing:
				states["failing"]++
			case t.Ejected > 0:
				states["ejected"]++
			default:
				states["serving"]++
			}
		}
		for state, n := range states {
			gauge(descEndpoints, float64(n), b.Name, state)
		}
		for _, l := range b.Limits {
			limit := strings.ReplaceAll(l.Limit, " ", "_")
			gauge(descUnder, float64(l.Active), b.Name, limit)
			counter(descOverflow, l.Overflow, b.Name, limit)
		}
		for cause, n := range b.Ejections {
			counter(descEjections, n, b.Name, strings.ReplaceAll(cause, " ", "_"))
		}
	}
}

// collectAuthorizers tells how questions to external authorizers ended.
func collectAuthorizers(ch chan<- prometheus.Metric, list []extauthz.Summary) {
	for _, a := range list {
		for result, n := range a.Results {
			ch <- prometheus.MustNewConstMetric(descAsked, prometheus.CounterValue, float64(n), a.Provider, result.String())
		}
		within := make(map[float64]uint64, len(a.Within))
		for d, n := range a.Within {
			within[d.Seconds()] = n
		}
		ch <- prometheus.MustNewConstHistogram(descAsking, a.Asked, a.Took.Seconds(), within, a.Provider)
	}
}
