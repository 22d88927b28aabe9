package kube_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/kube"
	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/agent/sandbox"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kubetest.Package(m)) }

var ambient = map[string]string{membership.Label: membership.Ambient}

// proxy is a ztunnel that acknowledges everything while it is up.
type proxy struct {
	manager *enrol.Manager
	mu      sync.Mutex
	refuse  error
}

func (p *proxy) Send(uid string) {
	request, answered := p.manager.Request(uid)
	if request == nil {
		return
	}
	p.mu.Lock()
	refuse := p.refuse
	p.mu.Unlock()
	answered(refuse)
}

func (p *proxy) Delete(context.Context, string) error { return nil }

// probes remembers what the node's rules would let in.
type probes struct {
	mu    sync.Mutex
	pods  map[string][]netip.Addr
	known bool
}

func (p *probes) Set(uid string, a []netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods[uid] = a
	return nil
}

func (p *probes) Delete(uid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pods, uid)
	return nil
}

func (p *probes) Known() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = true
	return nil
}

func (p *probes) has(uid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pods[uid]) > 0
}

// finder knows the running pods that the test made.
type finder struct {
	mu   sync.Mutex
	pods map[string]sandbox.Sandbox
}

func (f *finder) Find(uids []string) (map[string]sandbox.Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := maps.Clone(f.pods)
	maps.DeleteFunc(found, func(uid string, _ sandbox.Sandbox) bool {
		for _, u := range uids {
			if u == uid {
				return false
			}
		}
		return true
	})
	return found, nil
}

func (f *finder) Inhabited(id netns.ID) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.pods {
		if s.ID == id {
			return true, nil
		}
	}
	return false, nil
}

// node is an agent's part that follows Kubernetes, on an API server of its own
// kind and with real network namespaces.
type node struct {
	t       *testing.T
	api     *kubetest.API
	name    string
	dir     string
	client  kubernetes.Interface
	log     *zap.Logger
	proxy   *proxy
	probes  *probes
	finder  *finder
	manager *enrol.Manager
	*kube.Controller
	// unfollow ends run, stop everything.
	unfollow, stop func()
}

func newNode(t *testing.T) *node {
	t.Helper()
	api := kubetest.Shared(t, kubetest.Options{WithoutCRDs: true})
	n := &node{
		t: t, api: api, dir: t.TempDir(), client: api.Client, log: zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel)),
		probes: &probes{pods: map[string][]netip.Addr{}}, finder: &finder{pods: map[string]sandbox.Sandbox{}},
	}
	made, err := api.Client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "n-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.name = made.Name
	t.Cleanup(func() { n.end() })
	n.open()
	return n
}

// open makes what an agent has at its start, without following Kubernetes yet.
func (n *node) open() {
	n.t.Helper()
	n.proxy = &proxy{}
	var err error
	n.manager, err = enrol.New(enrol.Config{
		StateDir: n.dir, Proxies: n.proxy, Interval: 20 * time.Millisecond, Parting: time.Millisecond, Logger: n.log.Named("enrol"),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.proxy.manager = n.manager
	n.manager.Restore(n.t.Context())
	n.manager.Connected(true)
	for _, uid := range n.manager.UIDs() {
		n.proxy.Send(uid)
	}
	n.Controller, err = kube.New(kube.Config{
		Client: n.client, Node: n.name, Exclude: []string{"kube-system"}, Pods: n.manager, Finder: n.finder, Probes: n.probes,
		Settle: 300 * time.Millisecond, Resync: 200 * time.Millisecond, Logger: n.log.Named("kube"),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	done := make(chan error, 1)
	go func() { done <- n.manager.Run(ctx) }()
	n.stop = func() {
		cancel()
		<-done
		n.Controller.Close()
		n.manager.Close()
	}
}

// run follows Kubernetes until end.
func (n *node) run() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	select {
	case <-n.Synced():
	case <-time.After(podtest.Patience):
		n.t.Fatal("never synced")
	}
	stop := n.stop
	n.unfollow = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
	n.stop = func() {
		n.unfollow()
		stop()
	}
}

func (n *node) end() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

func (n *node) eventually(what string, f func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(podtest.Patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// pod is one of the node's, in the network namespace of a World.
type pod struct {
	*corev1.Pod
	n    *node
	w    podtest.World
	path string
}

// newPod creates a pod that the kubelet has not started yet; where its runtime
// keeps its namespace exists.
func (n *node) newPod(namespace string, change ...func(*corev1.Pod)) *pod {
	n.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: namespace},
		Spec: corev1.PodSpec{
			NodeName: n.name, Containers: []corev1.Container{{Name: "app", Image: "app"}}, ServiceAccountName: "web",
		},
	}
	for _, c := range change {
		c(p)
	}
	made, err := n.api.Client.CoreV1().Pods(namespace).Create(n.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	out := &pod{Pod: made, n: n, w: podtest.New(n.t), path: filepath.Join(n.t.TempDir(), "netns")}
	out.link(out.w.Pod)
	return out
}

// link makes the pod's path lead to ns, as a mount does.
func (p *pod) link(ns *netns.NS) {
	p.n.t.Helper()
	os.Remove(p.path)
	if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", ns.FD()), p.path); err != nil {
		p.n.t.Fatal(err)
	}
}

// starts says that the pod's processes run, and reports it as the kubelet does.
func (p *pod) starts(ns *netns.NS) {
	p.n.t.Helper()
	p.n.finder.mu.Lock()
	p.n.finder.pods[string(p.UID)] = sandbox.Sandbox{Path: p.path, ID: ns.ID()}
	p.n.finder.mu.Unlock()
	p.setStatus(corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: podtest.Pod4.String(), PodIPs: []corev1.PodIP{{IP: podtest.Pod4.String()}, {IP: podtest.Pod6.String()}},
	})
}

// stops says that the last of the pod's processes has ended.
func (p *pod) stops() {
	p.n.finder.mu.Lock()
	delete(p.n.finder.pods, string(p.UID))
	p.n.finder.mu.Unlock()
}

func (p *pod) setStatus(s corev1.PodStatus) {
	p.n.t.Helper()
	for {
		live := p.live()
		live.Status = s
		_, err := p.n.api.Client.CoreV1().Pods(p.Namespace).UpdateStatus(p.n.t.Context(), live, metav1.UpdateOptions{})
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) { // with the agent's annotation
			p.n.t.Fatal(err)
		}
	}
}

func (p *pod) live() *corev1.Pod {
	p.n.t.Helper()
	live, err := p.n.api.Client.CoreV1().Pods(p.Namespace).Get(p.n.t.Context(), p.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		p.n.t.Fatal(err)
	}
	return live
}

func (p *pod) annotation() string { return p.live().Annotations[membership.Redirection] }

func (p *pod) captured() bool {
	p.n.t.Helper()
	diffs, err := redirect.Verify(p.w.Pod, redirect.Config{})
	if err != nil {
		p.n.t.Fatal(err)
	}
	return len(diffs) == 0
}

func (p *pod) enrolled() bool {
	s, ok := p.n.manager.Pod(string(p.UID))
	return ok && s.State == enrol.Enrolled
}

// expect waits for the state that lasts.
func (p *pod) expect(when string, captured bool, annotation string) {
	p.n.t.Helper()
	p.n.eventually(fmt.Sprintf("%s: captured %v, annotation %q", when, captured, annotation), func() bool {
		return p.captured() == captured && p.enrolled() == captured && p.annotation() == annotation
	})
}

func (p *pod) request() cni.Request {
	return cni.Request{
		ContainerID: "c", IfName: "eth0", Netns: p.path, Namespace: p.Namespace, Name: p.Name, UID: string(p.UID),
		Addresses: []netip.Addr{podtest.Pod4},
	}
}

// label sets the label of the namespace, or takes it away.
func (n *node) label(namespace, value string) {
	n.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, membership.Label, value)
	if value == "" {
		patch = fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, membership.Label)
	}
	if _, err := n.api.Client.CoreV1().Namespaces().Patch(n.t.Context(), namespace, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

func (p *pod) label(value string) {
	p.n.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, membership.Label, value)
	if _, err := p.n.api.Client.CoreV1().Pods(p.Namespace).Patch(p.n.t.Context(), p.Name, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{}); err != nil {
		p.n.t.Fatal(err)
	}
}

func (p *pod) delete() {
	p.n.t.Helper()
	now := int64(0)
	if err := p.n.api.Client.CoreV1().Pods(p.Namespace).Delete(p.n.t.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		p.n.t.Fatal(err)
	}
}

var metaPatch metav1.PatchOptions

var errAway = errors.New("no certificate")
