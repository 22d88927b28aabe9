package forward_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/forward"
)

// destine says how requests are sent to a service.
func (w *world) destine(name string, d *api.Destination) {
	w.t.Helper()
	d.Namespace, d.Hostname = "shop", key(name).Hostname
	w.taken(w.mesh.DestinationHandler().Apply(xdsclient.Delta{Resources: []xdsclient.Resource{packed(w.t, key(name).String(), d)}}))
}

// named is an app that says who it is.
func named(t *testing.T, name string) string {
	return app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-proto", r.Proto)
		fmt.Fprint(w, name)
	})
}

func uid(name string, i int) string { return fmt.Sprintf("Kubernetes//Pod/shop/%s-%d", name, i) }

func TestSubsetsTakeTheirRequests(t *testing.T) {
	w := newWorld(t)
	c := httpClient(t, false)
	w.service("web", apiworkload.AppProtocol_HTTP11, named(t, "v1"), named(t, "v2"))
	b := backend("web", 1)
	b.Subset = "new"
	w.routes(rule(&api.Rule{Backends: []*api.Backend{b}}))
	if r, body := get(t, c, w.url); r.StatusCode != 503 {
		t.Errorf("a subset that is not there: %d %q", r.StatusCode, body)
	}
	w.destine("web", &api.Destination{Subsets: []*api.Subset{{Name: "new", Workloads: []string{uid("web", 1)}}}})
	for range 5 {
		if _, body := get(t, c, w.url); body != "v2" {
			t.Errorf("%q", body)
		}
	}
	w.destine("web", &api.Destination{Subsets: []*api.Subset{{Name: "new", Workloads: []string{uid("web", 0)}}}})
	for range 5 {
		if _, body := get(t, c, w.url); body != "v1" {
			t.Errorf("after the change: %q", body)
		}
	}
}

func TestRequestsStickByWhatTheyCarry(t *testing.T) {
	w := newWorld(t)
	c := httpClient(t, false)
	w.service("web", apiworkload.AppProtocol_HTTP11, named(t, "0"), named(t, "1"), named(t, "2"))
	w.routes()
	w.destine("web", &api.Destination{Settings: &api.DestinationSettings{Balancing: &api.Balancing{
		Balancer: api.Balancer_MAGLEV, Hash: []*api.HashKey{
			{Kind: &api.HashKey_Header{Header: "x-user"}},
			{Kind: &api.HashKey_Cookie{Cookie: &api.HashCookie{Name: "sid", HasTtl: true, Ttl: durationpb.New(time.Minute)}}},
		},
	}}})
	ask := func(field, value string) (string, *http.Response) {
		r, err := http.NewRequest("GET", w.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(field, value)
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body), resp
	}
	seen := map[string]bool{}
	for i := range 20 {
		user := fmt.Sprint("user", i)
		first, r := ask("x-user", user)
		seen[first] = true
		if r.Header.Get("set-cookie") != "" {
			t.Error("a cookie although the request has a key")
		}
		if again, _ := ask("x-user", user); again != first {
			t.Errorf("%s: %s and %s", user, first, again)
		}
	}
	if len(seen) != 3 {
		t.Errorf("endpoints %v", seen)
	}
	first, r := ask("x-other", "")
	cookie, _, _ := strings.Cut(r.Header.Get("set-cookie"), ";")
	if !strings.HasPrefix(cookie, "sid=") {
		t.Fatalf("cookie %q", r.Header.Get("set-cookie"))
	}
	for range 5 {
		if again, r := ask("cookie", cookie); again != first || r.Header.Get("set-cookie") != "" {
			t.Errorf("%s and %s, %q", first, again, r.Header.Get("set-cookie"))
		}
	}
}

func TestSettingsChangeInPlace(t *testing.T) {
	w := newWorld(t)
	c := httpClient(t, false)
	var bad atomic.Bool
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		if bad.Load() {
			w.WriteHeader(500)
		}
	}), named(t, "good"))
	w.routes()
	outlier := &api.Outlier{Consecutive_5Xx: 1, MaxEjectedPercent: 100, BaseEjection: durationpb.New(time.Hour)}
	w.destine("web", &api.Destination{Settings: &api.DestinationSettings{Outlier: outlier}})
	get(t, c, w.url)
	bad.Store(true)
	for failed := false; !failed; {
		r, _ := get(t, c, w.url)
		failed = r.StatusCode == 500
	}
	ejected := func() uint64 { return w.mesh.Backends()[0].Ejections["consecutive-5xx"] }
	if ejected() != 1 {
		t.Fatalf("%d ejections", ejected())
	}
	w.destine("web", &api.Destination{Settings: &api.DestinationSettings{Outlier: outlier, Balancing: &api.Balancing{Balancer: api.Balancer_ROUND_ROBIN}}})
	status := w.mesh.Backends()[0]
	if status.Balancer != "round-robin" || ejected() != 1 {
		t.Errorf("%+v", status)
	}
	for range 6 {
		if r, body := get(t, c, w.url); r.StatusCode != 200 || body != "good" {
			t.Errorf("%d %q: the ejected endpoint is back", r.StatusCode, body)
		}
	}
	w.taken(w.mesh.DestinationHandler().Apply(xdsclient.Delta{Removed: []string{key("web").String()}}))
	if status := w.mesh.Backends()[0]; status.Balancer != "least-request" {
		t.Errorf("%+v", status)
	}
}

func TestWhatCannotBeDoneAnswers503(t *testing.T) {
	w := newWorld(t)
	c := httpClient(t, false)
	w.service("web", apiworkload.AppProtocol_HTTP11, named(t, "web"))
	w.routes()
	for name, s := range map[string]*api.DestinationSettings{
		"said":      {Fault: "a secret is missing"},
		"balancer":  {Balancing: &api.Balancing{Balancer: 77}},
		"table":     {Balancing: &api.Balancing{Balancer: api.Balancer_MAGLEV, TableSize: 4}},
		"key":       {Balancing: &api.Balancing{Hash: []*api.HashKey{{}}}},
		"percent":   {PanicPercent: 101},
		"check":     {HealthCheck: &api.HealthCheck{}},
		"authority": {Tls: &api.Tls{CaCertificates: "nothing"}},
		"retry":     {Retry: &api.Retry{Conditions: []string{"always"}}},
		"failover":  {Balancing: &api.Balancing{Locality: &api.LocalityChoice{FailoverPriority: []string{"colour"}}}},
		"priority":  {Adaptive: &api.Adaptive{Priorities: []*api.PriorityRule{{Headers: []*api.FieldMatch{{Name: "x"}}}}}},
	} {
		w.destine("web", &api.Destination{Settings: s})
		if r, _ := get(t, c, w.url); r.StatusCode != 503 {
			t.Errorf("%s: %d", name, r.StatusCode)
		}
	}
	w.destine("web", &api.Destination{})
	if r, _ := get(t, c, w.url); r.StatusCode != 200 {
		t.Errorf("mended: %d", r.StatusCode)
	}
}

func TestPoolsSpeakAsTheDestinationSays(t *testing.T) {
	w := newWorld(t)
	c := httpClient(t, false)
	w.service("web", apiworkload.AppProtocol_HTTP11, named(t, "web"))
	w.routes()
	for _, upgrade := range []bool{false, true} {
		w.destine("web", &api.Destination{Ports: []*api.DestinationPort{{Port: 80, Settings: &api.DestinationSettings{Pool: &api.Pool{Upgrade: upgrade}}}}})
		want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[upgrade]
		if r, _ := get(t, c, w.url); r.Header.Get("x-proto") != want {
			t.Errorf("upgrade %v: %s", upgrade, r.Header.Get("x-proto"))
		}
	}
}

func TestApplicationsWithTLS(t *testing.T) {
	for _, protocol := range []apiworkload.AppProtocol{apiworkload.AppProtocol_HTTP11, apiworkload.AppProtocol_HTTP2} {
		w := newWorld(t)
		c := httpClient(t, false)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("x-proto", r.Proto)
			w.Header().Set("x-name", r.TLS.ServerName)
		}))
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		w.service("web", protocol, strings.TrimPrefix(s.URL, "https://"))
		w.routes()
		ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
		for _, test := range []struct {
			name string
			tls  *api.Tls
			ok   bool
		}{
			{"right", &api.Tls{ServerName: "example.com", CaCertificates: ca}, true},
			{"one of the names", &api.Tls{ServerName: "web.shop", CaCertificates: ca, SubjectNames: []string{"a.example", "example.com"}}, true},
			{"another name", &api.Tls{ServerName: "example.org", CaCertificates: ca}, false},
			{"none of the names", &api.Tls{ServerName: "example.com", CaCertificates: ca, SubjectNames: []string{"spiffe://a/b"}}, false},
			{"the system's roots", &api.Tls{ServerName: "example.com"}, false},
			{"anybody", &api.Tls{ServerName: "web.shop", Insecure: true}, true},
		} {
			w.destine("web", &api.Destination{Settings: &api.DestinationSettings{Tls: test.tls}})
			r, body := get(t, c, w.url)
			switch {
			case test.ok && (r.StatusCode != 200 || r.Header.Get("x-name") != test.tls.ServerName ||
				(r.Header.Get("x-proto") == "HTTP/2.0") != (protocol == apiworkload.AppProtocol_HTTP2)):
				t.Errorf("%v, %s: %d %q %v", protocol, test.name, r.StatusCode, body, r.Header)
			case !test.ok && (r.StatusCode != 503 || !strings.Contains(body, "TLS")):
				t.Errorf("%v, %s: %d %q", protocol, test.name, r.StatusCode, body)
			}
		}
		w.recorded(func(r forward.Record) bool {
			return r.Status == 503 && r.Flag == "UF" && r.Err != nil && strings.Contains(r.Err.Error(), "not for example.org")
		})
		// A server that does not speak TLS.
		w = newWorld(t)
		w.service("web", protocol, named(t, "plain"))
		w.routes()
		w.destine("web", &api.Destination{Settings: &api.DestinationSettings{Tls: &api.Tls{Insecure: true}}})
		if r, body := get(t, c, w.url); r.StatusCode != 503 {
			t.Errorf("plain: %d %q", r.StatusCode, body)
		}
	}
}

func TestDefaultsOfTheDestination(t *testing.T) {
	w := newWorld(t)
	c := httpClient(t, false)
	var calls atomic.Int32
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1)%2 == 1 {
			w.WriteHeader(418)
		}
	}))
	w.routes()
	w.destine("web", &api.Destination{Settings: &api.DestinationSettings{
		Retry:           &api.Retry{Attempts: 1, Codes: []uint32{418}, Conditions: []string{"retriable-status-codes"}},
		SessionAffinity: &api.SessionAffinity{Kind: &api.SessionAffinity_Cookie{Cookie: "bound"}},
	}})
	r, _ := get(t, c, w.url)
	if r.StatusCode != 200 || calls.Load() != 2 {
		t.Errorf("%d after %d calls", r.StatusCode, calls.Load())
	}
	if !strings.HasPrefix(r.Header.Get("set-cookie"), "bound=") {
		t.Errorf("cookie %q", r.Header.Get("set-cookie"))
	}
}

func TestChecksLeaveEndpointsOut(t *testing.T) {
	w := newWorld(t)
	c := httpClient(t, false)
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && r.Host == "checked.example" {
			w.WriteHeader(404)
			return
		}
		fmt.Fprint(w, "ill")
	}), named(t, "well"))
	w.routes()
	w.destine("web", &api.Destination{Settings: &api.DestinationSettings{HealthCheck: &api.HealthCheck{
		Kind: &api.HealthCheck_Http{Http: &api.HttpCheck{Path: "/healthz", Host: "checked.example"}}, Interval: durationpb.New(20 * time.Millisecond),
	}}})
	get(t, c, w.url)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		failing := 0
		for _, target := range w.mesh.Backends()[0].Targets {
			if target.Failing {
				failing++
			}
		}
		if failing == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no endpoint fails its checks")
		}
	}
	for range 10 {
		if _, body := get(t, c, w.url); body != "well" {
			t.Errorf("%q", body)
		}
	}
}
