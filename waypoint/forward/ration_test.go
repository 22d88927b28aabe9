package forward_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/forward"
)

// limit puts rate limits in force.
func (w *world) limit(limits ...*api.RateLimit) {
	w.t.Helper()
	var resources []xdsclient.Resource
	for _, l := range limits {
		l.Namespace = "shop"
		resources = append(resources, packed(w.t, "shop/"+l.Name, l))
	}
	w.taken(w.mesh.RateLimitHandler().Apply(xdsclient.Delta{Resources: resources}))
}

// found waits for the record of a request that fits: records of requests that follow each
// other come in any order.
func (w *world) found(fits func(forward.Record) bool) (found forward.Record) {
	w.t.Helper()
	w.recorded(func(r forward.Record) bool {
		if fits(r) {
			found = r
			return true
		}
		return false
	})
	return found
}

// limited puts web:80 before those endpoints, with rate limits for all requests and
// for those below /slow.
func limited(t *testing.T, endpoint string, all, slow []string) *world {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, endpoint)
	backends := []*api.Backend{{Service: key("web").String(), Port: 80, Weight: 1}}
	w.serve(&api.Service{
		Namespace: "shop", Hostname: key("web").Hostname, Name: "web", RateLimits: all,
		Ports: []*api.Port{{Port: 80, Protocol: api.Protocol_HTTP1, Routes: []*api.RouteTable{{
			Rules: []*api.Rule{
				{Ref: &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "r", Rule: "slow"}, Backends: backends, RateLimits: slow},
				{Ref: &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "r", Rule: "1"}, Backends: backends},
			},
			Matches: []*api.Match{{Rule: 0, Path: &api.PathMatch{Kind: &api.PathMatch_Prefix{Prefix: "/slow"}}}, {Rule: 1}},
		}}}},
	})
	return w
}

func amount(requests uint64, per time.Duration) []*api.RateLimitAmount {
	return []*api.RateLimitAmount{{Requests: requests, Unit: durationpb.New(per)}}
}

// oneByOne is a client whose connections end with the test.
func oneByOne(t testing.TB) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// ask sends a request, each on a connection of its own.
func (w *world) ask(path string, header ...string) *http.Response {
	w.t.Helper()
	r, err := http.NewRequest("GET", w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := oneByOne(w.t).Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp
}

func TestALimitThatIsNotThereRefuses(t *testing.T) {
	var served int
	w := limited(t, app(t, func(http.ResponseWriter, *http.Request) { served++ }), nil, []string{"shop/late"})
	if got := w.ask("/slow"); got.StatusCode != 503 || served != 0 {
		t.Errorf("%d, %d served", got.StatusCode, served)
	}
	record := w.found(func(r forward.Record) bool { return r.Status == 503 })
	if record.Limit != "shop/late" || record.Flag != "RLSE" {
		t.Errorf("limit %q, flag %q", record.Limit, record.Flag)
	}
	if got := w.ask("/"); got.StatusCode != 200 {
		t.Errorf("a rule without it: %d", got.StatusCode)
	}
	w.limit(&api.RateLimit{Name: "late", Rules: []*api.RateLimitRule{{Name: "all", Local: true, Limits: amount(2, time.Hour)}}})
	if got := w.ask("/slow"); got.StatusCode != 200 {
		t.Errorf("once it is there: %d", got.StatusCode)
	}
}

func TestALimitRefusesAndSaysWhenToComeAgain(t *testing.T) {
	var served int
	w := limited(t, app(t, func(rw http.ResponseWriter, _ *http.Request) { served++ }), []string{"shop/all"}, nil)
	w.limit(&api.RateLimit{Name: "all", Rules: []*api.RateLimitRule{{Name: "per-client", Local: true,
		Key: []*api.RateLimitKey{{Kind: &api.RateLimitKey_Identity{Identity: true}}}, Limits: amount(2, time.Hour)}}})
	first := w.ask("/")
	if first.StatusCode != 200 || first.Header.Get("RateLimit") != `"per-client";r=1;t=1800` || first.Header.Get("RateLimit-Policy") != `"per-client";q=2;w=3600` {
		t.Errorf("%d %v", first.StatusCode, first.Header)
	}
	w.ask("/")
	third := w.ask("/")
	if third.StatusCode != 429 || third.Header.Get("Retry-After") != "1800" || !strings.HasPrefix(third.Header.Get("RateLimit"), `"per-client";r=0;t=`) {
		t.Errorf("%d %v", third.StatusCode, third.Header)
	}
	if served != 2 {
		t.Errorf("%d requests came through, want 2", served)
	}
	record := w.found(func(r forward.Record) bool { return r.Status == 429 })
	if record.Limit != "shop/all/per-client" || record.Flag != "RL" {
		t.Errorf("limit %q, flag %q", record.Limit, record.Flag)
	}
}

func TestCallsOfGRPCGetResourceExhausted(t *testing.T) {
	w := limited(t, app(t, func(http.ResponseWriter, *http.Request) {}), []string{"shop/all"}, nil)
	w.limit(&api.RateLimit{Name: "all", Rules: []*api.RateLimitRule{{Local: true, Limits: amount(1, time.Hour)}}})
	w.ask("/")
	resp := w.ask("/", "Content-Type", "application/grpc")
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "8" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func TestTheStrictestOfSeveralRulesAnswersAndTheOthersTakeNothing(t *testing.T) {
	w := limited(t, app(t, func(http.ResponseWriter, *http.Request) {}), []string{"shop/all"}, []string{"shop/slow", "shop/all"})
	w.limit(&api.RateLimit{Name: "all", Rules: []*api.RateLimitRule{{Name: "wide", Local: true, Limits: amount(3, time.Hour)}}},
		&api.RateLimit{Name: "slow", Rules: []*api.RateLimitRule{{Name: "narrow", Local: true, Limits: amount(1, 24*time.Hour)}}})
	if r := w.ask("/slow/a"); r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("RateLimit"), `"narrow";r=0`) {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	for range 5 {
		if r := w.ask("/slow/a"); r.StatusCode != 429 || r.Header.Get("Retry-After") != "86400" {
			t.Errorf("%d %v", r.StatusCode, r.Header)
		}
	}
	for i, want := range []int{200, 200, 429} {
		if r := w.ask("/"); r.StatusCode != want {
			t.Errorf("request %d of the others: %d, want %d", i, r.StatusCode, want)
		}
	}
}

func TestShadowRulesTellAndRefuseNothing(t *testing.T) {
	w := limited(t, app(t, func(http.ResponseWriter, *http.Request) {}), []string{"shop/all"}, nil)
	w.limit(&api.RateLimit{Name: "all", Shadow: true, Rules: []*api.RateLimitRule{{Name: "r", Local: true, Limits: amount(1, time.Hour)}}})
	for range 3 {
		if r := w.ask("/"); r.StatusCode != 200 || r.Header.Get("RateLimit") != "" {
			t.Errorf("%d %v", r.StatusCode, r.Header)
		}
	}
	if record := w.found(func(r forward.Record) bool { return r.Shadow != "" }); record.Shadow != "shop/all/r" || record.Limit != "" {
		t.Errorf("limit %q, shadow %q", record.Limit, record.Shadow)
	}
}

func TestCostsComeFromRequestsAndResponses(t *testing.T) {
	w := limited(t, app(t, func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("X-Cost", "60") }), []string{"shop/asked"}, []string{"shop/told"})
	w.limit(&api.RateLimit{Name: "asked", Rules: []*api.RateLimitRule{{Local: true, Limits: amount(100, time.Hour), Cost: &api.RateLimitCost{RequestHeader: "x-weight", Default: 2}}}},
		&api.RateLimit{Name: "told", Rules: []*api.RateLimitRule{{Local: true, Limits: amount(100, time.Hour), Cost: &api.RateLimitCost{ResponseHeader: "x-cost"}}}})
	for i, want := range []struct {
		path, weight string
		status       int
		left         string
	}{
		{"/", "", 200, `"0";r=98`}, {"/", "50", 200, `"0";r=48`}, {"/", "49", 429, ""}, {"/", "7", 200, `"0";r=41`},
		{"/slow", "", 200, ""}, {"/slow", "", 200, ""}, {"/slow", "", 429, ""},
	} {
		r := w.ask(want.path, "X-Weight", want.weight)
		if r.StatusCode != want.status || !strings.HasPrefix(r.Header.Get("RateLimit"), want.left) {
			t.Errorf("request %d: %d %v", i, r.StatusCode, r.Header)
		}
	}
}

func TestALimitThatCannotBeCountedFailsAsItsPolicySays(t *testing.T) {
	for _, c := range []struct {
		open bool
		want int
	}{{true, 200}, {false, 503}} {
		w := limited(t, app(t, func(http.ResponseWriter, *http.Request) {}), []string{"shop/all"}, nil)
		w.limit(&api.RateLimit{Name: "all", Fault: "its author was in a hurry", FailOpen: c.open})
		if r := w.ask("/"); r.StatusCode != c.want {
			t.Errorf("open %v: %d, want %d", c.open, r.StatusCode, c.want)
		}
		if record := w.found(func(forward.Record) bool { return true }); !c.open && (record.Flag != "RLSE" || record.Limit != "shop/all") {
			t.Errorf("flag %q, limit %q", record.Flag, record.Limit)
		}
	}
}

func TestARefusedRequestIsNotRead(t *testing.T) {
	w := limited(t, app(t, func(http.ResponseWriter, *http.Request) {}), []string{"shop/all"}, nil)
	w.limit(&api.RateLimit{Name: "all", Rules: []*api.RateLimitRule{{Local: true, Limits: amount(1, time.Hour)}}})
	w.ask("/")
	r, _ := http.NewRequest("POST", w.url+"/", strings.NewReader(strings.Repeat("x", 1<<20)))
	r.Header.Set("Expect", "100-continue")
	resp, err := oneByOne(w.t).Do(r)
	if err != nil || resp.StatusCode != 429 {
		t.Fatalf("%v, %v", resp, err)
	}
	_ = resp.Body.Close()
	if record := w.found(func(r forward.Record) bool { return r.Status == 429 }); record.Received != 0 {
		t.Errorf("%d bytes were read", record.Received)
	}
}
