package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"go.uber.org/zap/zapcore"
	"google.golang.org/protobuf/types/known/anypb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/baggage"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/report"
	"github.com/tulle-mesh/tulle/waypoint/trace"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output keeps the lines.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// world is a Reporter with a mesh of two workloads.
type world struct {
	t        testing.TB
	report   *report.Reporter
	registry *prometheus.Registry
	tracer   *trace.Tracer
	out      *output
	client   *forward.Client
	target   *upstream.Target
	closed   bool
}

var webIdentity = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/web")

func newWorld(t testing.TB, change func(*report.Config)) *world {
	t.Helper()
	store := state.New(state.Config{})
	pod := func(name, account string, addr ...byte) xdsclient.Resource {
		w := &apiworkload.Workload{
			Uid: "Kubernetes//Pod/shop/" + name + "-1", Name: name + "-1", Namespace: "shop", ServiceAccount: account, Addresses: [][]byte{addr},
			WorkloadName: name, CanonicalName: name, CanonicalRevision: "v1", ClusterId: "Kubernetes", TunnelProtocol: apiworkload.TunnelProtocol_HBONE,
		}
		body, err := anypb.New(&apiworkload.Address{Type: &apiworkload.Address_Workload{Workload: w}})
		if err != nil {
			t.Fatal(err)
		}
		return xdsclient.Resource{Name: w.GetUid(), Version: "1", Body: body}
	}
	if r := store.AddressHandler().Apply(xdsclient.Delta{Resources: []xdsclient.Resource{pod("web", "web", 10, 0, 0, 1), pod("api", "api", 10, 0, 0, 2)}}); len(r) > 0 {
		t.Fatal(r)
	}
	w := &world{t: t, registry: prometheus.NewPedanticRegistry(), out: &output{}, tracer: trace.NewTracer()}
	cfg := report.Config{Store: store, Registerer: w.registry, Output: w.out, Tracer: w.tracer, Self: report.Self{Gateway: "l7", Namespace: "shop", Pod: "l7-1"}}
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.report, err = report.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	up, err := upstream.New(upstream.Config{Name: "shop/api.shop.svc.cluster.local:80"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)
	if err := up.Update([]upstream.Endpoint{{
		UID: "Kubernetes//Pod/shop/api-1", Addr: netip.MustParseAddrPort("10.0.0.2:8080"), Weight: 1, Healthy: true,
		Identity: spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/api"),
	}}); err != nil {
		t.Fatal(err)
	}
	if w.target, err = up.Pick(upstream.Options{}); err != nil {
		t.Fatal(err)
	}
	w.client = w.newClient("10.0.0.1:40000", baggage.Baggage{})
	return w
}

func (w *world) newClient(from string, told baggage.Baggage) *forward.Client {
	peer, err := request.NewPeer(webIdentity)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &forward.Client{
		Identity: webIdentity, Peer: peer, Source: netip.MustParseAddrPort(from), Destination: netip.MustParseAddrPort("10.96.0.1:80"),
		Service: workload.ServiceKey{Namespace: "shop", Hostname: "api.shop.svc.cluster.local"}, Port: 80, Version: 1,
	}
	c.Memo = w.report.Remember(c, told)
	return c
}

// record is an ordinary request.
func (w *world) record() *forward.Record {
	return &forward.Record{
		Start: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC), Duration: 12 * time.Millisecond, Head: 11 * time.Millisecond, Client: w.client,
		Service: "api", Backend: "shop/api.shop.svc.cluster.local:80", Target: w.target, Method: "GET", Authority: "api", Path: "/items", Query: "q=1", HasQuery: true,
		Request: &message.Request{Method: "GET", Scheme: "http", Path: "/items", Header: message.Header{
			{Name: "user-agent", Value: "curl/8"}, {Name: "x-request-id", Value: "id-1"}, {Name: "x-team", Value: "blue"},
		}},
		Response: &message.Response{Status: 200, Header: message.Header{{Name: "content-type", Value: "text/html"}}},
		Status:   200, GRPC: -1, Route: "shop/items/rule-0", Policy: "shop/allow-web", Attempts: 1, Received: 3, Sent: 700,
	}
}

func (w *world) close() {
	if !w.closed {
		w.closed = true
		w.report.Close()
	}
}

// lines ends the Reporter and returns what it wrote.
func (w *world) lines() string {
	w.close()
	return w.out.b.String()
}

// scrape returns the samples in Prometheus' text form.
func (w *world) scrape() []string {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			w.t.Fatal(err)
		}
	}
	return strings.Split(strings.TrimSpace(b.String()), "\n")
}

// sample returns the line that begins so, and its labels.
func (w *world) sample(prefix string) (line string, labels map[string]string) {
	w.t.Helper()
	for _, l := range w.scrape() {
		if !strings.HasPrefix(l, prefix) {
			continue
		}
		labels = map[string]string{}
		_, rest, _ := strings.Cut(l, "{")
		inner, value, _ := strings.Cut(rest, "} ")
		for _, pair := range strings.Split(inner, `",`) {
			name, v, _ := strings.Cut(pair, `="`)
			labels[name] = strings.TrimSuffix(v, `"`)
		}
		return value, labels
	}
	return "", nil
}

func TestRequestsCountWithIstiosLabels(t *testing.T) {
	w := newWorld(t, nil)
	w.report.Report(w.record())
	w.report.Report(w.record())
	value, labels := w.sample("istio_requests_total{")
	want := map[string]string{
		"reporter": "waypoint", "request_protocol": "http", "response_code": "200", "response_flags": "-", "connection_security_policy": "mutual_tls",
		"source_workload": "web", "source_canonical_service": "web", "source_canonical_revision": "v1", "source_workload_namespace": "shop",
		"source_principal": webIdentity.String(), "source_app": "web", "source_version": "v1", "source_cluster": "Kubernetes",
		"destination_workload": "api", "destination_canonical_service": "api", "destination_canonical_revision": "v1", "destination_workload_namespace": "shop",
		"destination_principal": "spiffe://cluster.local/ns/shop/sa/api", "destination_app": "api", "destination_version": "v1", "destination_cluster": "Kubernetes",
		"destination_service": "api.shop.svc.cluster.local", "destination_service_name": "api", "destination_service_namespace": "shop",
	}
	if value != "2" || !maps.Equal(labels, want) {
		t.Errorf("%s %v", value, labels)
	}
	if n, _ := w.sample("istio_request_duration_milliseconds_sum{"); n != "24" {
		t.Errorf("durations sum up to %s", n)
	}
	if n, _ := w.sample("istio_response_bytes_sum{"); n != "1400" {
		t.Errorf("responses have %s bytes", n)
	}
	if n, labels := w.sample("istio_request_duration_milliseconds_bucket{"); n != "0" || labels["le"] != "0.5" {
		t.Errorf("first bucket: %s %v", n, labels)
	}
	for _, l := range w.scrape() {
		if strings.HasPrefix(l, "istio_request_duration_milliseconds_bucket") && strings.Contains(l, `le="25"`) && !strings.HasSuffix(l, " 2") {
			t.Errorf("12 ms are not below 25 ms: %s", l)
		}
	}
}

func TestCallsTellTheirStatusAndMessages(t *testing.T) {
	w := newWorld(t, nil)
	q := w.record()
	q.Call, q.GRPC, q.RequestMessages, q.ResponseMessages, q.Flag = true, 14, 3, 5, "UH"
	w.report.Report(q)
	_, labels := w.sample("istio_requests_total{")
	if labels["request_protocol"] != "grpc" || labels["grpc_response_status"] != "14" || labels["response_flags"] != "UH" {
		t.Errorf("labels: %v", labels)
	}
	if n, _ := w.sample("istio_request_messages_total{"); n != "3" {
		t.Errorf("%s messages in requests", n)
	}
	if n, _ := w.sample("istio_response_messages_total{"); n != "5" {
		t.Errorf("%s messages in responses", n)
	}
}

func TestConnectionsCountAsConnections(t *testing.T) {
	w := newWorld(t, nil)
	q := &forward.Record{Client: w.client, Service: "api", Target: w.target, Opened: true, GRPC: -1}
	w.report.Opened(q)
	if n, labels := w.sample("istio_tcp_connections_opened_total{"); n != "1" || labels["request_protocol"] != "tcp" || labels["response_code"] != "" {
		t.Errorf("opened: %s %v", n, labels)
	}
	if n, _ := w.sample("istio_tcp_connections_closed_total{"); n != "" {
		t.Errorf("closed: %s", n)
	}
	q.Received, q.Sent = 10, 20
	w.report.Report(q)
	failed := &forward.Record{Client: w.client, Service: "api", Flag: "UF", Err: errors.New("refused"), GRPC: -1}
	w.report.Report(failed)
	for _, prefix := range []string{"istio_tcp_connections_closed_total{", "istio_tcp_received_bytes_total{", "istio_tcp_sent_bytes_total{"} {
		if n, _ := w.sample(prefix); n == "" {
			t.Errorf("no %s", prefix)
		}
	}
	if all := strings.Join(w.scrape(), "\n"); !strings.Contains(all, `response_flags="UF"`) || strings.Contains(all, "istio_requests_total") {
		t.Error("the failed connection is not told apart")
	}
}

func TestWhoIsNotInTheMeshIsTakenAtItsBaggage(t *testing.T) {
	w := newWorld(t, nil)
	q := w.record()
	q.Client = w.newClient("10.9.9.9:1", baggage.Baggage{WorkloadName: "far", ServiceName: "far-app", ServiceVersion: "v7", Cluster: "east"})
	w.report.Report(q)
	_, labels := w.sample("istio_requests_total{")
	if labels["source_workload"] != "far" || labels["source_canonical_service"] != "far-app" || labels["source_cluster"] != "east" || labels["source_workload_namespace"] != "shop" {
		t.Errorf("labels: %v", labels)
	}
}

func TestAnAddressOfAnotherIdentityIsNotBelieved(t *testing.T) {
	w := newWorld(t, nil)
	q := w.record()
	q.Client = w.newClient("10.0.0.2:1", baggage.Baggage{}) // api's address, web's identity
	w.report.Report(q)
	if _, labels := w.sample("istio_requests_total{"); labels["source_workload"] != "unknown" {
		t.Errorf("labels: %v", labels)
	}
}

func TestUnansweredRequestsHaveNoDestination(t *testing.T) {
	w := newWorld(t, nil)
	q := w.record()
	q.Target, q.Backend, q.Status, q.Flag, q.Attempts = nil, "", 403, "UAEX", 0
	w.report.Report(q)
	_, labels := w.sample("istio_requests_total{")
	if labels["destination_workload"] != "unknown" || labels["destination_service_name"] != "api" || labels["response_code"] != "403" {
		t.Errorf("labels: %v", labels)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	w := newWorld(t, func(c *report.Config) { c.Levels, c.MaxSeries = silent{}, 100 })
	for i := range 1000 {
		q := w.record()
		q.Status = 200 + i%3
		q.Flag = strings.Repeat("x", 1+i/3)
		w.report.Report(q)
	}
	n, all := 0, 0
	for _, l := range w.scrape() {
		if strings.HasPrefix(l, "istio_requests_total{") {
			n++
			count, _ := strconv.Atoi(l[strings.LastIndexByte(l, ' ')+1:])
			all += count
		}
	}
	if n > 103 || all != 1000 {
		t.Errorf("%d series with %d requests", n, all)
	}
}

// silent disables all lines.
type silent struct{}

func (silent) Enabled(string, zapcore.Level) bool { return false }

func TestLinesNameWhatDecided(t *testing.T) {
	w := newWorld(t, nil)
	q := w.record()
	q.Limit, q.Status, q.Flag = "shop/per-client/rule-0", 429, "RL"
	w.report.Report(q)
	want := "2026-11-22T08:00:00.012Z\tinfo\taccess\trequest complete\t" +
		`src.addr=10.0.0.1:40000 src.workload="web" src.namespace="shop" src.identity="spiffe://cluster.local/ns/shop/sa/web" src.cluster="Kubernetes" ` +
		`dst.addr=10.96.0.1:80 dst.service="api.shop.svc.cluster.local" dst.endpoint=10.0.0.2:8080 dst.workload="api-1" dst.identity="spiffe://cluster.local/ns/shop/sa/api" ` +
		`method="GET" authority="api" path="/items?q=1" status=429 request_id="id-1" flags="RL" route="shop/items/rule-0" policy="shop/allow-web" ` +
		`limit="shop/per-client/rule-0" backend="shop/api.shop.svc.cluster.local:80" bytes_sent=700 bytes_recv=3 duration="12ms"` + "\n"
	if got := w.lines(); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestLinesAsObjects(t *testing.T) {
	w := newWorld(t, func(c *report.Config) { c.JSON = true })
	q := w.record()
	q.Err = errors.New(`broken "pipe"`)
	w.report.Report(q)
	var got map[string]any
	if err := json.Unmarshal([]byte(w.lines()), &got); err != nil {
		t.Fatal(err)
	}
	if got["level"] != "warn" || got["message"] != "request failed" || got["src.workload"] != "web" || got["status"] != 200.0 || got["error"] != `broken "pipe"` {
		t.Errorf("%v", got)
	}
}

func TestLevelsDecideOnLines(t *testing.T) {
	w := newWorld(t, func(c *report.Config) { c.Levels = warnings{} })
	w.report.Report(w.record())
	q := w.record()
	q.Err = errors.New("gone")
	w.report.Report(q)
	w.report.Refused(&message.ProtocolError{Status: 400, Reason: "no host"})
	if got := w.lines(); strings.Contains(got, "request complete") || strings.Count(got, "\n") != 2 {
		t.Errorf("%s", got)
	}
}

type warnings struct{}

func (warnings) Enabled(_ string, l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func TestEnvoysFormat(t *testing.T) {
	w := newWorld(t, nil)
	err := w.report.Apply(&api.Telemetry{AccessLogs: []*api.AccessLog{{
		Format: `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% ` +
			`%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(CONTENT-TYPE)% %TRAILER(X)% "%REQ(USER-AGENT):4%" %UPSTREAM_HOST% %UPSTREAM_CLUSTER% ` +
			`%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_PEER_URI_SAN% %REQUESTED_SERVER_NAME% %ROUTE_NAME% ` +
			`%TULLE(POLICY)% %TULLE(SOURCE_WORKLOAD)% %TULLE(DESTINATION_WORKLOAD)% %HOSTNAME% %GRPC_STATUS%`,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	w.report.Report(w.record())
	want := `[2026-11-22T08:00:00.000Z] "GET /items?q=1 HTTP/1.1" 200 - via_upstream 3 700 12 text/html - "curl" 10.0.0.2:8080 shop/api.shop.svc.cluster.local:80 ` +
		`10.0.0.1 10.96.0.1:80 spiffe://cluster.local/ns/shop/sa/web - shop/items/rule-0 shop/allow-web web api l7-1 -` + "\n"
	if got := w.lines(); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestFormatsAsObjectsAndFilters(t *testing.T) {
	w := newWorld(t, nil)
	err := w.report.Apply(&api.Telemetry{AccessLogs: []*api.AccessLog{{
		Json:   []*api.HeaderField{{Name: "code", Value: "%RESPONSE_CODE%"}, {Name: "who", Value: "%TULLE(SOURCE_WORKLOAD)%"}, {Name: "sni", Value: "%REQUESTED_SERVER_NAME%"}, {Name: "both", Value: "%REQ(:METHOD)% %REQ(:PATH)%"}},
		Filter: `response.code >= 400 && request.headers["x-team"] == "blue" && source.workload == "web"`,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	w.report.Report(w.record())
	q := w.record()
	q.Status = 503
	w.report.Report(q)
	if got, want := w.lines(), `{"code":503,"who":"web","sni":null,"both":"GET /items?q=1"}`+"\n"; got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestADisabledLogIsSilent(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.report.Apply(&api.Telemetry{AccessLogs: []*api.AccessLog{{Disabled: true}}}); err != nil {
		t.Fatal(err)
	}
	w.report.Report(w.record())
	if got := w.lines(); got != "" {
		t.Errorf("%q", got)
	}
}

func TestWhatIsWrongChangesNothing(t *testing.T) {
	w := newWorld(t, nil)
	for want, wrong := range map[string]*api.Telemetry{
		"access_logs[1]: format":       {AccessLogs: []*api.AccessLog{{Otlp: "127.0.0.1:1"}, {Format: "%NONSENSE%"}}},
		"access_logs[0]: format":       {AccessLogs: []*api.AccessLog{{Format: "%NONSENSE%"}}},
		"access_logs[0]: filter":       {AccessLogs: []*api.AccessLog{{Filter: "response.code +"}}},
		"access_logs[0]: json[a]":      {AccessLogs: []*api.AccessLog{{Json: []*api.HeaderField{{Name: "a", Value: "%X"}}}}},
		"metrics.overrides[0].tags[x]": {Metrics: &api.Metrics{Overrides: []*api.MetricOverride{{Tags: []*api.MetricTag{{Name: "x", Value: "1 +"}}}}}},
		`metric "NOT_A_METRIC"`:        {Metrics: &api.Metrics{Overrides: []*api.MetricOverride{{Metric: "NOT_A_METRIC"}}}},
		"tracing.sampling":             {Tracing: &api.Tracing{Otlp: "127.0.0.1:1", HasSampling: true, Sampling: 10001}},
	} {
		rejected := w.report.Handler().Apply(xdsclient.Delta{Resources: []xdsclient.Resource{{Name: "waypoint/shop/l7", Body: mustAny(t, wrong)}}})
		if len(rejected) != 1 || !strings.Contains(rejected[0].Err.Error(), want) {
			t.Errorf("%v, want %q", rejected, want)
		}
	}
	if n := w.report.Exporters(); n != 0 {
		t.Errorf("%d exporters run", n)
	}
	if w.report.Telemetry() != nil {
		t.Error("something changed")
	}
}

func mustAny(t testing.TB, m *api.Telemetry) *anypb.Any {
	body, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestMetricOverrides(t *testing.T) {
	w := newWorld(t, nil)
	resource := xdsclient.Resource{Name: "waypoint/shop/l7", Body: mustAny(t, &api.Telemetry{Metrics: &api.Metrics{Overrides: []*api.MetricOverride{
		{Tags: []*api.MetricTag{{Name: "response_code", Remove: true}}},
		{Metric: "REQUEST_COUNT", Tags: []*api.MetricTag{{Name: "team", Value: `request.headers["x-team"]`}, {Name: "source_app", Value: `"all"`}, {Name: "none", Value: `request.headers["absent"]`}}},
		{Metric: "RESPONSE_SIZE", Disabled: true},
	}}})}
	if r := w.report.Handler().Apply(xdsclient.Delta{Resources: []xdsclient.Resource{resource}}); len(r) > 0 {
		t.Fatal(r)
	}
	q := w.record()
	w.report.Report(q)
	q.Status = 404
	w.report.Report(q)
	q.Request.Header.Set("x-team", "red")
	w.report.Report(q)
	var got []string
	for _, l := range w.scrape() {
		if strings.HasPrefix(l, "istio_requests_total{") {
			if strings.Contains(l, "response_code=") || !strings.Contains(l, `source_app="all"`) || !strings.Contains(l, `none="unknown"`) {
				t.Error(l)
			}
			_, after, _ := strings.Cut(l, `team="`)
			team, _, _ := strings.Cut(after, `"`)
			got = append(got, team+l[strings.LastIndexByte(l, ' '):])
		}
		if strings.HasPrefix(l, "istio_response_bytes") {
			t.Error("a disabled metric:", l)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"blue 2", "red 1"}) {
		t.Errorf("%v", got)
	}
	// Without the resource all is as it was.
	if r := w.report.Handler().Apply(xdsclient.Delta{Removed: []string{"waypoint/shop/l7"}}); len(r) > 0 {
		t.Fatal(r)
	}
	w.report.Report(w.record())
	if n, labels := w.sample("istio_requests_total{"); n != "1" || labels["response_code"] != "200" || labels["team"] != "" {
		t.Errorf("%s %v", n, labels)
	}
}

func TestTapsSeeWhatTheirFilterLetsThrough(t *testing.T) {
	w := newWorld(t, nil)
	filter, err := report.ParseFilter(url.Values{"status": {"5xx"}, "path": {"/it*s"}, "source": {"shop/web"}, "min-latency": {"10ms"}, "decision": {"failed"}})
	if err != nil {
		t.Fatal(err)
	}
	tap := w.report.Watch(filter)
	defer tap.Close()
	w.report.Report(w.record())
	q := w.record()
	q.Status, q.HasQuery = 503, false
	w.report.Report(q)
	l := <-tap.C
	if l.Status != 503 || l.Source != "web" || l.Route != "shop/items/rule-0" || l.Policy != "shop/allow-web" || l.Path != "/items" || len(tap.C) != 0 {
		t.Errorf("%+v", l)
	}
	for name, value := range map[string]string{"status": "many", "min-latency": "long", "decision": "maybe", "weather": "fine"} {
		if _, err := report.ParseFilter(url.Values{name: {value}}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}

func TestASlowTapIsToldWhatItMissed(t *testing.T) {
	w := newWorld(t, func(c *report.Config) { c.Levels = silent{} })
	tap := w.report.Watch(nil)
	for range 600 {
		w.report.Report(w.record())
	}
	for range 512 {
		<-tap.C
	}
	w.report.Report(w.record())
	if l := <-tap.C; l.Missed != 88 {
		t.Errorf("%d missed", l.Missed)
	}
	tap.Close()
	tap.Close()
	var all []*report.Tap
	for {
		p := w.report.Watch(nil)
		if p == nil {
			break
		}
		all = append(all, p)
	}
	if len(all) != 8 {
		t.Errorf("%d may watch", len(all))
	}
	w.close()
	<-w.report.Done()
	if w.report.Watch(nil) != nil {
		t.Error("watched after the end")
	}
}

func TestTopSumsUpRoutes(t *testing.T) {
	w := newWorld(t, func(c *report.Config) { c.Levels = silent{} })
	for i := range 100 {
		q := w.record()
		q.Duration = time.Duration(i+1) * time.Millisecond
		if i >= 90 {
			q.Status = 500
		}
		w.report.Report(q)
	}
	top := w.report.Top()
	if len(top) != 1 || top[0].Requests != 100 || top[0].Failed != 10 || top[0].Service != "shop/api.shop.svc.cluster.local" {
		t.Fatalf("%+v", top)
	}
	for q, want := range map[float64]time.Duration{0.5: 50 * time.Millisecond, 0.99: 99 * time.Millisecond} {
		if got := report.Quantile(top[0].Buckets, q); got < want || got > want*5/4 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	if report.Quantile(nil, 0.5) != 0 {
		t.Error("a quantile of nothing")
	}
}

func TestReportsAreSafeFromManyGoroutines(t *testing.T) {
	w := newWorld(t, func(c *report.Config) { c.Levels = silent{} })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				w.report.Report(w.record())
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			w.scrape()
		}
	})
	wg.Wait()
	if n, _ := w.sample("istio_requests_total{"); n != "2000" {
		t.Errorf("%s requests", n)
	}
}

func TestReportingAllocatesNothing(t *testing.T) {
	w := newWorld(t, func(c *report.Config) { c.Levels = silent{} })
	q := w.record()
	w.report.Report(q)
	if n := testing.AllocsPerRun(1000, func() { w.report.Report(q) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMetrics(b *testing.B) {
	w := newWorld(b, func(c *report.Config) { c.Levels = silent{} })
	q := w.record()
	b.ReportAllocs()
	for b.Loop() {
		w.report.Report(q)
	}
}

func BenchmarkMetricsAndLine(b *testing.B) {
	w := newWorld(b, func(c *report.Config) { c.Output = io.Discard })
	q := w.record()
	b.ReportAllocs()
	for b.Loop() {
		w.report.Report(q)
	}
}

func BenchmarkMetricsAndFilteredFormat(b *testing.B) {
	w := newWorld(b, func(c *report.Config) { c.Output = io.Discard })
	if err := w.report.Apply(&api.Telemetry{AccessLogs: []*api.AccessLog{{Filter: "response.code >= 200", Format: "%START_TIME% %REQ(:METHOD)% %RESPONSE_CODE%"}}}); err != nil {
		b.Fatal(err)
	}
	q := w.record()
	b.ReportAllocs()
	for b.Loop() {
		w.report.Report(q)
	}
}
