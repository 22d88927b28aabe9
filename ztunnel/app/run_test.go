package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/api/auth"
	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

// controlPlane speaks xDS and the CA's protocol on one TLS port. Its answer to
// the first request of a type waits until it is released.
type controlPlane struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	auth.UnimplementedIstioCertificateServiceServer
	authority *certs.Authority
	release   chan struct{}
	addresses []*discovery.Resource
}

func (c *controlPlane) DeltaAggregatedResources(s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	for nonce := 1; ; nonce++ {
		req, err := s.Recv()
		if err != nil {
			return err
		}
		if req.ResponseNonce != "" {
			continue
		}
		select {
		case <-c.release:
		case <-s.Context().Done():
			return s.Context().Err()
		}
		resp := &discovery.DeltaDiscoveryResponse{TypeUrl: req.TypeUrl, Nonce: fmt.Sprint(nonce)}
		if req.TypeUrl == xdsclient.AddressType {
			resp.Resources = c.addresses
		}
		if err := s.Send(resp); err != nil {
			return err
		}
	}
}

func (c *controlPlane) CreateCertificate(_ context.Context, r *auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
	id, err := spiffeid.FromString(r.Metadata.Fields["ImpersonatedIdentity"].GetStringValue())
	if err != nil {
		return nil, err
	}
	chain, err := c.authority.Sign([]byte(r.Csr), id, time.Duration(r.ValidityDuration)*time.Second)
	return &auth.IstioCertificateResponse{CertChain: chain}, err
}

// process is one ztunnel with its control plane and a socket for an agent.
type process struct {
	t      *testing.T
	cp     *controlPlane
	agent  *zds.Listener
	cfg    config.Config
	cancel context.CancelFunc
	result chan error
}

// freePorts returns n places to listen at. They are of a loopback address that
// tests of other packages, which run at the same time, do not take ports of.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	pid := os.Getpid()
	host := fmt.Sprintf("127.%d.%d.%d", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff)
	var all []string
	for range n {
		ln, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() // after all are chosen, or one could be chosen twice
		all = append(all, ln.Addr().String())
	}
	return all
}

func startProcess(t *testing.T, addresses ...*api.Workload) *process {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	authority, err := certs.OpenAuthority(dir+"/ca", certs.AuthorityConfig{TrustDomain: spiffeid.RequireTrustDomainFromString("cluster.local")})
	must(err)
	cp := &controlPlane{authority: authority, release: make(chan struct{})}
	for _, w := range addresses {
		body, err := anypb.New(&api.Address{Type: &api.Address_Workload{Workload: w}})
		must(err)
		cp.addresses = append(cp.addresses, &discovery.Resource{Name: w.Uid, Version: "1", Resource: body})
	}
	source := authority.ServerSource([]string{"istiod.test"}, nil)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(mtls.ControlPlaneServer(source.Certificate))))
	discovery.RegisterAggregatedDiscoveryServiceServer(server, cp)
	auth.RegisterIstioCertificateServiceServer(server, cp)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(ln) }()

	must(os.WriteFile(dir+"/token", []byte("token"), 0o600))
	must(os.WriteFile(dir+"/root.pem", authority.BundlePEM(), 0o600))
	agent, err := zds.Listen(filepath.Join(dir, "zds.sock"))
	must(err)
	ports := freePorts(t, 3)
	cfg, err := config.Parse([]string{
		"--node", "n1", "--xds-address", ln.Addr().String(), "--server-name", "istiod.test",
		"--root-cert", dir + "/root.pem", "--token-file", dir + "/token", "--zds-socket", filepath.Join(dir, "zds.sock"),
		"--admin", ports[0], "--metrics", ports[1], "--readiness", ports[2], "--drain-deadline", "1s", "--log-level", "error",
	}, func(string) string { return "" }, io.Discard)
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: t, cp: cp, agent: agent, cfg: cfg, cancel: cancel, result: make(chan error, 1)}
	go func() { p.result <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		p.stop()
		agent.Close()
		server.Stop()
		<-served
		authority.Close()
	})
	return p
}

// stop ends ztunnel, once.
func (p *process) stop() {
	p.t.Helper()
	p.cancel()
	select {
	case err := <-p.result:
		if err != nil {
			p.t.Errorf("Run: %v", err)
		}
		p.result <- nil
	case <-time.After(patience):
		p.t.Fatal("ztunnel did not end")
	}
}

// page fetches a page until it answers with the status and text.
func (p *process) page(addr, path string, status int, text string) string {
	p.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			last = err.Error()
			time.Sleep(time.Millisecond)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if last = fmt.Sprintf("%d %s", resp.StatusCode, body); resp.StatusCode == status && strings.Contains(last, text) {
			return string(body)
		}
	}
	p.t.Fatalf("GET %s%s: %s; want %d with %q", addr, path, last, status, text)
	return ""
}

func TestReadinessNamesWhatIsPending(t *testing.T) {
	p := startProcess(t)
	p.page(p.cfg.ReadinessAddr, "/healthz/ready", 500, "first full answer of the control plane "+p.cfg.XDSAddress)
	close(p.cp.release)
	p.page(p.cfg.ReadinessAddr, "/healthz/ready", 500, "list of the node agent's pods")
	conn, err := p.agent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := errors.Join(conn.ReceiveHello(), conn.Send(&zds.SnapshotSent{}), conn.ReceiveAck()); err != nil {
		t.Fatal(err)
	}
	p.page(p.cfg.ReadinessAddr, "/healthz/ready", 200, "ready")
	p.page(p.cfg.MetricsAddr, "/stats/prometheus", 200, "istio_build")
	p.page(p.cfg.AdminAddr, "/config_dump", 200, `"workloadState"`)
}

func TestQuitEndsTheProcess(t *testing.T) {
	p := startProcess(t)
	p.page(p.cfg.AdminAddr, "/", 200, "ztunnel")
	resp, err := http.Post("http://"+p.cfg.AdminAddr+"/quitquitquit", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	select {
	case err := <-p.result:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		p.result <- nil
	case <-time.After(patience):
		t.Fatal("still running")
	}
}

func TestPodOfTheAgentIsServedAndShown(t *testing.T) {
	roottest.Require(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	p := startProcess(t, &api.Workload{
		Uid: "Kubernetes//Pod/shop/web", Name: "web", Namespace: "shop", ServiceAccount: "web", ClusterId: "Kubernetes",
		TrustDomain: "cluster.local", TunnelProtocol: api.TunnelProtocol_HBONE, Node: "n1", WorkloadName: "web",
		Addresses: [][]byte{netip.MustParseAddr("10.78.0.9").AsSlice()},
	})
	close(p.cp.release)
	conn, err := p.agent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	add := &zds.Add{UID: "uid-web", NS: ns, Info: zds.Info{Name: "web", Namespace: "shop", ServiceAccount: "web"}}
	if err := errors.Join(conn.ReceiveHello(), conn.Send(add), conn.ReceiveAck(), conn.Send(&zds.SnapshotSent{}), conn.ReceiveAck()); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error {
		for _, port := range []int{15001, 15006, 15008} {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				c.Close()
			} else if !errors.Is(err, syscall.ECONNRESET) { // whoever accepted it may refuse it
				return err
			}
		}
		return nil
	}); err != nil {
		t.Errorf("after the acknowledgement: %v", err)
	}
	p.page(p.cfg.AdminAddr, "/config_dump", 200, "spiffe://cluster.local/ns/shop/sa/web")
	var dump struct {
		Workloads     []json.RawMessage
		Certificates  []struct{ Identity, State string }
		WorkloadState map[string]struct {
			State     string
			Addresses []string
		}
	}
	if err := json.Unmarshal([]byte(p.page(p.cfg.AdminAddr, "/config_dump", 200, "")), &dump); err != nil {
		t.Fatal(err)
	}
	if w := dump.WorkloadState["uid-web"]; w.State != "Up" || len(w.Addresses) != 1 || len(dump.Workloads) != 1 || len(dump.Certificates) != 1 {
		t.Errorf("dump %+v", dump)
	}
	p.stop()
	if err := ns.Do(func() error {
		if _, err := net.Dial("tcp", "127.0.0.1:15008"); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("connect to 15008 of the pod that left: %v, want it refused", err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
