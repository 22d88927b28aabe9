package metrics_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/metrics"
)

var (
	web = &workload.Workload{
		WorkloadName: "web", CanonicalName: "web-app", CanonicalRevision: "v1", Namespace: "shop", ClusterID: "east",
		Locality: workload.Locality{Region: "eu", Zone: "eu-a"},
	}
	api = &workload.Workload{
		WorkloadName: "api", CanonicalName: "api-app", CanonicalRevision: "v2", Namespace: "back", ClusterID: "west",
		Locality: workload.Locality{Region: "us", Zone: "us-b"},
	}
	service = &workload.Service{Name: "api", Namespace: "back", Hostname: "api.back.svc"}
	peers   = metrics.Peers{
		Reporter: metrics.Source, Source: web, Destination: api, Service: service, MutualTLS: true,
		SourceIdentity:      spiffeid.RequireFromString("spiffe://td/ns/shop/sa/web"),
		DestinationIdentity: spiffeid.RequireFromString("spiffe://td/ns/back/sa/api"),
	}
)

// scrape returns all samples as `family{labels that are not the usual ones} value`.
func scrape(t testing.TB, reg *prometheus.Registry) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*dto.MetricFamily{}
	for _, f := range families {
		out[f.GetName()] = f
	}
	return out
}

// values lists "response_flags value" of one family, sorted.
func values(f *dto.MetricFamily) []string {
	out := []string{}
	for _, m := range f.GetMetric() {
		flag := ""
		for _, l := range m.GetLabel() {
			if l.GetName() == "response_flags" {
				flag = l.GetValue()
			}
		}
		out = append(out, fmt.Sprintf("%s %v", flag, m.GetCounter().GetValue()))
	}
	slices.Sort(out)
	return out
}

func labels(m *dto.Metric) map[string]string {
	out := map[string]string{}
	for _, l := range m.GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}

func newMetrics(t testing.TB, cfg metrics.Config) (*metrics.Metrics, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	cfg.Registerer = reg
	return metrics.New(cfg), reg
}

func TestLabelsAreIstios(t *testing.T) {
	m, reg := newMetrics(t, metrics.Config{})
	m.Open(peers, nil, nil)
	got := labels(scrape(t, reg)["istio_tcp_connections_opened_total"].GetMetric()[0])
	want := map[string]string{
		"reporter": "source", "source_workload": "web", "source_canonical_service": "web-app", "source_canonical_revision": "v1",
		"source_workload_namespace": "shop", "source_principal": "spiffe://td/ns/shop/sa/web", "source_app": "web-app",
		"source_version": "v1", "source_cluster": "east",
		"destination_service": "api.back.svc", "destination_service_namespace": "back", "destination_service_name": "api",
		"destination_workload": "api", "destination_canonical_service": "api-app", "destination_canonical_revision": "v2",
		"destination_workload_namespace": "back", "destination_principal": "spiffe://td/ns/back/sa/api", "destination_app": "api-app",
		"destination_version": "v2", "destination_cluster": "west",
		"request_protocol": "tcp", "response_flags": "-", "connection_security_policy": "mutual_tls",
		"source_region": "eu", "source_zone": "eu-a", "destination_region": "us", "destination_zone": "us-b",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestWhatIsMissingIsUnknown(t *testing.T) {
	m, reg := newMetrics(t, metrics.Config{})
	m.Open(metrics.Peers{Reporter: metrics.Destination}, nil, nil)
	for name, v := range labels(scrape(t, reg)["istio_tcp_connections_opened_total"].GetMetric()[0]) {
		switch name {
		case "reporter", "request_protocol", "response_flags":
		default:
			if v != "unknown" {
				t.Errorf("%s is %q", name, v)
			}
		}
	}
}

// The order matters to people who compare scrapes: it is the interop contract's.
func TestLabelOrder(t *testing.T) {
	m, _ := newMetrics(t, metrics.Config{})
	ch := make(chan *prometheus.Desc, 16)
	m.Describe(ch)
	want := "variableLabels: {reporter,source_workload,source_canonical_service,source_canonical_revision," +
		"source_workload_namespace,source_principal,source_app,source_version,source_cluster,destination_service," +
		"destination_service_namespace,destination_service_name,destination_workload,destination_canonical_service," +
		"destination_canonical_revision,destination_workload_namespace,destination_principal,destination_app," +
		"destination_version,destination_cluster,request_protocol,response_flags,connection_security_policy," +
		"source_region,source_zone,destination_region,destination_zone}"
	if got := (<-ch).String(); !strings.Contains(got, want) {
		t.Errorf("got %s", got)
	}
}

func TestConnectionsAreCountedWhileTheyLive(t *testing.T) {
	m, reg := newMetrics(t, metrics.Config{})
	var fromClient, fromServer atomic.Uint64
	c := m.Open(peers, &fromClient, &fromServer)
	fromClient.Store(100)
	fromServer.Store(7)
	got := scrape(t, reg)
	// Istio calls the client's bytes received, also at the source.
	for family, want := range map[string]string{
		"istio_tcp_connections_opened_total": "- 1",
		"istio_tcp_received_bytes_total":     "- 100",
		"istio_tcp_sent_bytes_total":         "- 7",
	} {
		if v := values(got[family]); !slices.Equal(v, []string{want}) {
			t.Errorf("%s: %q", family, v)
		}
	}
	if got["istio_tcp_connections_closed_total"] != nil || got["istio_tcp_connections_failed_total"] != nil {
		t.Error("empty families are shown")
	}
	fromClient.Store(150)
	c.Close(metrics.FlagNone)
	c.Close(metrics.FlagDeny)
	fromClient.Store(1000)
	got = scrape(t, reg)
	for family, want := range map[string]string{
		"istio_tcp_connections_opened_total": "- 1",
		"istio_tcp_connections_closed_total": "- 1",
		"istio_tcp_received_bytes_total":     "- 150",
		"istio_tcp_sent_bytes_total":         "- 7",
	} {
		if v := values(got[family]); !slices.Equal(v, []string{want}) {
			t.Errorf("%s: %q", family, v)
		}
	}
}

func TestOpenConnectionsByReporter(t *testing.T) {
	m, reg := newMetrics(t, metrics.Config{})
	a, b := m.Open(peers, nil, nil), m.Open(metrics.Peers{Reporter: metrics.Destination}, nil, nil)
	m.Open(peers, nil, nil)
	want := func(source, destination float64) {
		t.Helper()
		for _, x := range scrape(t, reg)["istio_tcp_sockets_open"].GetMetric() {
			w := source
			if labels(x)["reporter"] == "destination" {
				w = destination
			}
			if x.GetGauge().GetValue() != w {
				t.Errorf("%v: want %v", x, w)
			}
		}
	}
	want(2, 1)
	a.Close(metrics.FlagNone)
	b.Close(metrics.FlagNone)
	want(1, 0)
}

func TestFlags(t *testing.T) {
	m, reg := newMetrics(t, metrics.Config{})
	m.Open(peers, nil, nil).Close(metrics.FlagDeny)
	m.Open(peers, nil, nil).Close(metrics.FlagNone)
	m.Failed(peers, metrics.FlagTLSFailure)
	m.Failed(peers, metrics.FlagDeny)
	m.Failed(peers, "made up")
	got := scrape(t, reg)
	for family, want := range map[string][]string{
		"istio_tcp_connections_opened_total": {"- 2"},
		"istio_tcp_connections_closed_total": {"- 1", "DENY 1"},
		"istio_tcp_connections_failed_total": {"CONNECT 1", "DENY 2", "TLS_FAILURE 1"},
	} {
		if d := cmp.Diff(want, values(got[family])); d != "" {
			t.Errorf("%s: %s", family, d)
		}
	}
}

func TestPodsOfOneDeploymentShareASeries(t *testing.T) {
	m, reg := newMetrics(t, metrics.Config{})
	other := *web
	other.UID, other.Name, other.Healthy = "other", "web-1", true
	p := peers
	p.Source = &other
	m.Open(peers, nil, nil)
	m.Open(p, nil, nil)
	if got := values(scrape(t, reg)["istio_tcp_connections_opened_total"]); !slices.Equal(got, []string{"- 2"}) {
		t.Errorf("%q", got)
	}
}

func TestIdlePairsAreForgottenOnceSeen(t *testing.T) {
	clock := time.Unix(0, 0)
	m, reg := newMetrics(t, metrics.Config{Idle: time.Minute, Now: func() time.Time { return clock }})
	c := m.Open(peers, nil, nil)
	count := func() int { return len(scrape(t, reg)["istio_tcp_connections_opened_total"].GetMetric()) }
	clock = clock.Add(time.Hour)
	if count() != 1 {
		t.Fatal("a pair with a live connection was forgotten")
	}
	c.Close(metrics.FlagNone)
	clock = clock.Add(time.Hour)
	if count() != 1 {
		t.Fatal("the pair was forgotten before anybody saw its last connection")
	}
	if count() != 0 {
		t.Fatal("the pair is not forgotten")
	}
	m.Open(peers, nil, nil)
	if count() != 1 {
		t.Fatal("the pair does not come back")
	}
}

func TestNumberOfSeriesIsBounded(t *testing.T) {
	clock := time.Unix(0, 0)
	m, reg := newMetrics(t, metrics.Config{MaxSeries: 200, Now: func() time.Time { return clock }})
	const most, more = 200, 50
	pair := func(i int) metrics.Peers {
		return metrics.Peers{Source: &workload.Workload{WorkloadName: fmt.Sprint("w", i)}, Destination: api}
	}
	for i := range most + more {
		m.Open(pair(i), nil, nil).Close(metrics.FlagNone)
	}
	family := scrape(t, reg)["istio_tcp_connections_opened_total"]
	if n := len(family.GetMetric()); n != most+1 {
		t.Errorf("%d series", n)
	}
	overflow := 0.0
	for _, x := range family.GetMetric() {
		if l := labels(x); l["source_workload"] == "unknown" && l["destination_workload"] == "unknown" {
			overflow += x.GetCounter().GetValue()
		}
	}
	if overflow != more {
		t.Errorf("%v connections of unknown peers", overflow)
	}
	// When the others have been idle for long, there is room again.
	clock = clock.Add(2 * time.Hour)
	m.Open(pair(most+more), nil, nil)
	if n := len(scrape(t, reg)["istio_tcp_connections_opened_total"].GetMetric()); n != 1 {
		t.Errorf("%d series after all were idle", n)
	}
}

// Everything but the core families may change, and its help text says so.
func TestHelpMarksWhatIsNotStable(t *testing.T) {
	m, reg := newMetrics(t, metrics.Config{})
	m.Open(peers, nil, nil).Close(metrics.FlagConnect)
	stable := []string{"istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total",
		"istio_tcp_received_bytes_total", "istio_tcp_sent_bytes_total"}
	for name, f := range scrape(t, reg) {
		if slices.Contains(stable, name) == strings.Contains(f.GetHelp(), "(unstable)") {
			t.Errorf("%s: %s", name, f.GetHelp())
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	m, reg := newMetrics(t, metrics.Config{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 200 {
				var n atomic.Uint64
				p := peers
				p.Reporter = metrics.Reporter(i % 2)
				c := m.Open(p, &n, &n)
				n.Add(10)
				c.Close(metrics.FlagNone)
			}
		})
	}
	for range 20 {
		scrape(t, reg)
	}
	wg.Wait()
	if d := cmp.Diff([]string{"- 4000", "- 4000"}, values(scrape(t, reg)["istio_tcp_sent_bytes_total"])); d != "" {
		t.Error(d)
	}
}

func BenchmarkConnection(b *testing.B) {
	m := metrics.New(metrics.Config{})
	var n atomic.Uint64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Open(peers, &n, &n).Close(metrics.FlagNone)
		}
	})
}

func BenchmarkScrapeThousandPairs(b *testing.B) {
	reg := prometheus.NewRegistry()
	m := metrics.New(metrics.Config{Registerer: reg})
	for i := range 1000 {
		p := peers
		p.Source = &workload.Workload{WorkloadName: fmt.Sprint("w", i)}
		m.Open(p, nil, nil).Close(metrics.FlagNone)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
