package forward_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
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

// versions runs a test with both versions on the client's side.
func versions(t *testing.T, f func(t *testing.T, c *http.Client)) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("client HTTP2 %v", two), func(t *testing.T) { f(t, httpClient(t, two)) })
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("x-proto", r.Proto)
	w.Header().Set("x-client", r.Header.Get("x-forwarded-client-cert"))
	w.Header().Set("x-request", r.Header.Get("x-request-id"))
	w.Header().Set("x-host", r.Host)
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
}

func TestRequestsReachTheServiceItself(t *testing.T) {
	for _, protocol := range []apiworkload.AppProtocol{apiworkload.AppProtocol_HTTP11, apiworkload.AppProtocol_HTTP2} {
		t.Run(protocol.String(), func(t *testing.T) {
			versions(t, func(t *testing.T, c *http.Client) {
				w := newWorld(t)
				w.service("web", protocol, app(t, echo))
				w.routes()
				r, body := get(t, c, w.url+"/a/./b?x=1")
				if r.StatusCode != 200 || body != "GET /a/b?x=1 " {
					t.Errorf("%d %q", r.StatusCode, body)
				}
				if got := r.Header.Get("x-client"); got != "By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/client" {
					t.Errorf("client %q", got)
				}
				if len(r.Header.Get("x-request")) != 36 {
					t.Errorf("request id %q", r.Header.Get("x-request"))
				}
				w.recorded(func(r forward.Record) bool {
					return r.Status == 200 && r.Attempts == 1 && r.Backend == "shop/web.shop.svc:80" && r.Sent == int64(len(body)) && r.Err == nil
				})
			})
		})
	}
}

func TestContentPassesBothWays(t *testing.T) {
	versions(t, func(t *testing.T, c *http.Client) {
		for _, protocol := range []apiworkload.AppProtocol{apiworkload.AppProtocol_HTTP11, apiworkload.AppProtocol_HTTP2} {
			w := newWorld(t)
			w.service("web", protocol, app(t, func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				_, _ = io.Copy(w, r.Body)
			}))
			w.routes()
			for _, size := range []int{1, 1000, 100_000, 5_000_000} {
				for _, known := range []bool{true, false} {
					content := make([]byte, size)
					_, _ = rand.Read(content)
					var body io.Reader = bytes.NewReader(content)
					if !known {
						body = struct{ io.Reader }{body}
					}
					r, err := c.Post(w.url, "application/octet-stream", body)
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(r.Body)
					r.Body.Close()
					if err != nil || !bytes.Equal(got, content) {
						t.Errorf("%v, %d bytes, known %v: %d bytes came back, %v", protocol, size, known, len(got), err)
					}
				}
			}
		}
	})
}

// The events of a stream come one by one, while the response has no end.
func TestEventsPassAsTheyCome(t *testing.T) {
	versions(t, func(t *testing.T, c *http.Client) {
		w := newWorld(t)
		next := make(chan bool)
		w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
			for <-next {
				fmt.Fprint(w, "data: x\n\n")
				_ = http.NewResponseController(w).Flush()
			}
		}))
		w.routes()
		go func() { next <- true }()
		r, err := c.Get(w.url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		buf := make([]byte, 9)
		for i := range 3 {
			if i > 0 {
				next <- true
			}
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				t.Fatal(err)
			}
		}
		next <- false
		if rest, err := io.ReadAll(r.Body); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
	})
}

func TestTrailersPass(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP2, app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("trailer", "x-sum")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("x-sum", r.Trailer.Get("x-in"))
	}))
	w.routes()
	q, _ := http.NewRequest("POST", w.url, struct{ io.Reader }{strings.NewReader("abc")})
	q.Trailer = http.Header{"X-In": {"42"}}
	r, err := httpClient(t, true).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != "abc" || r.Trailer.Get("x-sum") != "42" {
		t.Errorf("%q %v %v", body, err, r.Trailer)
	}
}

func TestRoutesDecide(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, echo))
	w.service("other", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "other ", r.URL.Path, r.Header.Get("x-set"))
	}))
	table := &api.RouteTable{
		Rules: []*api.Rule{
			{Ref: &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "r", Rule: "0"}, Backends: []*api.Backend{backend("other", 1)},
				Filters: []*api.Filter{
					{Kind: &api.Filter_RequestHeaders{RequestHeaders: &api.HeaderChange{Set: []*api.HeaderField{{Name: "x-set", Value: "1"}}}}},
					{Kind: &api.Filter_Rewrite{Rewrite: &api.Rewrite{Path: &api.PathChange{Kind: &api.PathChange_Prefix{Prefix: "/new"}}}}},
				}},
			{Ref: &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "r", Rule: "1"},
				Filters: []*api.Filter{{Kind: &api.Filter_Redirect{Redirect: &api.Redirect{Hostname: "example.org", Status: 301}}}}},
			{Ref: &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "r", Rule: "2"}, Fault: "the service is not there"},
		},
		Matches: []*api.Match{
			{Rule: 0, Path: &api.PathMatch{Kind: &api.PathMatch_Prefix{Prefix: "/old"}}},
			{Rule: 1, Path: &api.PathMatch{Kind: &api.PathMatch_Exact{Exact: "/moved"}}},
			{Rule: 2, Path: &api.PathMatch{Kind: &api.PathMatch_Exact{Exact: "/broken"}}},
		},
	}
	w.routes(table)
	c := httpClient(t, false)
	if r, body := get(t, c, w.url+"/old/x"); r.StatusCode != 200 || body != "other /new/x1" {
		t.Errorf("%d %q", r.StatusCode, body)
	}
	if r, _ := get(t, c, w.url+"/moved"); r.StatusCode != 301 || !strings.HasPrefix(r.Header.Get("location"), "http://example.org") {
		t.Errorf("%d %q", r.StatusCode, r.Header.Get("location"))
	}
	if r, _ := get(t, c, w.url+"/broken"); r.StatusCode != 500 {
		t.Errorf("%d", r.StatusCode)
	}
	w.recorded(func(r forward.Record) bool {
		return r.Detail == "the service is not there" && r.Route == "HTTPRoute/shop/r/2"
	})
	if r, _ := get(t, c, w.url+"/nothing"); r.StatusCode != 404 {
		t.Errorf("%d", r.StatusCode)
	}
	// Of another namespace's route our client hears nothing.
	w.routes(&api.RouteTable{ClientNamespace: "far", Rules: table.Rules, Matches: table.Matches})
	if r, body := get(t, c, w.url+"/moved"); r.StatusCode != 200 || body != "GET /moved " {
		t.Errorf("%d %q", r.StatusCode, body)
	}
}

func TestWeights(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"v1", "v2"} {
		w.service(name, apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) }))
	}
	w.service("web", apiworkload.AppProtocol_HTTP11)
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("v1", 70), backend("v2", 30), backend("v3", 0)}}))
	c, seen := httpClient(t, false), map[string]int{}
	for range 500 {
		_, body := get(t, c, w.url)
		seen[body]++
	}
	if seen["v1"] < 345 || seen["v1"] > 355 || seen["v1"]+seen["v2"] != 500 {
		t.Errorf("%v", seen)
	}
}

// Endpoints are chosen for each request, and one that does not answer is left for
// another without the client's notice.
func TestAnEndpointThatIsGoneIsLeftForAnother(t *testing.T) {
	w := newWorld(t)
	gone := nowhere(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, gone, app(t, echo), gone)
	w.routes()
	c := httpClient(t, false)
	for range 50 {
		if r, _ := get(t, c, w.url); r.StatusCode != 200 {
			t.Fatal(r.StatusCode)
		}
		r, err := c.Post(w.url, "text/plain", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if string(body) != "POST / abc" {
			t.Fatalf("%q", body)
		}
	}
}

func TestRetriesByStatus(t *testing.T) {
	w := newWorld(t)
	var asked atomic.Int64
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%3 != 0 {
			w.WriteHeader(502)
		}
	}))
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Retry: &api.Retry{Attempts: 2, Codes: []uint32{502}}}))
	c := httpClient(t, false)
	if r, _ := get(t, c, w.url); r.StatusCode != 200 || asked.Load() != 3 {
		t.Errorf("%d after %d", r.StatusCode, asked.Load())
	}
	w.recorded(func(r forward.Record) bool { return r.Attempts == 3 })
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Retry: &api.Retry{Attempts: 0}}))
	if r, _ := get(t, c, w.url); r.StatusCode != 502 || asked.Load() != 4 {
		t.Errorf("%d after %d", r.StatusCode, asked.Load())
	}
}

func TestTimeouts(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release) })
	for _, timeouts := range []*api.Timeouts{{Request: durationpb.New(50 * time.Millisecond)}, {Backend: durationpb.New(50 * time.Millisecond)}} {
		w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Timeouts: timeouts}))
		if r, _ := get(t, httpClient(t, false), w.url); r.StatusCode != 504 {
			t.Errorf("%v: %d", timeouts, r.StatusCode)
		}
		w.recorded(func(r forward.Record) bool { return r.Flag == "UT" })
	}
}

// A client that goes away ends the work for it.
func TestAClientThatGoesEndsTheRequest(t *testing.T) {
	versions(t, func(t *testing.T, c *http.Client) {
		w := newWorld(t)
		began, ended := make(chan struct{}), make(chan struct{})
		w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			close(ended)
		}))
		w.routes()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-began; cancel() }()
		q, _ := http.NewRequestWithContext(ctx, "GET", w.url, nil)
		if r, err := c.Do(q); err == nil {
			r.Body.Close()
			t.Error("answered")
		}
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the application was not told")
		}
	})
}

// A response that breaks off never passes for a whole one.
func TestABrokenResponseBreaksTheClients(t *testing.T) {
	for _, protocol := range []apiworkload.AppProtocol{apiworkload.AppProtocol_HTTP11, apiworkload.AppProtocol_HTTP2} {
		versions(t, func(t *testing.T, c *http.Client) {
			w := newWorld(t)
			w.service("web", protocol, app(t, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, strings.Repeat("x", 10_000))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}))
			w.routes()
			r, err := c.Get(w.url)
			if err != nil {
				return // it may break before its head is there
			}
			defer r.Body.Close()
			if body, err := io.ReadAll(r.Body); err == nil {
				t.Errorf("%v: %d bytes pass for the whole", protocol, len(body))
			}
		})
	}
}

func TestPoliciesRefuse(t *testing.T) {
	w := newWorld(t)
	var reached atomic.Int64
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	service := &api.Service{Namespace: "shop", Hostname: key("web").Hostname, Name: "web", Ports: []*api.Port{{Port: 80, Protocol: api.Protocol_HTTP1}}, Policies: []string{"shop/p"}}
	w.serve(service)
	c := httpClient(t, false)
	// A policy that has not come yet might be one that denies.
	if r, _ := get(t, c, w.url+"/a"); r.StatusCode != 403 {
		t.Errorf("without the policy: %d", r.StatusCode)
	}
	w.taken(w.mesh.PolicyHandler().Apply(xdsclient.Delta{Resources: []xdsclient.Resource{packed(t, "shop/p", &api.Policy{
		Namespace: "shop", Name: "p", Action: api.Action_DENY, Rules: []*api.PolicyRule{{To: []*api.Operation{{Paths: []string{"/admin*"}}}}},
	})}}))
	if r, _ := get(t, c, w.url+"/a"); r.StatusCode != 200 {
		t.Errorf("/a: %d", r.StatusCode)
	}
	for _, path := range []string{"/admin", "/x/../admin/y", "//admin", "/%61dmin", "/x/..%2fadmin"} {
		if r, body := get(t, c, w.url+path); r.StatusCode != 403 || strings.Contains(body, "shop/p") {
			t.Errorf("%s: %d %q", path, r.StatusCode, body)
		}
	}
	if reached.Load() != 1 {
		t.Errorf("%d requests reached the application", reached.Load())
	}
	w.recorded(func(r forward.Record) bool {
		return r.Flag == "UAEX" && r.Path == "/admin" && strings.Contains(r.Err.Error(), "shop/p")
	})
}

func TestTokensAreChecked(t *testing.T) {
	w := newWorld(t)
	var reached atomic.Int64
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	w.serve(&api.Service{
		Namespace: "shop", Hostname: key("web").Hostname, Name: "web", Authentications: []string{"shop/a"},
		Ports: []*api.Port{{Port: 80, Protocol: api.Protocol_HTTP1}},
	})
	c := httpClient(t, false)
	if r, _ := get(t, c, w.url); r.StatusCode != 503 {
		t.Errorf("before the rules have come: %d", r.StatusCode)
	}
	w.taken(w.mesh.AuthenticationHandler().Apply(xdsclient.Delta{Resources: []xdsclient.Resource{packed(t, "shop/a", &api.Authentication{
		Namespace: "shop", Name: "a", Rules: []*api.TokenRule{{Issuer: "https://issuer", Keys: &api.TokenRule_Jwks{Jwks: `{"keys":[]}`}}},
	})}}))
	if r, _ := get(t, c, w.url); r.StatusCode != 200 {
		t.Errorf("without a token: %d", r.StatusCode)
	}
	q, _ := http.NewRequest("GET", w.url, nil)
	// {"alg":"RS256"}, {"iss":"https://issuer"}, and no signature of anybody.
	q.Header.Set("authorization", "Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3VlciJ9.c2ln")
	r, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 401 || r.Header.Get("www-authenticate") == "" {
		t.Errorf("with a forged token: %d %v", r.StatusCode, r.Header)
	}
	if reached.Load() != 1 {
		t.Errorf("%d requests reached the application", reached.Load())
	}
}

// A client stays at its endpoint, also when weights change, and others are spread.
func TestSessionsStay(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"v1", "v2"} {
		w.service(name, apiworkload.AppProtocol_HTTP11,
			app(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, "-0") }),
			app(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, "-1") }))
	}
	w.service("web", apiworkload.AppProtocol_HTTP11)
	weigh := func(v1, v2 uint32) {
		w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("v1", v1), backend("v2", v2)}, SessionAffinity: &api.SessionAffinity{Kind: &api.SessionAffinity_Cookie{Cookie: "sid"}}}))
	}
	weigh(1, 1)
	c := httpClient(t, false)
	first, at := get(t, c, w.url)
	cookies := first.Cookies()
	if len(cookies) != 1 || cookies[0].Name != "sid" {
		t.Fatalf("cookies %v", cookies)
	}
	for i := range 50 {
		if i == 25 {
			weigh(1, 99)
		}
		q, _ := http.NewRequest("GET", w.url, nil)
		q.AddCookie(cookies[0])
		r, err := c.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if string(body) != at {
			t.Fatalf("request %d went to %s, the first to %s", i, body, at)
		}
	}
	weigh(1, 1)
	seen := map[string]bool{}
	for range 100 {
		_, body := get(t, c, w.url)
		seen[body] = true
	}
	if len(seen) < 3 {
		t.Errorf("others went to %v", seen)
	}
}

func TestMirror(t *testing.T) {
	w := newWorld(t)
	copies := make(chan string, 10)
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, echo))
	w.service("copy", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		copies <- r.Method + " " + string(body)
	}))
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Filters: []*api.Filter{
		{Kind: &api.Filter_Mirror{Mirror: &api.Mirror{Backend: backend("copy", 1)}}},
	}}))
	r, err := httpClient(t, false).Post(w.url, "text/plain", strings.NewReader("abc"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	select {
	case got := <-copies:
		if got != "POST abc" {
			t.Error(got)
		}
	case <-time.After(patience):
		t.Error("no copy came")
	}
}

func TestNobodyToAskIsSaidSo(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11)
	w.routes()
	if r, body := get(t, httpClient(t, false), w.url); r.StatusCode != 503 || body != "no healthy upstream\n" {
		t.Errorf("%d %q", r.StatusCode, body)
	}
	w.recorded(func(r forward.Record) bool { return r.Flag == "UH" })
	// gRPC has its own fields for that.
	q, _ := http.NewRequest("POST", w.url+"/pkg.Service/Method", nil)
	q.Header.Set("content-type", "application/grpc")
	r, err := httpClient(t, true).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 200 || r.Header.Get("grpc-status") != "14" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	w.recorded(func(r forward.Record) bool { return r.GRPC == 14 })
}
