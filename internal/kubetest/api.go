package kubetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Options say what runs. The zero value is etcd and kube-apiserver, with the
// custom resources.
type Options struct {
	// ControllerManager also runs kube-controller-manager. Without it there is
	// no default service account, so pods without one are let in; no
	// EndpointSlice is written and no deleted namespace goes away.
	ControllerManager bool
	// Controllers are those that the controller manager runs, as its flag has
	// them; empty means all but those that would take pods away for want of a
	// kubelet.
	Controllers []string
	// ServerArgs are further flags for kube-apiserver.
	ServerArgs []string
	// WithoutCRDs leaves the custom resources out.
	WithoutCRDs bool
}

// key tells Options apart, for Shared.
func (o Options) key() string {
	return fmt.Sprint(o.ControllerManager, o.Controllers, o.ServerArgs, o.WithoutCRDs)
}

// withoutKubelets are all controllers but those that act on nodes without a
// kubelet.
var withoutKubelets = []string{"*", "-node-lifecycle-controller", "-taint-eviction-controller", "-pod-garbage-collector-controller"}

// API is a running Kubernetes API. It is safe for concurrent use, but for
// Restart and Stop.
type API struct {
	// Config is the administrator's, without limits of its own. Copy it before
	// changing it.
	Config *rest.Config
	// Kubeconfig is a file with the same.
	Kubeconfig string
	// Client is a clientset of Config.
	Client kubernetes.Interface
	// Dir holds logs and state.
	Dir string

	options    Options
	bin        string
	pki        *pki
	host       string
	port       int
	etcdURL    string
	etcd       *process
	server     *process
	controller *process
}

// Launch starts an API whose files lie in dir, and waits until it serves and the
// custom resources are established. The caller must Stop it. A test calls Start
// or Shared instead.
func Launch(ctx context.Context, dir string, options Options) (*API, error) {
	bin, err := Binaries()
	if err != nil {
		return nil, err
	}
	var failures []error
	for attempt := range startAttempts {
		sub := filepath.Join(dir, strconv.Itoa(attempt))
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, err
		}
		a := &API{Dir: sub, options: options, bin: bin}
		err := a.start(ctx)
		if err == nil {
			return a, nil
		}
		a.Stop()
		failures = append(failures, err)
		if !errors.Is(err, errEnded) || ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("kubetest: %w", errors.Join(failures...))
}

func (a *API) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	// An address of our own among the loopback's sixteen million keeps others
	// from taking a port in between.
	pid := os.Getpid()
	a.host = fmt.Sprintf("127.%d.%d.%d", 64+pid>>14&63, pid>>7&127, 1+pid&127)
	ports, err := freePorts(a.host, 3)
	if err != nil {
		return err
	}
	a.port, a.etcdURL = ports[0], "http://"+net.JoinHostPort(a.host, strconv.Itoa(ports[1]))
	if a.pki, err = newPKI(a.Dir); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	if err := a.pki.server("apiserver", a.host, "localhost", serviceIP, "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	if a.Kubeconfig, a.Config, err = a.kubeconfig("admin", "system:masters"); err != nil {
		return err
	}
	if a.Client, err = kubernetes.NewForConfig(a.Config); err != nil {
		return err
	}
	peer := "http://" + net.JoinHostPort(a.host, strconv.Itoa(ports[2]))
	if a.etcd, err = startProcess(a.Dir, filepath.Join(a.bin, "etcd"), "--name=kubetest",
		"--data-dir="+filepath.Join(a.Dir, "etcd"), "--listen-client-urls="+a.etcdURL, "--advertise-client-urls="+a.etcdURL,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=kubetest="+peer,
		"--unsafe-no-fsync", "--log-level=warn"); err != nil {
		return err
	}
	if err := a.startServer(ctx); err != nil {
		return err
	}
	if !a.options.WithoutCRDs {
		if err := installCRDs(ctx, a.Config); err != nil {
			return err
		}
	}
	return a.startControllers()
}

func (a *API) startServer(ctx context.Context) error {
	args := []string{
		"--etcd-servers=" + a.etcdURL, "--bind-address=" + a.host, "--advertise-address=" + a.host, "--secure-port=" + strconv.Itoa(a.port),
		"--endpoint-reconciler-type=none", // a loopback address is no endpoint
		"--tls-cert-file=" + a.pki.file("apiserver.crt"), "--tls-private-key-file=" + a.pki.file("apiserver.key"),
		"--client-ca-file=" + a.pki.file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + a.pki.file("sa.key"), "--service-account-signing-key-file=" + a.pki.file("sa.key"),
		"--service-cluster-ip-range=" + serviceRange, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", "--profiling=false",
	}
	if !a.options.ControllerManager {
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	var err error
	if a.server, err = startProcess(a.Dir, filepath.Join(a.bin, "kube-apiserver"), append(args, a.options.ServerArgs...)...); err != nil {
		return err
	}
	return a.awaitReady(ctx)
}

func (a *API) startControllers() error {
	if !a.options.ControllerManager {
		return nil
	}
	kubeconfig, _, err := a.kubeconfig("system:kube-controller-manager")
	if err != nil {
		return err
	}
	controllers := a.options.Controllers
	if len(controllers) == 0 {
		controllers = withoutKubelets
	}
	a.controller, err = startProcess(a.Dir, filepath.Join(a.bin, "kube-controller-manager"),
		"--kubeconfig="+kubeconfig, "--root-ca-file="+a.pki.file("ca.crt"), "--service-account-private-key-file="+a.pki.file("sa.key"),
		"--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0",
		"--kube-api-qps=1000", "--kube-api-burst=2000", // the default 20 a second delays the first service account by 5 s
		"--controllers="+strings.Join(controllers, ","))
	return err
}

// errEnded is a process that did not stay up, as one whose port was taken.
var errEnded = errors.New("a program of Kubernetes has ended")

// awaitReady returns when the API serves.
func (a *API) awaitReady(ctx context.Context) error {
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for {
		for _, p := range []*process{a.etcd, a.server} {
			if p.ended() {
				return fmt.Errorf("%w: %w", errEnded, p.failure())
			}
		}
		_, err := a.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kube-apiserver is not ready: %w (logs in %s)", err, a.Dir)
		case <-ticker.C:
		}
	}
}

// kubeconfig writes a file for a user with a certificate.
func (a *API) kubeconfig(user string, groups ...string) (string, *rest.Config, error) {
	cert, key, err := a.pki.issue(user, groups)
	if err != nil {
		return "", nil, fmt.Errorf("certificate of %s: %w", user, err)
	}
	c := clientcmdapi.NewConfig()
	c.Clusters["kubetest"] = &clientcmdapi.Cluster{Server: "https://" + net.JoinHostPort(a.host, strconv.Itoa(a.port)), CertificateAuthorityData: a.pki.pem}
	c.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	c.Contexts["kubetest"] = &clientcmdapi.Context{Cluster: "kubetest", AuthInfo: user}
	c.CurrentContext = "kubetest"
	path := a.pki.file(strings.ReplaceAll(user, ":", "-") + ".kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		return "", nil, err
	}
	config, err := clientcmd.NewDefaultClientConfig(*c, nil).ClientConfig()
	if err != nil {
		return "", nil, err
	}
	config.QPS = -1
	return path, config, nil
}

// Restart ends kube-apiserver and starts it again at the same address with the
// same state, as an upgrade of the control plane does.
func (a *API) Restart(ctx context.Context) error {
	a.server.stop(stopGrace)
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return a.startServer(ctx)
}

// Stop ends all processes and waits until they have. Files stay.
func (a *API) Stop() {
	a.controller.stop(stopGrace)
	// Both would take their time to part from clients and peers that are of no
	// more interest.
	a.server.stop(0)
	a.etcd.stop(0)
}

// The addresses of Services.
const (
	serviceRange = "10.96.0.0/16"
	serviceIP    = "10.96.0.1"
)

// freePorts returns ports on which nobody listens at host.
func freePorts(host string, n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
