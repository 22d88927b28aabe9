package ca_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tulle-mesh/tulle/api/auth"
	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/caclient"
	"github.com/tulle-mesh/tulle/certs/rotation"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/nodetoken"
	"github.com/tulle-mesh/tulle/istiod-lite/ca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const serverName = "istiod.istio-system.svc"

var td = spiffeid.RequireTrustDomainFromString("cluster.local")

func identity(ns, sa string) spiffeid.ID { return spiffeid.RequireFromSegments(td, "ns", ns, "sa", sa) }

// placement is a fixed set of node/namespace/service account.
type placement map[string]bool

func (p placement) RunsOnNode(node, ns, sa string) bool { return p[node+"/"+ns+"/"+sa] }

// controlPlane is a real gRPC server on loopback TLS with the CA behind the
// interceptors.
type controlPlane struct {
	authority *certs.Authority
	registry  *prometheus.Registry
	key       *nodetoken.Key
	address   string
	dir       string
}

func startControlPlane(t *testing.T, cfg ca.Config, changes ...func(*certs.AuthorityConfig)) *controlPlane {
	t.Helper()
	p := &controlPlane{registry: prometheus.NewRegistry(), dir: t.TempDir()}
	var err error
	authorityConfig := certs.AuthorityConfig{TrustDomain: td}
	for _, change := range changes {
		change(&authorityConfig)
	}
	p.authority, err = certs.OpenAuthority(filepath.Join(p.dir, "ca"), authorityConfig)
	must(t, err)
	t.Cleanup(func() { p.authority.Close() })
	p.key, err = nodetoken.GenerateKey()
	must(t, err)

	cfg.Authority, cfg.Registerer = p.authority, p.registry
	server, err := ca.NewServer(cfg)
	must(t, err)
	authn, err := ca.NewInterceptors(ca.InterceptorConfig{
		Authenticator: ca.TokenAuthenticator{Verifier: nodetoken.Verifier{Keys: []*nodetoken.PublicKey{p.key.Public()}}},
		Registerer:    p.registry,
		Logger:        cfg.Logger,
	})
	must(t, err)
	source := p.authority.ServerSource([]string{serverName}, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	g := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(mtls.ControlPlaneServer(source.Certificate))),
		grpc.UnaryInterceptor(authn.Unary), grpc.StreamInterceptor(authn.Stream))
	auth.RegisterIstioCertificateServiceServer(g, server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p.address = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return p
}

// token writes a token file for the claims and returns its path.
func (p *controlPlane) token(t *testing.T, c nodetoken.Claims) string {
	t.Helper()
	token, err := nodetoken.Mint(p.key, c, time.Hour)
	must(t, err)
	return writeFile(t, token+"\n")
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func (p *controlPlane) client(t *testing.T, tokenFile string, cfg caclient.Config) *caclient.Client {
	t.Helper()
	if tokenFile != "" {
		cfg.Token = caclient.TokenFile{Path: tokenFile}
	}
	return caclient.New(p.dial(t), cfg)
}

func (p *controlPlane) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	roots := mtls.RootsFromFile(filepath.Join(p.dir, "ca", certs.RootBundleFile))
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(credentials.NewTLS(mtls.ControlPlaneClient(roots, serverName))))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

var ztunnelA = nodetoken.Claims{Namespace: "istio-system", ServiceAccount: "ztunnel", PodName: "ztunnel-a", PodUID: "1", Node: "node-a"}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func boundedContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestANodeProxyFetchesItsPodsIdentitiesAndTheyTalk(t *testing.T) {
	p := startControlPlane(t, ca.Config{
		Placement: placement{"node-a/shop/web": true, "node-a/shop/api": true},
		Logger:    zap.NewNop(),
	})
	manager := rotation.NewManager(rotation.Config{
		Signer: p.client(t, p.token(t, ztunnelA), caclient.Config{}), Registerer: prometheus.NewRegistry(),
	})
	defer manager.Close()
	web, api := manager.Acquire(identity("shop", "web")), manager.Acquire(identity("shop", "api"))
	defer web.Release()
	defer api.Release()
	must(t, web.Ready(boundedContext(t)))
	must(t, api.Ready(boundedContext(t)))

	client, server := handshake(t,
		mtls.Client(web, web, []spiffeid.ID{api.ID()}),
		mtls.Server(api, api))
	if client.id != api.ID() || server.id != web.ID() {
		t.Errorf("client sees %s, server sees %s", client.id, server.id)
	}
}
