package forward_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/extauthz"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// authorizer is a gRPC server of Envoy's API that consents to those who bring x-key, and
// calls them by it.
type authorizer struct {
	authv3.UnimplementedAuthorizationServer
	asked atomic.Int64
}

func (a *authorizer) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	a.asked.Add(1)
	h := r.GetAttributes().GetRequest().GetHttp()
	if h == nil || h.GetHeaders()["x-key"] == "" || strings.Contains(h.GetBody(), "evil") {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: 401}, Body: "who are you?",
			Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "www-authenticate", Value: "Key"}}},
		}}}, nil
	}
	return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers:              []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-user", Value: "user-" + h.GetHeaders()["x-key"]}}},
		HeadersToRemove:      []string{"x-key"},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-seen", Value: r.GetAttributes().GetSource().GetPrincipal()}}},
	}}}, nil
}

func startAuthorizer(t *testing.T) (*authorizer, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, s := &authorizer{}, grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, a)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return a, ln.Addr().String()
}

// policy puts policies of the service in force.
func (w *world) policy(policies ...*api.Policy) {
	w.t.Helper()
	var names []string
	for _, p := range policies {
		p.Namespace = "shop"
		names = append(names, "shop/"+p.Name)
		w.taken(w.mesh.PolicyHandler().Apply(xdsclient.Delta{Resources: []xdsclient.Resource{packed(w.t, "shop/"+p.Name, p)}}))
	}
	w.serve(&api.Service{
		Namespace: "shop", Hostname: key("web").Hostname, Name: "web", Ports: []*api.Port{{Port: 80, Protocol: api.Protocol_HTTP1}}, Policies: names,
	})
}

// userEcho answers with who the authorizer said the user is, and the content.
func userEcho(t *testing.T) string {
	return app(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "user=%s key=%s %d %s", r.Header.Get("X-User"), r.Header.Get("X-Key"), len(body), body[:min(len(body), 10)])
	})
}

func do(t *testing.T, c *http.Client, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(got)
}

func custom(auth *api.ExternalAuth) *api.Policy {
	return &api.Policy{Name: "ask", Action: api.Action_CUSTOM, Provider: "authz", ExternalAuth: auth, Rules: []*api.PolicyRule{{
		To: []*api.Operation{{Paths: []string{"/private*"}}},
	}}}
}

func TestACustomPolicyAsksItsProvider(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, userEcho(t))
	a, at := startAuthorizer(t)
	w.service("authz", apiworkload.AppProtocol_GRPC, at)
	w.policy(custom(&api.ExternalAuth{Backend: backend("authz", 1), Grpc: true, MaxBodyBytes: 100}))
	for _, two := range []bool{false, true} {
		c := httpClient(t, two)
		res, body := do(t, c, "POST", w.url+"/private/1", "hello", "x-key", "7", "x-user", "forged")
		if res.StatusCode != 200 || body != "user=user-7 key= 5 hello" || res.Header.Get("x-seen") != client.String() {
			t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
		}
		res, body = do(t, c, "GET", w.url+"/private/1", "")
		if res.StatusCode != 401 || body != "who are you?" || res.Header.Get("www-authenticate") != "Key" {
			t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
		}
		// The content is part of the question, and one that is too long for it is refused.
		if res, _ = do(t, c, "POST", w.url+"/private/1", "evil", "x-key", "7"); res.StatusCode != 401 {
			t.Errorf("%d", res.StatusCode)
		}
		if res, _ = do(t, c, "POST", w.url+"/private/1", strings.Repeat("x", 101), "x-key", "7"); res.StatusCode != 413 {
			t.Errorf("%d", res.StatusCode)
		}
		// A second spelling of the path is the same path.
		for _, path := range []string{"//private/1", "/x/../private/1", "/%70rivate/1", "/x/..%2fprivate/1"} {
			if res, _ = do(t, c, "GET", w.url+path, ""); res.StatusCode != 401 {
				t.Errorf("%s: %d", path, res.StatusCode)
			}
		}
		before := a.asked.Load()
		if res, body = do(t, c, "GET", w.url+"/public", "", "x-user", "any"); res.StatusCode != 200 || body != "user=any key= 0 " || a.asked.Load() != before {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	}
	w.recorded(func(r forward.Record) bool {
		return r.Status == 401 && r.Flag == "UAEX" && r.Policy == "shop/ask" && r.Err != nil
	})
}

func TestACallIsRefusedWithTheBeginningOfAPage(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, userEcho(t))
	w.service("authz", apiworkload.AppProtocol_HTTP11, app(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(403)
		_, _ = io.WriteString(rw, strings.Repeat("%", 100<<10))
	}))
	w.policy(custom(&api.ExternalAuth{Backend: backend("authz", 1)}))
	res, _ := do(t, httpClient(t, true), "POST", w.url+"/private/1", "", "content-type", "application/grpc")
	if message := res.Header.Get("grpc-message"); res.Header.Get("grpc-status") != "7" || message != strings.Repeat("%25", 1<<10) {
		t.Errorf("status %q, a message of %d bytes", res.Header.Get("grpc-status"), len(message))
	}
	if _, body := do(t, httpClient(t, true), "GET", w.url+"/private/1", ""); len(body) != 100<<10 {
		t.Errorf("a page of %d bytes", len(body))
	}
}

func TestContentIsSentOnAfterAPartOfItWasAskedAbout(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, userEcho(t))
	_, at := startAuthorizer(t)
	w.service("authz", apiworkload.AppProtocol_GRPC, at)
	w.policy(custom(&api.ExternalAuth{Backend: backend("authz", 1), Grpc: true, MaxBodyBytes: 1000, PartialBody: true}))
	for _, two := range []bool{false, true} {
		c := httpClient(t, two)
		for _, n := range []int{0, 1, 999, 1000, 1001, 5000, 70 << 10, 1 << 20} {
			res, body := do(t, c, "POST", w.url+"/private", strings.Repeat("x", n), "x-key", "1")
			if want := fmt.Sprintf("user=user-1 key= %d ", n); res.StatusCode != 200 || !strings.HasPrefix(body, want) {
				t.Errorf("%d: %d %q", n, res.StatusCode, body)
			}
			// Without a length.
			r, err := http.NewRequest("POST", w.url+"/private", io.MultiReader(strings.NewReader(strings.Repeat("y", n)), strings.NewReader("z")))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("x-key", "1")
			res, err = c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if want := fmt.Sprintf("user=user-1 key= %d ", n+1); !strings.HasPrefix(string(got), want) {
				t.Errorf("%d: %q", n, got)
			}
		}
	}
}

func TestAnAuthorizerThatCannotBeAskedRefusesUnlessItsProviderSaysOtherwise(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, userEcho(t))
	w.service("gone", apiworkload.AppProtocol_GRPC, nowhere(t))
	release := make(chan struct{})
	w.service("slow", apiworkload.AppProtocol_HTTP11, app(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release) })
	c := httpClient(t, false)
	unknown := &api.Policy{Name: "ask", Action: api.Action_CUSTOM, Provider: "nobody", Rules: []*api.PolicyRule{{}}}
	for name, x := range map[string]struct {
		policy *api.Policy
		want   int
	}{
		"gone":              {custom(&api.ExternalAuth{Backend: backend("gone", 1), Grpc: true}), 403},
		"gone, status":      {custom(&api.ExternalAuth{Backend: backend("gone", 1), Grpc: true, StatusOnError: 503}), 503},
		"gone, fails open":  {custom(&api.ExternalAuth{Backend: backend("gone", 1), Grpc: true, FailOpen: true}), 200},
		"slow":              {custom(&api.ExternalAuth{Backend: backend("slow", 1), Timeout: durationpb.New(50 * time.Millisecond)}), 403},
		"slow, fails open":  {custom(&api.ExternalAuth{Backend: backend("slow", 1), Timeout: durationpb.New(50 * time.Millisecond), FailOpen: true}), 200},
		"no such service":   {custom(&api.ExternalAuth{Backend: backend("none", 1), Grpc: true}), 403},
		"no service at all": {custom(&api.ExternalAuth{Grpc: true}), 403},
		"no such provider":  {unknown, 403},
	} {
		w.policy(x.policy)
		start := time.Now()
		if res, body := do(t, c, "GET", w.url+"/private", ""); res.StatusCode != x.want {
			t.Errorf("%s: %d %q", name, res.StatusCode, body)
		}
		if took := time.Since(start); took > patience/2 {
			t.Errorf("%s took %v", name, took)
		}
	}
}

// TestContentHeldForAuthorizersIsBounded has as many large requests wait for an authorizer
// as there is room for.
func TestContentHeldForAuthorizersIsBounded(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, userEcho(t))
	asked, hold := make(chan bool, 100), make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	w.service("authz", apiworkload.AppProtocol_HTTP11, app(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- true
		<-hold
	}))
	auth := func(open bool) *api.ExternalAuth {
		return &api.ExternalAuth{Backend: backend("authz", 1), MaxBodyBytes: extauthz.MaxBodyBytes, FailOpen: open, StatusOnError: 503, Timeout: durationpb.New(time.Minute)}
	}
	w.policy(custom(auth(false)))
	const room = 32 << 20 / extauthz.MaxBodyBytes // a client has half of it
	large := strings.Repeat("x", extauthz.MaxBodyBytes-1)
	want := fmt.Sprintf("user= key= %d xxxxxxxxxx", len(large))
	c := httpClient(t, false)
	var wg sync.WaitGroup
	for range room {
		wg.Go(func() {
			if res, body := do(t, c, "POST", w.url+"/private", large); res.StatusCode != 200 || body != want {
				t.Errorf("%d %q", res.StatusCode, body)
			}
		})
	}
	for range room {
		<-asked
	}
	if res, body := do(t, c, "POST", w.url+"/private", large); res.StatusCode != 503 {
		t.Errorf("without room: %d %q", res.StatusCode, body)
	}
	w.policy(custom(auth(true)))
	if res, body := do(t, c, "POST", w.url+"/private", large); res.StatusCode != 503 {
		t.Errorf("without room, where the provider fails open: %d %q", res.StatusCode, body)
	}
	release()
	wg.Wait()
	w.policy(custom(auth(false)))
	for range room + 1 {
		if res, body := do(t, c, "POST", w.url+"/private", large); res.StatusCode != 200 || body != want {
			t.Fatalf("with room again: %d %q", res.StatusCode, body)
		}
	}
	for _, a := range w.forward.Authorizers() {
		if got := a.Results; a.Provider != "authz" || got[extauthz.Allowed] != 2*room+1 || got[extauthz.Error] != 2 || a.Asked != 2*room+1 {
			t.Errorf("%+v", a)
		}
	}
}

// TestCopiesOfQuestionsAreCounted has questions over gRPC, which hold content three times.
func TestCopiesOfQuestionsAreCounted(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, userEcho(t))
	asked, hold := make(chan bool, 100), make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	w.service("authz", apiworkload.AppProtocol_GRPC, app(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- true
		<-hold
	}))
	w.policy(custom(&api.ExternalAuth{Backend: backend("authz", 1), Grpc: true, MaxBodyBytes: extauthz.MaxBodyBytes, StatusOnError: 503, Timeout: durationpb.New(time.Minute)}))
	const room = 32 << 20 / extauthz.MaxBodyBytes / 3
	large := strings.Repeat("x", extauthz.MaxBodyBytes-1)
	c := httpClient(t, false)
	var wg sync.WaitGroup
	for range room {
		wg.Go(func() { do(t, c, "POST", w.url+"/private", large) })
	}
	for range room {
		<-asked
	}
	if res, _ := do(t, c, "POST", w.url+"/private", large); res.StatusCode != 503 {
		t.Errorf("without room: %d", res.StatusCode)
	}
	if n := len(asked); n != 0 {
		t.Errorf("%d more were asked", n)
	}
	release()
	wg.Wait()
}

func TestQuestionsAreCountedByProviderAndResult(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, userEcho(t))
	_, at := startAuthorizer(t)
	w.service("authz", apiworkload.AppProtocol_GRPC, at)
	w.service("gone", apiworkload.AppProtocol_GRPC, nowhere(t))
	release := make(chan struct{})
	w.service("slow", apiworkload.AppProtocol_HTTP11, app(t, func(http.ResponseWriter, *http.Request) { <-release }))
	defer close(release)
	c := httpClient(t, false)
	ask := func(provider string, auth *api.ExternalAuth, header ...string) {
		auth.Backend = backend(provider, 1)
		p := custom(auth)
		p.Provider = provider
		w.policy(p)
		do(t, c, "GET", w.url+"/private", "", header...)
	}
	ask("authz", &api.ExternalAuth{Grpc: true}, "x-key", "1")
	ask("authz", &api.ExternalAuth{Grpc: true}, "x-key", "1")
	ask("authz", &api.ExternalAuth{Grpc: true})
	ask("gone", &api.ExternalAuth{Grpc: true, FailOpen: true}) // passes, and is an error still
	ask("slow", &api.ExternalAuth{Timeout: durationpb.New(20 * time.Millisecond)})
	want := map[string]map[extauthz.Result]uint64{
		"authz": {extauthz.Allowed: 2, extauthz.Denied: 1, extauthz.Error: 0, extauthz.TimedOut: 0},
		"gone":  {extauthz.Allowed: 0, extauthz.Denied: 0, extauthz.Error: 1, extauthz.TimedOut: 0},
		"slow":  {extauthz.Allowed: 0, extauthz.Denied: 0, extauthz.Error: 0, extauthz.TimedOut: 1},
	}
	got := map[string]map[extauthz.Result]uint64{}
	for _, a := range w.forward.Authorizers() {
		got[a.Provider] = a.Results
		if a.Provider == "slow" && (a.Took < 20*time.Millisecond || a.Within[10*time.Millisecond] != 0 || a.Within[5*time.Second] != 1) {
			t.Errorf("%+v", a)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestRulesAndBackendsAskToo has the ExternalAuth filter of HTTPRoutes.
func TestRulesAndBackendsAskToo(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, userEcho(t))
	w.service("authz", apiworkload.AppProtocol_HTTP11, app(t, func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/check/") || r.Header.Get("X-Key") == "" {
			rw.Header().Set("Location", "/login")
			rw.WriteHeader(302)
			return
		}
		rw.Header().Set("X-User", "http-"+r.Header.Get("X-Key"))
	}))
	filter := func() []*api.Filter {
		return []*api.Filter{{Kind: &api.Filter_ExternalAuth{ExternalAuth: &api.ExternalAuth{
			Backend: backend("authz", 1), PathPrefix: "/check", AllowedHeaders: []string{"x-key"}, AllowedResponseHeaders: []string{"x-user"},
		}}}}
	}
	ofBackend := backend("web", 1)
	ofBackend.Filters = filter()
	c := httpClient(t, false)
	for name, r := range map[string]*api.Rule{
		"rule":    {Filters: filter(), Backends: []*api.Backend{backend("web", 1)}},
		"backend": {Backends: []*api.Backend{ofBackend}},
	} {
		w.routes(rule(r))
		if res, body := do(t, c, "POST", w.url+"/a", "abc", "x-key", "9", "x-user", "forged"); res.StatusCode != 200 || body != "user=http-9 key=9 3 abc" {
			t.Errorf("%s: %d %q", name, res.StatusCode, body)
		}
		if res, _ := do(t, c, "GET", w.url+"/a", ""); res.StatusCode != 302 || res.Header.Get("Location") != "/login" {
			t.Errorf("%s: %d %v", name, res.StatusCode, res.Header)
		}
	}
	faulty := filter()
	faulty[0].GetExternalAuth().Backend = &api.Backend{Fault: "no such Service"}
	w.routes(rule(&api.Rule{Filters: faulty, Backends: []*api.Backend{backend("web", 1)}}))
	if res, _ := do(t, c, "GET", w.url+"/a", ""); res.StatusCode != 500 {
		t.Errorf("%d", res.StatusCode)
	}
}

// TestWhatAnAuthorizerWritesIsJudgedByThePolicies has an ALLOW policy on the field that
// the authorizer sets, which the client cannot set itself.
func TestWhatAnAuthorizerWritesIsJudgedByThePolicies(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, userEcho(t))
	_, at := startAuthorizer(t)
	w.service("authz", apiworkload.AppProtocol_GRPC, at)
	w.policy(custom(&api.ExternalAuth{Backend: backend("authz", 1), Grpc: true}), &api.Policy{Name: "allow", Rules: []*api.PolicyRule{{
		When: []*api.Condition{{Key: "request.headers[x-user]", Values: []string{"user-1"}}},
	}}})
	c := httpClient(t, false)
	for keyOf, want := range map[string]int{"1": 200, "2": 403} {
		if res, _ := do(t, c, "GET", w.url+"/private", "", "x-key", keyOf, "x-user", "user-1"); res.StatusCode != want {
			t.Errorf("%s: %d", keyOf, res.StatusCode)
		}
	}
}

// TestConnectionsOfBytesAreAskedAboutToo has a policy for a port that is no HTTP: only
// gRPC can ask about it.
func TestConnectionsOfBytesAreAskedAboutToo(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_TCP, userEcho(t))
	a, at := startAuthorizer(t)
	w.service("authz", apiworkload.AppProtocol_GRPC, at)
	peer, err := request.NewPeer(client)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		auth   *api.ExternalAuth
		passes bool
		asked  int64
	}{
		"refused":   {&api.ExternalAuth{Backend: backend("authz", 1), Grpc: true}, false, 1},
		"over HTTP": {&api.ExternalAuth{Backend: backend("authz", 1)}, false, 0},
		"open":      {&api.ExternalAuth{Backend: backend("none", 1), Grpc: true, FailOpen: true}, true, 0},
	} {
		w.policy(&api.Policy{Name: "ask", Action: api.Action_CUSTOM, Provider: "authz", ExternalAuth: x.auth, Rules: []*api.PolicyRule{{}}})
		before := a.asked.Load()
		c := &forward.Client{
			Identity: client, Peer: peer, Source: netip.MustParseAddrPort("10.0.0.9:40000"), Destination: netip.MustParseAddrPort("10.96.0.1:80"),
			Service: key("web"), Port: 80,
		}
		b, err := w.forward.Connect(t.Context(), c, w.mesh.Service(key("web")), func(context.Context, *upstream.Endpoint) (net.Conn, error) {
			near, far := net.Pipe()
			_ = far.Close()
			return near, nil
		})
		if b != nil {
			b.Abandon(nil)
		}
		var refusal *forward.Refusal
		if (err == nil) != x.passes || err != nil && (!errors.As(err, &refusal) || refusal.Status != 401) || a.asked.Load()-before != x.asked {
			t.Errorf("%s: %v, asked %d times", name, err, a.asked.Load()-before)
		}
	}
}
