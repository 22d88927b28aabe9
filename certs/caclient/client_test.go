package caclient_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/api/auth"
	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/caclient"
	"github.com/tulle-mesh/tulle/certs/forge"
	"github.com/tulle-mesh/tulle/internal/mtls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	td = spiffeid.RequireTrustDomainFromString("cluster.local")
	id = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/web")
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority is a gRPC server that signs with a real authority, unless told to
// answer otherwise.
type authority struct {
	auth.UnimplementedIstioCertificateServiceServer
	*certs.Authority
	creds   credentials.TransportCredentials
	address string
	stop    func()

	mu     sync.Mutex
	answer func(*auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error)
	last   *auth.IstioCertificateRequest
	tokens []string
}

func (a *authority) CreateCertificate(ctx context.Context, req *auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	a.mu.Lock()
	a.last = req
	a.tokens = append(a.tokens, strings.Join(md.Get("authorization"), ","))
	answer := a.answer
	a.mu.Unlock()
	if answer != nil {
		return answer(req)
	}
	chain, err := a.Sign([]byte(req.GetCsr()), id, time.Duration(req.GetValidityDuration())*time.Second)
	return &auth.IstioCertificateResponse{CertChain: chain}, err
}

func (a *authority) set(answer func(*auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

// start serves on loopback, over TLS unless plain.
func start(t *testing.T, plain bool) *authority {
	t.Helper()
	signing, err := certs.OpenAuthority(filepath.Join(t.TempDir(), "ca"), certs.AuthorityConfig{TrustDomain: td})
	must(t, err)
	t.Cleanup(func() { signing.Close() })
	a := &authority{Authority: signing}
	creds := insecure.NewCredentials()
	if !plain {
		creds = credentials.NewTLS(mtls.ControlPlaneServer(signing.ServerSource([]string{"istiod"}, nil).Certificate))
	}
	a.creds = creds
	stop := a.serve(t, "127.0.0.1:0")
	t.Cleanup(stop)
	return a
}

// serve answers at address until stop is called.
func (a *authority) serve(t *testing.T, address string) (stop func()) {
	t.Helper()
	g := grpc.NewServer(grpc.Creds(a.creds))
	auth.RegisterIstioCertificateServiceServer(g, a)
	listener, err := net.Listen("tcp", address)
	must(t, err)
	a.address = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	a.stop = sync.OnceFunc(func() { g.Stop(); <-served })
	return a.stop
}

func (a *authority) dial(t *testing.T, plain bool) *grpc.ClientConn {
	t.Helper()
	var conn *grpc.ClientConn
	var err error
	if plain {
		conn, err = grpc.NewClient(a.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	} else {
		roots, rootsErr := mtls.RootsFromPEM(a.BundlePEM())
		must(t, rootsErr)
		conn, err = caclient.Dial(a.address, mtls.ControlPlaneClient(roots, "istiod"))
	}
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(path, []byte(token), 0o600))
	return path
}

func TestTheRequestIsWhatAnIstioAuthorityExpects(t *testing.T) {
	a := start(t, false)
	client := caclient.New(a.dial(t, false), caclient.Config{TTL: time.Hour, Token: caclient.TokenFile{Path: tokenFile(t, "secret\n")}})
	svid, bundle, err := client.Sign(t.Context(), id)
	must(t, err)
	if svid.ID != id || bundle.TrustDomain() != td || len(bundle.X509Authorities()) != 1 || len(svid.Certificates) != 2 {
		t.Errorf("SVID of %s, bundle of %s", svid.ID, bundle.TrustDomain())
	}
	if left := time.Until(svid.Certificates[0].NotAfter); left > time.Hour || left < 59*time.Minute {
		t.Errorf("lives %v, want the hour asked for", left)
	}
	if got := a.last.GetMetadata().AsMap(); !cmp.Equal(got, map[string]any{"ImpersonatedIdentity": id.String()}) {
		t.Errorf("metadata %v", got)
	}
	if a.last.GetValidityDuration() != 3600 {
		t.Errorf("validity %d s", a.last.GetValidityDuration())
	}
	block, _ := pem.Decode([]byte(a.last.GetCsr()))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	must(t, err)
	if len(csr.Subject.Names) != 0 || len(csr.URIs) != 1 || csr.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		t.Errorf("request with subject %v, names %v, signed with %v", csr.Subject, csr.URIs, csr.SignatureAlgorithm)
	}
	if len(csr.Extensions) != 1 || !csr.Extensions[0].Critical {
		t.Errorf("request with extensions %v, want one critical name", csr.Extensions)
	}
	if cmp.Diff(a.tokens, []string{"Bearer secret"}) != "" {
		t.Errorf("authorization %q", a.tokens)
	}

	// For the own identity no other is named.
	own := caclient.New(a.dial(t, false), caclient.Config{Own: true})
	_, _, err = own.Sign(t.Context(), id)
	must(t, err)
	if a.last.GetMetadata() != nil || a.last.GetValidityDuration() != 24*3600 {
		t.Errorf("request %v", a.last)
	}
}

func TestEachRequestHasAKeyOfItsOwn(t *testing.T) {
	a := start(t, false)
	client := caclient.New(a.dial(t, false), caclient.Config{})
	one, _, err := client.Sign(t.Context(), id)
	must(t, err)
	two, _, err := client.Sign(t.Context(), id)
	must(t, err)
	if one.PrivateKey == two.PrivateKey || one.Certificates[0].PublicKey == two.Certificates[0].PublicKey {
		t.Error("a key was used twice")
	}
}

func TestTheTokenIsReadForEachRequest(t *testing.T) {
	a := start(t, false)
	path := tokenFile(t, "first")
	client := caclient.New(a.dial(t, false), caclient.Config{Token: caclient.TokenFile{Path: path}})
	_, _, err := client.Sign(t.Context(), id)
	must(t, err)
	must(t, os.WriteFile(path, []byte("second"), 0o600))
	_, _, err = client.Sign(t.Context(), id)
	must(t, err)
	if diff := cmp.Diff([]string{"Bearer first", "Bearer second"}, a.tokens); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}

	for name, content := range map[string]string{
		"empty": "\n", "two lines": "a\nb", "not ASCII": "töken", "endless": strings.Repeat("a", 1<<20),
	} {
		must(t, os.WriteFile(path, []byte(content), 0o600))
		_, _, err := client.Sign(t.Context(), id)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s token: %v, want an error naming the file", name, err)
		}
	}
	must(t, os.Remove(path))
	if _, _, err := client.Sign(t.Context(), id); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("no token file: %v", err)
	}
	if len(a.tokens) != 2 {
		t.Errorf("requests without a token were sent: %q", a.tokens)
	}
}

func TestTheTokenIsNotSentWithoutTLS(t *testing.T) {
	a := start(t, true)
	path := tokenFile(t, "secret")
	client := caclient.New(a.dial(t, true), caclient.Config{Token: caclient.TokenFile{Path: path}})
	if _, _, err := client.Sign(t.Context(), id); err == nil || len(a.tokens) != 0 {
		t.Errorf("error %v, tokens sent %q", err, a.tokens)
	}
	client = caclient.New(a.dial(t, true), caclient.Config{Token: caclient.TokenFile{Path: path, Insecure: true}})
	if _, _, err := client.Sign(t.Context(), id); err != nil {
		t.Errorf("when explicitly allowed: %v", err)
	}
}

func TestRefusalsAreToldFromFailures(t *testing.T) {
	a := start(t, false)
	client := caclient.New(a.dial(t, false), caclient.Config{})
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		a.set(func(*auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
			return nil, status.Error(code, "because")
		})
		_, _, err := client.Sign(t.Context(), id)
		var failure *caclient.Error
		if !errors.As(err, &failure) || failure.Code != code || failure.Identity != id {
			t.Fatalf("%s: %v", code, err)
		}
		transient := code == codes.Canceled || code == codes.Unknown || code == codes.DeadlineExceeded || code == codes.ResourceExhausted ||
			code == codes.Aborted || code == codes.Internal || code == codes.Unavailable || code == codes.DataLoss
		if failure.Permanent() == transient {
			t.Errorf("%s: permanent %v", code, failure.Permanent())
		}
		if !strings.Contains(err.Error(), id.String()) || !strings.Contains(err.Error(), "because") {
			t.Errorf("%q names not both identity and cause", err)
		}
	}

	nobody, err := grpc.NewClient("127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer nobody.Close()
	_, _, err = caclient.New(nobody, caclient.Config{}).Sign(t.Context(), id)
	var failure *caclient.Error
	if !errors.As(err, &failure) || failure.Permanent() || failure.Code != codes.Unavailable {
		t.Errorf("without an authority: %v", err)
	}
}

func TestUnusableAnswersAreRefused(t *testing.T) {
	a := start(t, false)
	client := caclient.New(a.dial(t, false), caclient.Config{})
	sign := func(csr string, id spiffeid.ID) []string {
		chain, err := a.Sign([]byte(csr), id, 0)
		if err != nil {
			return nil
		}
		return chain
	}
	other := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/other")
	for name, tt := range map[string]struct {
		answer func(req *auth.IstioCertificateRequest) []string
		want   string
	}{
		"nothing":        {func(*auth.IstioCertificateRequest) []string { return nil }, "0 parts"},
		"without a root": {func(req *auth.IstioCertificateRequest) []string { return sign(req.GetCsr(), id)[:1] }, "1 parts"},
		"another key": {func(*auth.IstioCertificateRequest) []string {
			_, csr, _ := certs.NewRequest(id)
			return sign(string(csr), id)
		}, "another key"},
		"another root": {func(req *auth.IstioCertificateRequest) []string {
			c := sign(req.GetCsr(), id)
			c[2] = string(certs.EncodeChain(forge.Root(t, "cluster.local").Cert))
			return c
		}, "unknown authority"},
		"no certificates": {func(*auth.IstioCertificateRequest) []string { return []string{"a", "b", "c"} }, "no certificate in PEM"},
		"endless": {func(req *auth.IstioCertificateRequest) []string {
			return append(sign(req.GetCsr(), id), strings.Repeat("\n", certs.MaxChainBytes))
		}, "at most"},
		"another identity": {func(req *auth.IstioCertificateRequest) []string {
			_, csr, _ := certs.NewRequest(other)
			return sign(string(csr), other)
		}, "unusable"},
	} {
		a.set(func(req *auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
			return &auth.IstioCertificateResponse{CertChain: tt.answer(req)}, nil
		})
		svid, _, err := client.Sign(t.Context(), id)
		var failure *caclient.Error
		if !errors.As(err, &failure) || !failure.Permanent() || svid != nil {
			t.Errorf("%s: %v", name, err)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q does not say %q", name, err, tt.want)
		}
	}

	// More than the client is willing to receive is cut off by gRPC.
	a.set(func(*auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
		return &auth.IstioCertificateResponse{CertChain: []string{strings.Repeat("a", 1<<20)}}, nil
	})
	if _, _, err := client.Sign(t.Context(), id); status.Code(errors.Unwrap(err)) != codes.ResourceExhausted {
		t.Errorf("1 MiB: %v", err)
	}
}

func TestARequestEndsWithItsTimeoutAndItsContext(t *testing.T) {
	a := start(t, false)
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	a.set(func(*auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
		<-stop
		return nil, status.Error(codes.Aborted, "the test is over")
	})
	_, _, err := caclient.New(a.dial(t, false), caclient.Config{Timeout: 50 * time.Millisecond}).Sign(t.Context(), id)
	var failure *caclient.Error
	if !errors.As(err, &failure) || failure.Code != codes.DeadlineExceeded || failure.Permanent() {
		t.Errorf("timeout: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := caclient.New(a.dial(t, false), caclient.Config{}).Sign(ctx, id); err == nil {
		t.Error("signed in a canceled context")
	}
}

func TestAnAuthorityThatComesBackIsFoundAgain(t *testing.T) {
	a := start(t, false)
	client := caclient.New(a.dial(t, false), caclient.Config{})
	_, _, err := client.Sign(t.Context(), id)
	must(t, err)
	a.stop()
	var failure *caclient.Error
	if _, _, err := client.Sign(t.Context(), id); !errors.As(err, &failure) || failure.Permanent() {
		t.Fatalf("while it is away: %v", err)
	}
	t.Cleanup(a.serve(t, a.address))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, _, err := client.Sign(ctx, id)
		if err == nil {
			break
		}
		if !errors.As(err, &failure) || failure.Permanent() || ctx.Err() != nil {
			t.Fatalf("after its return: %v", err)
		}
	}
}
