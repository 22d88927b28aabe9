package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tulle-mesh/tulle/e2e/cluster/daemon"
	"github.com/tulle-mesh/tulle/e2e/cluster/pki"
	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

// Names of the control plane's processes, in the order of their start.
const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	forwarder         = "forwarder"
)

var controlPlane = []string{etcd, apiServer, controllerManager, scheduler, forwarder}

// preferredPort is where the API server is reached on the host's loopback, so that
// kubeconfigs stay valid from cluster to cluster; when it is taken, any other.
const preferredPort = 16443

// masters may do everything.
var masters = []string{"system:masters"}

// makePKI writes the certificates of everybody.
func (c *Cluster) makePKI(t topology.Topology, endpoint string) error {
	ca, err := pki.New(c.path("pki"))
	if err != nil {
		return err
	}
	lan := fmt.Sprintf("https://%s:%d", topology.ControlPlaneIP, topology.APIPort)
	const svc = "kubernetes.default.svc"
	errs := []error{
		ca.Issue("apiserver", pki.Name{User: "kube-apiserver", Hosts: []string{
			"127.0.0.1", "::1", "localhost", topology.ControlPlaneIP.String(), topology.ControlPlaneIP6.String(), topology.APIServiceIP.String(),
			"kubernetes", "kubernetes.default", svc, svc + "." + topology.ClusterDomain,
		}}),
		ca.Issue("apiserver-kubelet-client", pki.Name{User: "kube-apiserver-kubelet-client", Groups: masters}),
		ca.Issue("front-proxy-client", pki.Name{User: "front-proxy-client"}),
		ca.Kubeconfig("admin", "https://"+endpoint, pki.Name{User: "admin", Groups: masters}),
		ca.Kubeconfig(controllerManager, lan, pki.Name{User: "system:kube-controller-manager"}),
		ca.Kubeconfig(scheduler, lan, pki.Name{User: "system:kube-scheduler"}),
		ca.Kubeconfig("kube-proxy", lan, pki.Name{User: "system:kube-proxy"}),
	}
	for _, n := range t.All() {
		name := pki.Name{User: "system:node:" + n.Name, Groups: []string{"system:nodes"}}
		errs = append(errs, ca.Kubeconfig("kubelet-"+n.Name, lan, name))
		name.Hosts = []string{n.Name, n.IP.String(), n.IP6.String()}
		errs = append(errs, ca.Issue("kubelet-server-"+n.Name, name))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	b, err := os.ReadFile(c.path("pki", "admin.kubeconfig"))
	if err != nil {
		return err
	}
	return os.WriteFile(c.Kubeconfig(), b, 0o600)
}

// controlPlaneArgs returns the arguments of each process.
func (c *Cluster) controlPlaneArgs(t topology.Topology) map[string][]string {
	pki := func(name string) string { return c.path("pki", name) }
	return map[string][]string{
		// Nobody keeps what this etcd holds: it need not reach the disk.
		etcd: {
			"--data-dir=" + c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380",
		},
		apiServer: {
			"--etcd-servers=http://127.0.0.1:2379", "--advertise-address=" + topology.ControlPlaneIP.String(),
			fmt.Sprintf("--secure-port=%d", topology.APIPort), "--service-cluster-ip-range=" + t.ServiceCIDRs(),
			"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"), "--client-ca-file=" + pki("ca.crt"),
			"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP", "--kubelet-certificate-authority=" + pki("ca.crt"),
			"--service-account-issuer=https://kubernetes.default.svc." + topology.ClusterDomain,
			"--service-account-key-file=" + pki("sa.key"), "--service-account-signing-key-file=" + pki("sa.key"),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			"--requestheader-client-ca-file=" + pki("ca.crt"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-username-headers=X-Remote-User",
			"--proxy-client-cert-file=" + pki("front-proxy-client.crt"), "--proxy-client-key-file=" + pki("front-proxy-client.key"),
			// No kube-proxy serves the control plane's namespace: webhooks are dialled by endpoint.
			"--enable-aggregator-routing=true", "--profiling=false",
		},
		// With the default limits of requests, the controllers take 5 s to start.
		controllerManager: {
			"--kubeconfig=" + pki(controllerManager+".kubeconfig"), "--root-ca-file=" + pki("ca.crt"),
			"--service-account-private-key-file=" + pki("sa.key"), "--use-service-account-credentials=true",
			"--leader-elect=false", "--bind-address=127.0.0.1",
			"--cluster-signing-cert-file=" + pki("ca.crt"), "--cluster-signing-key-file=" + pki("ca.key"),
			"--kube-api-qps=300", "--kube-api-burst=600",
			// A dead node is noticed within a test's patience.
			"--node-monitor-period=2s", "--node-monitor-grace-period=16s",
		},
		scheduler: {
			"--kubeconfig=" + pki(scheduler+".kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1",
			"--kube-api-qps=300", "--kube-api-burst=600",
		},
	}
}

// startProcesses starts programs of Kubernetes in the control plane's namespace. The API
// server tries until etcd is there. The controllers and the scheduler wait for the API
// server for ten seconds only and then end, so they are started when it is ready.
func (c *Cluster) startProcesses(r *record, names ...string) error {
	ns, err := openNetns(topology.ControlPlaneNetns)
	if err != nil {
		return err
	}
	defer ns.Close()
	args := c.controlPlaneArgs(r.Topology)
	for _, name := range names {
		p, err := daemon.Start(daemon.Spec{
			Netns: ns, Path: filepath.Join(r.Binaries, name), Args: args[name], Log: filepath.Join(c.Logs(), name+".log"),
		})
		if err != nil {
			return err
		}
		r.Processes[name] = p
	}
	return nil
}

// startForwarder has the API server reached from the host.
func (c *Cluster) startForwarder(r *record, front net.Listener) error {
	ns, err := openNetns(topology.ControlPlaneNetns)
	if err != nil {
		return err
	}
	defer ns.Close()
	f, err := front.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := daemon.Start(daemon.Spec{
		Netns: ns, Path: c.path("bin", "cluster"), Files: []*os.File{f}, Log: filepath.Join(c.Logs(), forwarder+".log"),
		Args: []string{"forward", fmt.Sprintf("%s:%d", topology.ControlPlaneIP, topology.APIPort)},
	})
	r.Processes[forwarder] = p
	return err
}

// listenFront opens the port on the host's loopback that leads to the API server.
func listenFront() (net.Listener, error) {
	if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", preferredPort)); err == nil {
		return ln, nil
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// Forward serves the listener that the process was given as descriptor 3, a port
// on the host, and passes its connections to addr, in the process's own network.
// So the API server is reached from the host without a link or a route of it.
func Forward(addr string) error {
	ln, err := net.FileListener(os.NewFile(3, "front"))
	if err != nil {
		return fmt.Errorf("no listener as descriptor 3; `cluster up` starts the forwarder: %w", err)
	}
	for {
		client, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			server, err := net.DialTimeout("tcp", addr, 10*time.Second)
			if err != nil {
				return
			}
			defer server.Close()
			go func() {
				_, _ = io.Copy(server, client)
				_ = server.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(client, server)
			_ = client.(*net.TCPConn).CloseWrite()
		}()
	}
}

// awaitAPIServer blocks until the API server is ready to serve.
func (c *Cluster) awaitAPIServer(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, apiServerWithin)
	defer cancel()
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(c.path("pki", "ca.crt"))
	if err != nil {
		return err
	}
	pool.AppendCertsFromPEM(ca)
	cert, err := tls.LoadX509KeyPair(c.path("pki", "admin.crt"), c.path("pki", "admin.key"))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	return poll(ctx, "the API server is not ready", func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+endpoint+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
			return fmt.Errorf("%s: %s", resp.Status, b)
		}
		return nil
	})
}

// poll calls f until it returns nil. When ctx ends first it tells what f said last.
func poll(ctx context.Context, what string, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%w)", what, err, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}
