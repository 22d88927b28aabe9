package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/meshctl/explain"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

func TestTopIsTheDifferenceOfTwoLooks(t *testing.T) {
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	look := func(after time.Duration, requests, failed uint64, buckets ...uint64) topAnswer {
		return topAnswer{Time: at.Add(after), Routes: []topRoute{{Service: "shop/api.shop.svc.cluster.local", Route: "r", Protocol: "http", Requests: requests, Failed: failed, Buckets: buckets}}}
	}
	lines := topLines(
		[]topAnswer{look(0, 100, 10, 90, 10), look(0, 50, 0, 50)},
		[]topAnswer{look(2*time.Second, 120, 15, 100, 20), look(2*time.Second, 60, 0, 60)}, "api.shop")
	if len(lines) != 1 {
		t.Fatalf("%+v", lines)
	}
	l := lines[0]
	if l.Rate != 15 || l.Success != 1-5.0/30 || l.P50 != 0.1 || l.P99 != 0.125 {
		t.Errorf("%+v", l)
	}
	// A proxy that began anew counts from nothing.
	lines = topLines([]topAnswer{look(0, 100, 10, 100)}, []topAnswer{look(time.Second, 5, 0, 5)}, "")
	if lines[0].Rate != 5 || lines[0].Success != 1 {
		t.Errorf("%+v", lines[0])
	}
	if lines := topLines([]topAnswer{look(0, 1, 0, 1)}, []topAnswer{look(time.Second, 2, 0, 2)}, "other"); len(lines) != 0 {
		t.Errorf("%+v", lines)
	}
}

func TestTapEndsWithItsLastRequest(t *testing.T) {
	polls := 0
	c := mesh.NewComponent(mesh.Component{Kind: mesh.Waypoint, Name: "shop/l7-1"}, func(_ context.Context, _, path string) ([]byte, error) {
		if !strings.Contains(path, "session=") || !strings.Contains(path, "status=5xx") {
			return nil, errors.New("asked for " + path)
		}
		polls++
		return json.Marshal([]liveRequest{{Path: "/a", Status: 503}, {Path: "/b", Status: 500}})
	})
	var seen []string
	err := tap(t.Context(), []*mesh.Component{c}, map[string][]string{"session": {"x"}, "status": {"5xx"}}, 3, func(r liveRequest) error {
		seen = append(seen, r.Waypoint+r.Path)
		return nil
	})
	if err != nil || strings.Join(seen, " ") != "shop/l7-1/a shop/l7-1/b shop/l7-1/a" {
		t.Errorf("%v %v", seen, err)
	}
	gone := mesh.NewComponent(mesh.Component{Kind: mesh.Waypoint, Name: "shop/l7-2"}, func(context.Context, string, string) ([]byte, error) {
		return nil, errors.New("gone")
	})
	if err := tap(t.Context(), []*mesh.Component{gone}, map[string][]string{"session": {"x"}}, 0, nil); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("all have gone: %v", err)
	}
}

func TestLiveRequestsCannotChangeTheTerminal(t *testing.T) {
	var out bytes.Buffer
	s := &streams{out: &out}
	if err := printLive(s, "wide", liveRequest{
		Service: "shop/api.shop.svc.cluster.local", Port: 80, Method: "GET", Path: "/\x1b[2J", Status: 403, Flags: "UAEX", Policy: "shop/deny", Missed: 2,
		Source: "web", SourceNamespace: "shop", Error: "no\nline",
	}); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	if strings.ContainsAny(got, "\x1b") || strings.Count(got, "\n") != 2 || !strings.Contains(got, "shop/web → api.shop:80") || !strings.Contains(got, "policy=shop/deny") || !strings.HasPrefix(got, "(2 requests were missed here)") {
		t.Errorf("%q", got)
	}
}

func TestServicesAreNamedInManyWays(t *testing.T) {
	for name, want := range map[string]bool{
		"api": true, "shop/api": true, "api.shop": true, "api.shop.svc.cluster.local": true, "shop/api.shop.svc.cluster.local": true,
		"ap": false, "shop": false, "other/api": false,
	} {
		if got := namesService(name, "shop/api.shop.svc.cluster.local"); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestACheckSaysWhatDecided(t *testing.T) {
	var out bytes.Buffer
	p := explanation{w: &out, paint: func(_, text string) string { return text }}
	p.check(&explain.WaypointAnswer{
		Gateway: "shop/l7", Waypoint: "shop/l7-1", Service: "shop/api.shop.svc.cluster.local", Port: 80, Protocol: "HTTP1", Method: "GET", Path: "/x", Allowed: true,
		Policies: []string{"shop/a"}, Policy: "shop/a",
		Route: route.Explanation{Decision: "routed", Rule: "HTTPRoute/shop/r/1", Considered: []route.Considered{
			{Rule: "HTTPRoute/shop/r/0", Failed: "method POST", Got: "GET"}, {Rule: "HTTPRoute/shop/r/1", Conditions: []string{"path under /x"}},
		}},
		Backends: []explain.WaypointBackend{{Backend: "shop/api:80", Weight: 1, Endpoints: 1, Of: 2}},
	})
	want := `GET /x to api.shop.svc.cluster.local:80
√ allowed: sent to api:80

  waypoint   shop/l7 (shop/l7-1), HTTP1, judged as GET /x
  policies   allowed by shop/a
  rules      HTTPRoute/shop/r/0: not method POST (got GET)
             HTTPRoute/shop/r/1: path under /x ← decides
  backends   shop/api:80, weight 1, 1 of 2 endpoints serve
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}

// A rule that answers itself sends nothing on.
func TestACheckSaysWhatARuleAnswersItself(t *testing.T) {
	for want, r := range map[string]route.Explanation{
		"√ answered: redirect 301 to http://web/": {Decision: "routed", Answer: "redirect 301 to http://web/", Status: 301},
		"× answered: direct response 418":         {Decision: "routed", Answer: "direct response 418", Status: 418},
		"× answered: fault of f: 503":             {Decision: "routed", Answer: "fault of f: 503", Status: 503, Faults: []string{"f ends all requests with 503"}},
	} {
		var out bytes.Buffer
		p := explanation{w: &out, paint: func(_, text string) string { return text }}
		p.check(&explain.WaypointAnswer{Service: "shop/api", Port: 80, Method: "GET", Path: "/", Allowed: true, Route: r})
		if !strings.Contains(out.String(), want+"\n") || len(r.Faults) > 0 && !strings.Contains(out.String(), r.Faults[0]) {
			t.Errorf("%s\nwant %s", out.String(), want)
		}
	}
}

func TestWhatAWaypointWouldNotServe(t *testing.T) {
	good := []explain.WaypointBackend{{Weight: 1, Endpoints: 1, Of: 1}}
	for want, a := range map[string]explain.WaypointAnswer{
		"":           {Allowed: true, Route: route.Explanation{Decision: "routed"}, Backends: good},
		"because":    {Reason: "because"},
		"404":        {Allowed: true, Route: route.Explanation{Decision: "not found"}},
		"500":        {Allowed: true, Route: route.Explanation{Decision: "routed", Fault: "bad"}},
		"no backend": {Allowed: true, Route: route.Explanation{Decision: "routed"}, Backends: []explain.WaypointBackend{{Weight: 1, Of: 1}, {Endpoints: 1, Of: 1}}},
		"policies":   {},
	} {
		if got := a.Serves(); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
