package membership_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
)

func TestDecide(t *testing.T) {
	ambient := map[string]string{membership.Label: membership.Ambient}
	none := map[string]string{membership.Label: membership.None}
	for _, tc := range []struct {
		name           string
		pod, namespace map[string]string
		change         func(*corev1.Pod)
		member         bool
		says           string
	}{
		{"nothing said", nil, nil, nil, false, "neither"},
		{"namespace", nil, ambient, nil, true, "namespace"},
		{"pod alone", ambient, nil, nil, true, "on the pod"},
		{"pod leaves its namespace's mesh", none, ambient, nil, false, "=none on the pod"},
		{"pod joins from a namespace that says none", ambient, none, nil, true, "on the pod"},
		{"a value that nobody knows leaves it to the namespace", map[string]string{membership.Label: "x"}, ambient, nil, true, "namespace"},
		{"node's network", ambient, ambient, func(p *corev1.Pod) { p.Spec.HostNetwork = true }, false, "node's network"},
		{"sidecar", ambient, ambient, func(p *corev1.Pod) {
			p.Annotations = map[string]string{"sidecar.istio.io/status": "{}"}
		}, false, "sidecar"},
		{"excluded namespace", ambient, ambient, func(p *corev1.Pod) { p.Namespace = "kube-system" }, false, "excluded"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "shop", Labels: tc.pod}}
		if tc.change != nil {
			tc.change(pod)
		}
		d := membership.Decide(pod, tc.namespace, []string{"istio-system", "kube-system"})
		if d.Member != tc.member || !strings.Contains(d.Reason, tc.says) {
			t.Errorf("%s: %+v, want %v and %q", tc.name, d, tc.member, tc.says)
		}
	}
}

func TestNeedsNamespace(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}}
	if !membership.NeedsNamespace(pod, nil) {
		t.Error("a pod without a label of its own")
	}
	if membership.NeedsNamespace(pod, []string{"shop"}) {
		t.Error("a pod of an excluded namespace")
	}
	pod.Labels = map[string]string{membership.Label: membership.Ambient}
	if membership.NeedsNamespace(pod, nil) {
		t.Error("a pod with the label")
	}
}

func TestStaticPodsAreKnownByTheirHash(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}
	if got := membership.RuntimeUID(pod); got != "u" {
		t.Error(got)
	}
	const hash = "0123456789abcdef0123456789abcdef"
	pod.Annotations = map[string]string{"kubernetes.io/config.mirror": hash}
	if got := membership.RuntimeUID(pod); got != hash {
		t.Error(got)
	}
	// Somebody names another pod in it.
	pod.Annotations = map[string]string{"kubernetes.io/config.mirror": "ffffffff-10e8-4b62-a39c-4165e6fcb3b8"}
	if got := membership.RuntimeUID(pod); got != "u" {
		t.Error(got)
	}
}
