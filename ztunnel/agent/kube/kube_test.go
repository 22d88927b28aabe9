package kube_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/ztunnel/agent/kube"
	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

func TestNewPodIsCapturedBeforeItStarts(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	answer, err := n.Add(t.Context(), p.request())
	if err != nil || !answer.Enrolled {
		t.Fatalf("%+v, %v", answer, err)
	}
	if !p.captured() || !n.probes.has(string(p.UID)) {
		t.Errorf("captured %v, probes let in %v", p.captured(), n.probes.has(string(p.UID)))
	}
	p.expect("added", true, membership.Enabled)
	if answer, err := n.Check(t.Context(), p.request()); err != nil || !answer.Enrolled {
		t.Errorf("check: %+v, %v", answer, err)
	}
	p.starts(p.w.Pod)
	p.expect("started", true, membership.Enabled)
	if _, err := n.Delete(t.Context(), p.request()); err != nil {
		t.Fatal(err)
	}
	if p.captured() || p.enrolled() {
		t.Error("still captured after DEL")
	}
}

func TestNewPodWaitsForTheProxy(t *testing.T) {
	n := newNode(t)
	n.proxy.refuse = errAway
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	if _, err := n.Add(t.Context(), p.request()); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Fatalf("Add: %v", err)
	}
	if !p.captured() {
		t.Error("a pod that waits is not captured")
	}
	n.eventually("the annotation says pending", func() bool { return p.annotation() == membership.Pending })
	// The runtime gives up on this namespace and comes again.
	if _, err := n.Delete(t.Context(), p.request()); err != nil {
		t.Fatal(err)
	}
	n.proxy.mu.Lock()
	n.proxy.refuse = nil
	n.proxy.mu.Unlock()
	if _, err := n.Add(t.Context(), p.request()); err != nil {
		t.Fatal(err)
	}
	p.expect("the proxy is there", true, membership.Enabled)
}

func TestPodsOutsideOfTheMeshPass(t *testing.T) {
	n := newNode(t)
	n.run()
	for name, p := range map[string]*pod{
		"no label": n.newPod(n.api.Namespace(t, nil)),
		"none on the pod": n.newPod(n.api.Namespace(t, ambient), func(p *corev1.Pod) {
			p.Labels = map[string]string{membership.Label: membership.None}
		}),
		"sidecar": n.newPod(n.api.Namespace(t, ambient), func(p *corev1.Pod) {
			p.Annotations = map[string]string{"sidecar.istio.io/status": "{}"}
		}),
	} {
		answer, err := n.Add(t.Context(), p.request())
		if err != nil || answer.Enrolled || answer.Reason == "" {
			t.Errorf("%s: %+v, %v", name, answer, err)
		}
		if _, err := n.Check(t.Context(), p.request()); err != nil {
			t.Errorf("%s: check: %v", name, err)
		}
		p.starts(p.w.Pod)
	}
	for _, s := range n.Status() {
		if s.Member || s.State != "outside" {
			t.Errorf("%+v", s)
		}
	}
}

// A label that was set just before the pod was made counts, however late the
// cache hears of it: here it never does.
func TestLabelThatTheCacheHasNotHeardOfCounts(t *testing.T) {
	n := newNode(t)
	p := n.newPod(n.api.Namespace(t, ambient))
	if answer, err := n.Add(t.Context(), p.request()); err != nil || !answer.Enrolled {
		t.Errorf("%+v, %v", answer, err)
	}
	if !p.captured() {
		t.Error("not captured")
	}
}

func TestUnknownPodsAndReplacedOnesDoNotStart(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	q := p.request()
	q.UID = "ffffffff-0000-4000-8000-000000000000"
	if _, err := n.Add(t.Context(), q); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("another UID: %v", err)
	}
	q.Name = "nobody"
	if _, err := n.Add(t.Context(), q); err == nil || !strings.Contains(err.Error(), "knows no pod") {
		t.Errorf("no such pod: %v", err)
	}
	// Runtimes that tell no UID.
	q = p.request()
	q.UID = ""
	if answer, err := n.Add(t.Context(), q); err != nil || !answer.Enrolled {
		t.Errorf("without UID: %+v, %v", answer, err)
	}
}

func TestNobodyStartsWhileMembershipIsUnknown(t *testing.T) {
	n := newNode(t)
	p := n.newPod(n.api.Namespace(t, nil))
	away, err := kubernetes.NewForConfig(&rest.Config{Host: "https://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	n.end()
	n.client = away
	n.open()
	if _, err := n.Add(t.Context(), p.request()); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("Add without an API server: %v", err)
	}
}

// An API server that refuses the agent serves others, who may set labels: what the
// agent knew last does not count then.
func TestCacheDecidesOnlyWhenTheAPIServerIsAway(t *testing.T) {
	n := newNode(t)
	p := n.newPod(n.api.Namespace(t, nil))
	var code atomic.Int64
	config := rest.CopyConfig(n.api.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			code := int(code.Load())
			if code == 0 || r.URL.Path != "/api/v1/namespaces/"+p.Namespace {
				return next.RoundTrip(r)
			}
			if code < 0 {
				return nil, errAway
			}
			return &http.Response{StatusCode: code, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		})
	})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	n.end()
	n.client = client
	n.open()
	n.run()
	for _, tc := range []struct {
		code   int
		passes bool
	}{{0, true}, {-1, true}, {http.StatusInternalServerError, true}, {http.StatusForbidden, false}, {http.StatusUnauthorized, false}} {
		code.Store(int64(tc.code))
		answer, err := n.Add(t.Context(), p.request())
		if (err == nil) != tc.passes || answer.Enrolled {
			t.Errorf("answer %d: %+v, %v", tc.code, answer, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRunningPodJoinsAndLeavesWithItsNamespace(t *testing.T) {
	n := newNode(t)
	n.run()
	namespace := n.api.Namespace(t, nil)
	p := n.newPod(namespace)
	if answer, err := n.Add(t.Context(), p.request()); err != nil || answer.Enrolled {
		t.Fatalf("%+v, %v", answer, err)
	}
	p.starts(p.w.Pod)
	for range 2 {
		n.label(namespace, membership.Ambient)
		p.expect("labelled", true, membership.Enabled)
		if !n.probes.has(string(p.UID)) {
			t.Error("probes of the pod are not let in")
		}
		n.label(namespace, "")
		n.eventually("peers are told first", func() bool {
			if p.annotation() != "" {
				if !p.captured() {
					t.Fatal("released before peers were told")
				}
				return false
			}
			return true
		})
		p.expect("unlabelled", false, "")
		n.eventually("the probes' address is forgotten", func() bool { return !n.probes.has(string(p.UID)) })
	}
	// Labelled again before it has left: it stays.
	n.label(namespace, membership.Ambient)
	p.expect("labelled", true, membership.Enabled)
	n.label(namespace, "")
	n.eventually("peers are told", func() bool { return p.annotation() == "" })
	n.label(namespace, membership.Ambient)
	p.expect("labelled again", true, membership.Enabled)
}

func TestLabelOfThePodWins(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	p.starts(p.w.Pod)
	p.expect("namespace", true, membership.Enabled)
	p.label(membership.None)
	p.expect("none on the pod", false, "")
	p.label(membership.Ambient)
	p.expect("ambient on the pod", true, membership.Enabled)
}

// A running pod that the proxy does not take keeps its connections and is not
// announced.
func TestRunningPodIsNotCutOffWithoutAProxy(t *testing.T) {
	n := newNode(t)
	n.proxy.refuse = errAway
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	p.starts(p.w.Pod)
	n.eventually("the agent tries", func() bool { _, ok := n.manager.Pod(string(p.UID)); return ok })
	if p.captured() || p.annotation() != "" {
		t.Errorf("captured %v, annotation %q", p.captured(), p.annotation())
	}
	n.proxy.mu.Lock()
	n.proxy.refuse = nil
	n.proxy.mu.Unlock()
	p.expect("the proxy takes it", true, membership.Enabled)
}

func TestPodsThatEndAreReleased(t *testing.T) {
	n := newNode(t)
	n.run()
	deleted, ended := n.newPod(n.api.Namespace(t, ambient)), n.newPod(n.api.Namespace(t, ambient))
	for _, p := range []*pod{deleted, ended} {
		p.starts(p.w.Pod)
		p.expect("running", true, membership.Enabled)
	}
	deleted.stops()
	deleted.delete()
	ended.stops()
	ended.setStatus(corev1.PodStatus{Phase: corev1.PodSucceeded, PodIP: podtest.Pod4.String(), PodIPs: []corev1.PodIP{{IP: podtest.Pod4.String()}}})
	for _, p := range []*pod{deleted, ended} {
		n.eventually("it is released", func() bool { return !p.captured() && len(n.manager.Pods()) == 0 && !n.probes.has(string(p.UID)) })
	}
}

// A pod that is deleted by force, or said to have failed by a controller, may run
// on for its whole grace period: it stays captured that long.
func TestPodWhoseProcessesRunOnStaysCaptured(t *testing.T) {
	n := newNode(t)
	n.run()
	forced, failed := n.newPod(n.api.Namespace(t, ambient)), n.newPod(n.api.Namespace(t, ambient))
	for _, p := range []*pod{forced, failed} {
		p.starts(p.w.Pod)
		p.expect("running", true, membership.Enabled)
	}
	forced.delete()
	failed.setStatus(corev1.PodStatus{Phase: corev1.PodFailed, PodIP: podtest.Pod4.String(), PodIPs: []corev1.PodIP{{IP: podtest.Pod4.String()}}})
	// Several looks at the pods later.
	for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, p := range []*pod{forced, failed} {
			if !p.captured() || !p.enrolled() {
				t.Fatalf("captured %v, enrolled %v", p.captured(), p.enrolled())
			}
		}
	}
	// The runtime says that one is gone, the other one's processes end.
	if _, err := n.Delete(t.Context(), forced.request()); err != nil {
		t.Fatal(err)
	}
	if forced.captured() || forced.enrolled() {
		t.Error("still captured after DEL")
	}
	failed.stops()
	n.eventually("it is released", func() bool { return !failed.captured() && !failed.enrolled() })
}

// A DEL of the namespace of before must not release the pod that has a new one.
func TestLateDeleteDoesNotReleaseTheNewNamespace(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	if _, err := n.Add(t.Context(), p.request()); err != nil {
		t.Fatal(err)
	}
	old := p.request()
	second := podtest.New(t)
	old.Netns = p.path + "-old"
	p.link(second.Pod)
	if _, err := n.Add(t.Context(), p.request()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if diffs, err := redirect.Verify(second.Pod, redirect.Config{}); err != nil || len(diffs) > 0 || !p.enrolled() {
		t.Errorf("the new namespace: %v, %v, enrolled %v", diffs, err, p.enrolled())
	}
	if p.captured() {
		t.Error("the old namespace stays captured")
	}
}

// The annotation says enabled, and the pod is in a namespace without rules: it
// was made anew while nobody called the plugin.
func TestNamespaceMadeAnewIsCaptured(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	if _, err := n.Add(t.Context(), p.request()); err != nil {
		t.Fatal(err)
	}
	p.starts(p.w.Pod)
	p.expect("first", true, membership.Enabled)
	p.w = podtest.New(t)
	p.link(p.w.Pod)
	p.starts(p.w.Pod)
	p.expect("made anew", true, membership.Enabled)
}

// What changed while there was no agent.
func TestRestartCatchesUp(t *testing.T) {
	n := newNode(t)
	n.run()
	stays, left, deleted := n.newPod(n.api.Namespace(t, ambient)), n.newPod(n.api.Namespace(t, ambient)), n.newPod(n.api.Namespace(t, ambient))
	for _, p := range []*pod{stays, left, deleted} {
		p.starts(p.w.Pod)
		p.expect("running", true, membership.Enabled)
	}
	n.end()
	left.label(membership.None)
	deleted.stops()
	deleted.delete()
	joins := n.newPod(n.api.Namespace(t, ambient))
	joins.starts(joins.w.Pod)
	if err := redirect.Remove(stays.w.Pod); err != nil {
		t.Fatal(err)
	}
	n.open()
	if !stays.captured() || !left.captured() {
		t.Errorf("before Kubernetes is known: captured %v, %v", stays.captured(), left.captured())
	}
	n.run()
	stays.expect("stays", true, membership.Enabled)
	left.expect("left", false, "")
	joins.expect("joins", true, membership.Enabled)
	n.eventually("the deleted one is released", func() bool { return !deleted.captured() && !deleted.enrolled() })
}

// A node that was rebooted has neither rules nor state, and pods whose
// annotation says enabled. Such a pod is captured before anything else, whether
// or not there is a proxy.
func TestLostStateOfAnnouncedPodsFailsClosed(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	p.starts(p.w.Pod)
	p.expect("running", true, membership.Enabled)
	n.end()
	if err := redirect.Remove(p.w.Pod); err != nil {
		t.Fatal(err)
	}
	n.dir = t.TempDir()
	n.open()
	n.proxy.refuse = errAway
	n.run()
	n.eventually("it is captured without a proxy", p.captured)
	if got := p.annotation(); got != membership.Enabled {
		t.Errorf("annotation %q: peers would send plaintext", got)
	}
}

// A proxy that restarts must not make peers think that the pod left.
func TestAnnotationStaysWhileTheProxyRestarts(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	p.starts(p.w.Pod)
	p.expect("running", true, membership.Enabled)
	n.manager.Connected(false)
	// Several looks at the pod later.
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got := p.annotation(); got != membership.Enabled || !p.captured() {
			t.Fatalf("annotation %q, captured %v", got, p.captured())
		}
	}
	n.manager.Connected(true)
	n.proxy.Send(string(p.UID))
	p.expect("the proxy is back", true, membership.Enabled)
}

func TestAnnotationThatSomebodyTookAwayComesBack(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	p.starts(p.w.Pod)
	p.expect("running", true, membership.Enabled)
	patch := []byte(`{"metadata":{"annotations":{"` + membership.Redirection + `":null}}}`)
	if _, err := n.api.Client.CoreV1().Pods(p.Namespace).Patch(t.Context(), p.Name, "application/merge-patch+json", patch, metaPatch); err != nil {
		t.Fatal(err)
	}
	p.expect("again", true, membership.Enabled)
}

// Whoever takes the annotation away again and again is answered once a second.
func TestAnnotationIsNotWrittenInALoop(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	p.starts(p.w.Pod)
	p.expect("running", true, membership.Enabled)
	patch := []byte(`{"metadata":{"annotations":{"` + membership.Redirection + `":null}}}`)
	taken := 0
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if p.annotation() == "" {
			continue
		}
		if _, err := n.api.Client.CoreV1().Pods(p.Namespace).Patch(t.Context(), p.Name, "application/merge-patch+json", patch, metaPatch); err != nil {
			t.Fatal(err)
		}
		taken++
	}
	if taken > 3 {
		t.Errorf("written again %d times in 1.5 s", taken)
	}
	p.expect("again", true, membership.Enabled)
}

func TestStatusTellsWhyAPodIsOutside(t *testing.T) {
	n := newNode(t)
	n.run()
	in, out := n.newPod(n.api.Namespace(t, ambient)), n.newPod(n.api.Namespace(t, nil))
	in.starts(in.w.Pod)
	in.expect("running", true, membership.Enabled)
	byName := map[string]kube.PodStatus{}
	for _, s := range n.Status() {
		byName[s.Namespace] = s
	}
	if s := byName[in.Namespace]; s.State != "enrolled" || !s.Member {
		t.Errorf("%+v", s)
	}
	if s := byName[out.Namespace]; s.State != "outside" || !strings.Contains(s.Reason, membership.Label) {
		t.Errorf("%+v", s)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := kube.New(kube.Config{}); err == nil {
		t.Error("an empty Config was taken")
	}
	if _, err := kube.Connect("/nowhere"); err == nil || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("Connect: %v", err)
	}
}
