package ca_test

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/api/auth"
	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/istiod-lite/ca"
)

func TestConfigIsChecked(t *testing.T) {
	authority, err := certs.OpenAuthority(filepath.Join(t.TempDir(), "ca"), certs.AuthorityConfig{TrustDomain: td})
	must(t, err)
	defer authority.Close()
	for name, cfg := range map[string]ca.Config{
		"no authority":           {Placement: placement{}},
		"no placement":           {Authority: authority},
		"a node account alone":   {Authority: authority, Placement: placement{}, NodeAccounts: []string{"ztunnel"}},
		"a node account of more": {Authority: authority, Placement: placement{}, NodeAccounts: []string{"a/b/c"}},
		"an empty node account":  {Authority: authority, Placement: placement{}, NodeAccounts: []string{"/"}},
	} {
		if _, err := ca.NewServer(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ca.NewInterceptors(ca.InterceptorConfig{}); err == nil {
		t.Error("interceptors without an authenticator")
	}
}

func TestWithoutAnInterceptorNothingIsSigned(t *testing.T) {
	authority, err := certs.OpenAuthority(filepath.Join(t.TempDir(), "ca"), certs.AuthorityConfig{TrustDomain: td})
	must(t, err)
	defer authority.Close()
	server, err := ca.NewServer(ca.Config{Authority: authority, Placement: placement{}})
	must(t, err)
	_, err = server.CreateCertificate(t.Context(), &auth.IstioCertificateRequest{Csr: csrWith(t, "spiffe://cluster.local/ns/a/sa/b")})
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("error %v", err)
	}
}

// answers is an authenticator that knows its tokens by heart.
type answers map[string]error

func (a answers) Authenticate(_ context.Context, token string) (ca.Caller, error) {
	err, ok := a[token]
	if !ok {
		err = errors.New("never heard of it")
	}
	return ca.Caller{Namespace: "shop", ServiceAccount: token, Node: "n"}, err
}

// TestStreamsCarryTheirCaller runs a streaming service, as xDS is, behind the
// interceptors.
func TestStreamsCarryTheirCaller(t *testing.T) {
	authn, err := ca.NewInterceptors(ca.InterceptorConfig{Authenticator: answers{"web": nil, "later": ca.ErrUnavailable}})
	must(t, err)
	g := grpc.NewServer(grpc.StreamInterceptor(authn.Stream))
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Service", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Who", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			caller, ok := ca.CallerFromContext(stream.Context())
			if !ok {
				return status.Error(codes.Internal, "no caller")
			}
			return stream.SendMsg(wrapperspb.String(caller.Account() + "@" + caller.Node))
		}}},
	}, struct{}{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	defer func() { g.Stop(); <-served }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()

	for token, want := range map[string]codes.Code{"web": codes.OK, "unknown": codes.Unauthenticated, "later": codes.Unavailable} {
		ctx := metadata.AppendToOutgoingContext(boundedContext(t), "authorization", "Bearer "+token)
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Service/Who")
		must(t, err)
		must(t, stream.SendMsg(&emptypb.Empty{}))
		must(t, stream.CloseSend())
		var who wrapperspb.StringValue
		err = stream.RecvMsg(&who)
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %s", token, err, want)
		}
		if want == codes.OK && who.GetValue() != "shop/web@n" {
			t.Errorf("the service sees %q", who.GetValue())
		}
	}
}

func TestMetricsAreThoseOfIstiosAuthority(t *testing.T) {
	p := startControlPlane(t, ca.Config{Placement: placement{}})
	w := httptest.NewRecorder()
	promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	var names []string
	for line := range strings.Lines(w.Body.String()) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	want := []string{
		"citadel_server_authentication_failure_count counter",
		"citadel_server_cert_chain_expiry_seconds gauge",
		"citadel_server_cert_chain_expiry_timestamp gauge",
		"citadel_server_csr_count counter",
		"citadel_server_root_cert_expiry_seconds gauge",
		"citadel_server_root_cert_expiry_timestamp gauge",
		"citadel_server_success_cert_issuance_count counter",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("metrics before the first refusal (-want +got):\n%s", diff)
	}
	// A second server in the same registry is a mistake of the wiring.
	if _, err := ca.NewServer(ca.Config{Authority: p.authority, Placement: placement{}, Registerer: p.registry}); err == nil {
		t.Error("two servers share a registry")
	}
	var already prometheus.AlreadyRegisteredError
	if _, err := ca.NewInterceptors(ca.InterceptorConfig{Authenticator: answers{}, Registerer: p.registry}); !errors.As(err, &already) {
		t.Errorf("two interceptors share a registry: %v", err)
	}
}
