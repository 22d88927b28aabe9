package extauthz_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"go.uber.org/goleak"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/extauthz"
	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// codecs dials with the waypoint's own clients.
type codecs struct{}

func (codecs) Dial(ctx context.Context, e *upstream.Endpoint, p upstream.Protocol) (message.Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.Addr.String())
	if err != nil {
		return nil, err
	}
	if p == upstream.HTTP2 {
		return http2.NewClient(conn, http2.ClientConfig{})
	}
	return http1.NewClient(conn, http1.ClientConfig{})
}

// backend has servers at the addresses for endpoints.
func backend(t *testing.T, addresses ...string) *upstream.Backend {
	t.Helper()
	b, err := upstream.New(upstream.Config{Name: "auth/authz.auth.svc:9000"}, codecs{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	var endpoints []upstream.Endpoint
	for i, a := range addresses {
		endpoints = append(endpoints, upstream.Endpoint{UID: fmt.Sprint("authz-", i), Addr: netip.MustParseAddrPort(a), Weight: 1, Healthy: true})
	}
	if err := b.Update(endpoints); err != nil {
		t.Fatal(err)
	}
	return b
}

// host is one of this process's own, so that nobody else listens there.
func host() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", host()+":0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// authorizer is a gRPC server of Envoy's API that answers with check.
type authorizer struct {
	authv3.UnimplementedAuthorizationServer
	check func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error)
}

func (a *authorizer) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return a.check(ctx, r)
}

func grpcServer(t *testing.T, check func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error)) string {
	t.Helper()
	ln := listen(t)
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, &authorizer{check: check})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return ln.Addr().String()
}

func httpServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = listen(t)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// fields makes a header of names and values.
func fields(list ...string) message.Header {
	var h message.Header
	for i := 0; i < len(list); i += 2 {
		h.Add(list[i], list[i+1])
	}
	return h
}

func question() *extauthz.Question {
	return &extauthz.Question{
		Request: &message.Request{
			Method: "POST", Scheme: "http", Authority: "shop.example", Path: "/cart", Query: "a=1&token=x&b=2", HasQuery: true, Length: 5,
			Header: fields("accept", "a", "accept", "b", "authorization", "Bearer t", "x-user", "forged", "x-team", "red"),
		},
		ID: "id-1", Source: netip.MustParseAddrPort("10.1.2.3:4444"), Principal: "spiffe://cluster.local/ns/shop/sa/client",
		Destination: netip.MustParseAddrPort("10.96.0.1:80"), Own: "spiffe://cluster.local/ns/shop/sa/waypoint",
		Time: time.Unix(1e9, 0), Body: []byte("hello"), Whole: true,
	}
}

func option(name, value string, change func(*corev3.HeaderValueOption)) *corev3.HeaderValueOption {
	o := &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
	if change != nil {
		change(o)
	}
	return o
}

func TestAQuestionOverGRPCTellsAllThatEnvoyTells(t *testing.T) {
	var got *authv3.CheckRequest
	at := grpcServer(t, func(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		got = r
		return &authv3.CheckResponse{}, nil
	})
	a := extauthz.Ask(t.Context(), &api.ExternalAuth{Grpc: true, MaxBodyBytes: 10}, backend(t, at), upstream.HTTP1, question())
	if !a.Allowed() || a.Err != nil {
		t.Fatalf("%+v", a)
	}
	c := got.GetAttributes()
	h := c.GetRequest().GetHttp()
	if c.GetSource().GetPrincipal() != "spiffe://cluster.local/ns/shop/sa/client" || c.GetSource().GetAddress().GetSocketAddress().GetAddress() != "10.1.2.3" ||
		c.GetSource().GetAddress().GetSocketAddress().GetPortValue() != 4444 || c.GetDestination().GetAddress().GetSocketAddress().GetPortValue() != 80 ||
		c.GetDestination().GetPrincipal() != "spiffe://cluster.local/ns/shop/sa/waypoint" || c.GetRequest().GetTime().GetSeconds() != 1e9 {
		t.Errorf("%v", c)
	}
	if h.GetId() != "id-1" || h.GetMethod() != "POST" || h.GetPath() != "/cart?a=1&token=x&b=2" || h.GetHost() != "shop.example" || h.GetScheme() != "http" ||
		h.GetProtocol() != "HTTP/1.1" || h.GetBody() != "hello" || h.GetSize() != 5 {
		t.Errorf("%v", h)
	}
	for name, want := range map[string]string{
		"accept": "a,b", "authorization": "Bearer t", ":method": "POST", ":authority": "shop.example", ":path": "/cart?a=1&token=x&b=2",
		"x-envoy-auth-partial-body": "false",
	} {
		if h.GetHeaders()[name] != want {
			t.Errorf("%s: %q", name, h.GetHeaders()[name])
		}
	}

	q := question()
	q.Body, q.Whole, q.Two = []byte{0xff, 1}, false, true
	a = extauthz.Ask(t.Context(), &api.ExternalAuth{Grpc: true, MaxBodyBytes: 10, AllowedHeaders: []string{"x-*", ":path"}}, backend(t, at), upstream.HTTP1, q)
	if h = got.GetAttributes().GetRequest().GetHttp(); !a.Allowed() || string(h.GetRawBody()) != "\xff\x01" || h.GetBody() != "" || h.GetProtocol() != "HTTP/2" ||
		h.GetHeaders()["x-team"] != "red" || h.GetHeaders()["authorization"] != "" || h.GetHeaders()["x-envoy-auth-partial-body"] != "true" {
		t.Errorf("%+v: %v", a, h)
	}

	a = extauthz.Ask(t.Context(), &api.ExternalAuth{Grpc: true}, backend(t, at), upstream.HTTP1, &extauthz.Question{Source: q.Source})
	if !a.Allowed() || got.GetAttributes().GetRequest().GetHttp() != nil {
		t.Errorf("bytes: %+v: %v", a, got)
	}
}

func TestNoOctetsOfAClientKeepAQuestionFromBeingAsked(t *testing.T) {
	at := grpcServer(t, func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}}, nil
	})
	q := question()
	q.ID, q.Request.Authority = "\xff", "\xff"
	q.Request.Header = fields("x-request-id", "\xff", "x-other", "a\xc3")
	if a := extauthz.Ask(t.Context(), &api.ExternalAuth{Grpc: true, FailOpen: true}, backend(t, at), upstream.HTTP1, q); a.Allowed() || a.Err != nil {
		t.Errorf("%+v", a)
	}
}

func TestAConsentOverGRPCChangesTheRequest(t *testing.T) {
	at := grpcServer(t, func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{
				option("X-User", "ann", nil),
				option("accept", "c", func(o *corev3.HeaderValueOption) { o.Append = wrapperspb.Bool(true) }),
				option("x-team", "blue", func(o *corev3.HeaderValueOption) { o.AppendAction = corev3.HeaderValueOption_ADD_IF_ABSENT }),
			},
			HeadersToRemove:         []string{"Authorization", "content-length"},
			QueryParametersToSet:    []*corev3.QueryParameter{{Key: "b", Value: "3 4"}},
			QueryParametersToRemove: []string{"token"},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{
				option("set-cookie", "s=1", nil), option("set-cookie", "t=2", nil),
				option("server", "none", func(o *corev3.HeaderValueOption) { o.AppendAction = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS }),
			},
		}}}, nil
	})
	a := extauthz.Ask(t.Context(), &api.ExternalAuth{Grpc: true}, backend(t, at), upstream.HTTP1, question())
	if !a.Allowed() || a.Err != nil {
		t.Fatalf("%+v", a)
	}
	r := question().Request
	a.Apply(r)
	if got := fmt.Sprint(r.Header); got != "[{accept a} {accept b} {x-user ann} {x-team red} {accept c}]" {
		t.Errorf("%s", got)
	}
	if r.Target() != "/cart?a=1&b=3+4" {
		t.Errorf("%s", r.Target())
	}
	response := &message.Response{Header: fields("server", "app", "set-cookie", "app=1")}
	a.ApplyResponse(response)
	if got := fmt.Sprint(response.Header); got != "[{server none} {set-cookie app=1} {set-cookie s=1} {set-cookie t=2}]" {
		t.Errorf("%s", got)
	}
}

func TestARefusalOverGRPCReachesTheClient(t *testing.T) {
	var response *authv3.CheckResponse
	at := grpcServer(t, func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) { return response, nil })
	b := backend(t, at)
	denied := func(code typev3.StatusCode) *authv3.CheckResponse {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
			DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: code}, Body: "no", Headers: []*corev3.HeaderValueOption{option("WWW-Authenticate", "Basic", nil)}},
		}}
	}
	for _, c := range []struct {
		response *authv3.CheckResponse
		status   int
	}{
		{denied(401), 401}, {denied(0), 403}, {denied(100), 403},
		{&authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.Unavailable)}}, 403},
		// A refusal that has the form of a consent is a refusal.
		{&authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_OkResponse{}}, 403},
	} {
		response = c.response
		a := extauthz.Ask(t.Context(), &api.ExternalAuth{Grpc: true, FailOpen: true}, b, upstream.HTTP1, question())
		if a.Allowed() || a.Err != nil || a.Status != c.status {
			t.Errorf("%v: %+v", c.response, a)
		}
		if c.response.GetDeniedResponse() != nil && (string(a.Content) != "no" || a.Header.Get("www-authenticate") != "Basic") {
			t.Errorf("%+v", a)
		}
	}
}

// TestWhatIsNoAnswerIsNone has authorizers that fail, hang, are not there, and that say
// what cannot be.
func TestWhatIsNoAnswerIsNone(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	gone := listen(t)
	_ = gone.Close()
	answers := func(r *authv3.CheckResponse, err error) string {
		return grpcServer(t, func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) { return r, err })
	}
	ok := func(o *authv3.OkHttpResponse) *authv3.CheckResponse {
		return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: o}}
	}
	waits := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // net/http sees the client go only then
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}
	for name, c := range map[string]struct {
		at   string
		auth *api.ExternalAuth
		want string
	}{
		"an error":         {answers(nil, status.Error(codes.Internal, "broken")), &api.ExternalAuth{Grpc: true}, "broken"},
		"no such method":   {grpcServerWithout(t), &api.ExternalAuth{Grpc: true}, `status "12"`},
		"framing fields":   {answers(ok(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option("Content-Length", "3", nil)}}), nil), &api.ExternalAuth{Grpc: true}, "content-length"},
		"another host":     {answers(ok(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option("host", "x", nil)}}), nil), &api.ExternalAuth{Grpc: true}, "host"},
		"another path":     {answers(ok(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option(":path", "/admin", nil)}}), nil), &api.ExternalAuth{Grpc: true}, ":path"},
		"a second line":    {answers(ok(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option("x", "a\r\nb: c", nil)}}), nil), &api.ExternalAuth{Grpc: true}, "value of the header field x"},
		"much":             {answers(&authv3.CheckResponse{Status: &rpcstatus.Status{Message: strings.Repeat("x", 1<<20)}}, nil), &api.ExternalAuth{Grpc: true}, "longer than"},
		"no gRPC":          {httpServer(t, func(w http.ResponseWriter, _ *http.Request) {}), &api.ExternalAuth{Grpc: true}, ""},
		"nobody":           {gone.Addr().String(), &api.ExternalAuth{Grpc: true}, "refused"},
		"nobody over HTTP": {gone.Addr().String(), &api.ExternalAuth{}, "refused"},
		"hangs":            {httpServer(t, waits), &api.ExternalAuth{Timeout: durationpb.New(50 * time.Millisecond)}, "no answer within 50ms"},
		"fails":            {httpServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }), &api.ExternalAuth{}, "status 503"},
	} {
		t.Run(name, func(t *testing.T) {
			b := backend(t, c.at)
			start := time.Now()
			a := extauthz.Ask(t.Context(), c.auth, b, upstream.HTTP1, question())
			if a.Allowed() || a.Err == nil || !strings.Contains(a.Err.Error(), c.want) || a.Status != 403 {
				t.Errorf("%+v", a)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			c.auth.FailOpen = true
			if a := extauthz.Ask(t.Context(), c.auth, b, upstream.HTTP1, question()); !a.Allowed() || a.Err == nil {
				t.Errorf("fail open: %+v", a)
			}
			c.auth.FailOpen, c.auth.StatusOnError = false, 503
			if a := extauthz.Ask(t.Context(), c.auth, b, upstream.HTTP1, question()); a.Allowed() || a.Status != 503 {
				t.Errorf("status on error: %+v", a)
			}
		})
	}
	t.Run("the client goes", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		left := errors.New("left")
		at := httpServer(t, func(w http.ResponseWriter, r *http.Request) { cancel(left); waits(w, r) })
		if a := extauthz.Ask(ctx, &api.ExternalAuth{}, backend(t, at), upstream.HTTP1, question()); a.Allowed() || !errors.Is(a.Err, left) {
			t.Errorf("%+v", a)
		}
	})
}

func grpcServerWithout(t *testing.T) string {
	t.Helper()
	ln := listen(t)
	s := grpc.NewServer()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return ln.Addr().String()
}

func TestAQuestionIsAskedElsewhereWhenNobodyWasThere(t *testing.T) {
	gone := listen(t)
	_ = gone.Close()
	var asked atomic.Int64
	at := grpcServer(t, func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		asked.Add(1)
		return &authv3.CheckResponse{}, nil
	})
	b := backend(t, gone.Addr().String(), at)
	for range 20 {
		if a := extauthz.Ask(t.Context(), &api.ExternalAuth{Grpc: true}, b, upstream.HTTP1, question()); !a.Allowed() || a.Err != nil {
			t.Fatalf("%+v", a)
		}
	}
	if asked.Load() != 20 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestOverHTTPTheAnswerIsTheStatus(t *testing.T) {
	var got *http.Request
	var content []byte
	answer := http.Header{}
	code, body := 200, ""
	at := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		content, _ = io.ReadAll(r.Body)
		for name, values := range answer {
			w.Header()[name] = values
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	})
	b := backend(t, at)
	auth := &api.ExternalAuth{
		PathPrefix: "/check", AllowedHeaders: []string{"x-te*"}, AddedHeaders: []*api.HeaderField{{Name: "x-from", Value: "waypoint"}},
		AllowedResponseHeaders: []string{"x-user", "x-role-*", "authorization"}, AllowedClientHeaders: []string{"set-cookie"},
	}
	answer = http.Header{"X-User": {"ann"}, "X-Role-A": {"1", "2"}, "X-Other": {"z"}, "Set-Cookie": {"a=1", "b=2"}, "X-Envoy-Auth-Headers-To-Remove": {"x-team, Content-Length"}}
	a := extauthz.Ask(t.Context(), auth, b, upstream.HTTP1, question())
	if !a.Allowed() || a.Err != nil {
		t.Fatalf("%+v", a)
	}
	if got.Method != "POST" || got.URL.String() != "/check/cart?a=1&token=x&b=2" || got.Host != "shop.example" || got.Header.Get("Authorization") != "Bearer t" ||
		got.Header.Get("X-Team") != "red" || got.Header.Get("X-User") != "" || got.Header.Get("X-From") != "waypoint" || got.ContentLength != 5 || string(content) != "hello" {
		t.Errorf("%+v %q", got, content)
	}
	r := question().Request
	a.Apply(r)
	if s := fmt.Sprint(r.Header); s != "[{accept a} {accept b} {authorization Bearer t} {x-role-a 1} {x-role-a 2} {x-user ann}]" &&
		s != "[{accept a} {accept b} {authorization Bearer t} {x-user ann} {x-role-a 1} {x-role-a 2}]" {
		t.Errorf("%s", s)
	}
	response := &message.Response{Header: fields("set-cookie", "app")}
	if a.ApplyResponse(response); fmt.Sprint(response.Header) != "[{set-cookie a=1} {set-cookie b=2}]" {
		t.Errorf("%v", response.Header)
	}

	// What the authorizer may write is nobody else's to write.
	answer = http.Header{}
	a = extauthz.Ask(t.Context(), auth, b, upstream.HTTP1, question())
	r = question().Request
	if a.Apply(r); r.Header.Has("x-user") || !r.Header.Has("authorization") {
		t.Errorf("%v", r.Header)
	}

	code, body = 302, "go"
	answer = http.Header{"Location": {"https://login.example/"}, "Set-Cookie": {"s=1"}, "X-Why": {"w"}, "Content-Type": {"text/html"}}
	a = extauthz.Ask(t.Context(), auth, b, upstream.HTTP1, question())
	if a.Allowed() || a.Err != nil || a.Status != 302 || string(a.Content) != "go" || a.Header.Get("location") != "https://login.example/" || a.Header.Get("x-why") != "w" {
		t.Errorf("%+v", a)
	}
	auth.AllowedDenialHeaders = []string{"set-cookie"}
	a = extauthz.Ask(t.Context(), auth, b, upstream.HTTP1, question())
	if a.Header.Get("location") == "" || a.Header.Get("x-why") != "" || a.Header.Get("set-cookie") != "s=1" || a.Header.Has("content-length") {
		t.Errorf("%+v", a)
	}
	for _, refuses := range []int{201, 204, 401, 404, 429} {
		if code = refuses; extauthz.Ask(t.Context(), auth, b, upstream.HTTP1, question()).Allowed() {
			t.Errorf("%d consents", refuses)
		}
	}
	// All headers, but for those about the answer itself.
	code, answer = 200, http.Header{"X-Any": {"1"}, "Content-Type": {"text/html"}, "Server": {"s"}}
	auth.AllowedResponseHeaders = []string{"*"}
	a = extauthz.Ask(t.Context(), auth, b, upstream.HTTP1, question())
	r = question().Request
	if a.Apply(r); r.Header.Get("x-any") != "1" || r.Header.Has("content-type") || r.Header.Has("server") || r.Header.Get("x-user") != "forged" {
		t.Errorf("%v", r.Header)
	}
}

func TestPatternsOfNames(t *testing.T) {
	for p, want := range map[string]bool{"x-a": true, "x-*": true, "*-a": true, "*": true, "": false, "X-A": false, "a*b": false, "*a*": false, "a b": false} {
		if extauthz.ValidPattern(p) != want {
			t.Errorf("%q", p)
		}
	}
}

// BenchmarkAsk is a question on a connection that stands.
func BenchmarkAsk(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, &authorizer{check: func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{}, nil
	}})
	go func() { _ = s.Serve(ln) }()
	defer s.Stop()
	up, err := upstream.New(upstream.Config{Name: "authz"}, codecs{})
	if err != nil {
		b.Fatal(err)
	}
	defer up.Close()
	if err := up.Update([]upstream.Endpoint{{UID: "a", Addr: netip.MustParseAddrPort(ln.Addr().String()), Weight: 1, Healthy: true}}); err != nil {
		b.Fatal(err)
	}
	q, auth := question(), &api.ExternalAuth{Grpc: true}
	b.ReportAllocs()
	for b.Loop() {
		if a := extauthz.Ask(b.Context(), auth, up, upstream.HTTP1, q); a.Err != nil {
			b.Fatal(a.Err)
		}
	}
}
