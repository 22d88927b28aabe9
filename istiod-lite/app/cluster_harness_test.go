package app_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/tulle-mesh/tulle/certs/caclient"
	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/istiod-lite/app"
	"github.com/tulle-mesh/tulle/istiod-lite/config"
	"github.com/tulle-mesh/tulle/manifests"
)

const (
	system      = "istio-system"
	apiAudience = "https://kubernetes.default.svc.cluster.local"
)

// cluster is an API server with what an installation puts there, but for the
// pods.
type cluster struct {
	*kubetest.API
	t *testing.T
}

// newCluster gives the service account istiod the rights of the manifests, and
// no more.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{kubetest.Start(t, kubetest.Options{}), t}
	t.Cleanup(c.Close)
	values, err := manifests.Default()
	must(t, err)
	objects, err := manifests.Render(manifests.Release{Namespace: system, Version: "test"}, values)
	must(t, err)
	client, err := dynamic.NewForConfig(c.Config)
	must(t, err)
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}})
	for _, account := range []string{"istiod", "ztunnel"} {
		c.account(system, account)
	}
	for _, o := range objects {
		if o.GroupVersionKind().Group != "rbac.authorization.k8s.io" {
			continue
		}
		resource := o.GroupVersionKind().GroupVersion().WithResource(strings.ToLower(o.GetKind()) + "s")
		var in dynamic.ResourceInterface = client.Resource(resource)
		if o.GetNamespace() != "" {
			in = client.Resource(resource).Namespace(o.GetNamespace())
		}
		_, err := in.Create(t.Context(), &unstructured.Unstructured{Object: o.Object}, metav1.CreateOptions{})
		must(t, err)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) create(ns *corev1.Namespace) {
	c.t.Helper()
	_, err := c.Client.CoreV1().Namespaces().Create(c.t.Context(), ns, metav1.CreateOptions{})
	must(c.t, err)
}

func (c *cluster) account(ns, name string) {
	c.t.Helper()
	_, err := c.Client.CoreV1().ServiceAccounts(ns).Create(c.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(c.t, err)
}

// pod makes a running pod of a service account on a node.
func (c *cluster) pod(ns, name, account, node, ip string) *corev1.Pod {
	c.t.Helper()
	pods := c.Client.CoreV1().Pods(ns)
	_, err := c.Client.CoreV1().Nodes().Create(c.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	if err != nil && !strings.Contains(err.Error(), "already exists") {
		c.t.Fatal(err)
	}
	pod, err := pods.Create(c.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"ambient.istio.io/redirection": "enabled"}},
		Spec:       corev1.PodSpec{ServiceAccountName: account, NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	must(c.t, err)
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	pod, err = pods.UpdateStatus(c.t.Context(), pod, metav1.UpdateOptions{})
	must(c.t, err)
	return pod
}

// kubeconfig is one of the service account istiod, with a token of its own.
func (c *cluster) kubeconfig() string {
	c.t.Helper()
	token, err := c.AccountToken(c.t.Context(), system, "istiod", apiAudience)
	must(c.t, err)
	k := clientcmdapi.NewConfig()
	k.Clusters["c"] = &clientcmdapi.Cluster{Server: c.Config.Host, CertificateAuthorityData: c.Config.CAData}
	k.AuthInfos["istiod"] = &clientcmdapi.AuthInfo{Token: token}
	k.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "istiod"}
	k.CurrentContext = "c"
	path := filepath.Join(c.t.TempDir(), "kubeconfig")
	must(c.t, clientcmd.WriteToFile(*k, path))
	return path
}

// replica is one control plane in the cluster.
type replica struct {
	*cluster
	app    *app.App
	logs   *observer.ObservedLogs
	cancel context.CancelFunc
	done   chan error
}

func (c *cluster) replica(name string) *replica {
	c.t.Helper()
	cfg := config.Default()
	cfg.Kubernetes = config.Kubernetes{Enabled: true, Kubeconfig: c.kubeconfig(), PodName: name, PodNamespace: system}
	cfg.Listen, cfg.Admin, cfg.Metrics = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.DrainDeadline = 200 * time.Millisecond
	core, logs := observer.New(zapcore.DebugLevel)
	a, err := app.New(cfg, app.Options{Logger: zap.New(core)})
	must(c.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &replica{cluster: c, app: a, logs: logs, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- a.Run(ctx) }()
	c.t.Cleanup(r.stop)
	return r
}

func (r *replica) stop() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("Run: %v", err)
		}
	case <-time.After(bound):
		r.t.Fatal("the replica did not end")
	}
	if r.t.Failed() {
		for _, e := range r.logs.All() {
			r.t.Log(e.Level, e.LoggerName, e.Message, e.ContextMap())
		}
	}
}

// get reads a page of the interface for others.
func (r *replica) get(path string) (int, string) {
	client := &http.Client{Timeout: bound, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + r.app.MetricsAddr().String() + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func (r *replica) awaitReady() {
	r.t.Helper()
	deadline(r.t, "the replica to be ready", func() bool {
		code, _ := r.get("/healthz/ready")
		return code == http.StatusOK
	})
}

// root is what pods mount to know the control plane by.
func (c *cluster) root(ns string) string {
	c.t.Helper()
	var root string
	deadline(c.t, "the root in "+ns, func() bool {
		cm, err := c.Client.CoreV1().ConfigMaps(ns).Get(c.t.Context(), "istio-ca-root-cert", metav1.GetOptions{})
		if err == nil {
			root = cm.Data["root-cert.pem"]
		}
		return root != ""
	})
	return root
}

// tokenFile is what a kubelet projects.
func (c *cluster) tokenFile(pod *corev1.Pod, audience ...string) string {
	c.t.Helper()
	token, err := c.Token(c.t.Context(), pod, 0, audience...)
	must(c.t, err)
	return tokenPath(c.t, token)
}

func tokenPath(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(path, []byte(token), 0o600))
	return path
}

func (r *replica) tls() func() (*tls.Config, error) {
	roots, err := mtls.RootsFromPEM([]byte(r.root(system)))
	must(r.t, err)
	return func() (*tls.Config, error) { return mtls.ControlPlaneClient(roots, "istiod.istio-system.svc"), nil }
}

// connect subscribes as a node proxy does.
func (r *replica) connect(tokenFile string) *mirror {
	return connectMirror(r.t, xdsclient.DialConfig{Address: r.app.Addr().String(), TLS: r.tls(), TokenFile: tokenFile, ClusterID: "Kubernetes"})
}

// certificates asks for certificates: as a node proxy those of others, or as own
// its own.
func (r *replica) certificates(tokenFile string, own bool) *caclient.Client {
	r.t.Helper()
	cfg, err := r.tls()()
	must(r.t, err)
	conn, err := caclient.Dial(r.app.Addr().String(), cfg)
	must(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	return caclient.New(conn, caclient.Config{Token: caclient.TokenFile{Path: tokenFile}, Own: own})
}
