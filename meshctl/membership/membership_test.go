package membership_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/meshctl/kube"
	"github.com/tulle-mesh/tulle/meshctl/membership"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kubetest.Package(m)) }

const (
	patience = 30 * time.Second
	mode     = "istio.io/dataplane-mode"
)

// cluster is a mesh on two nodes, of which the second has an agent that is not ready.
type cluster struct {
	*kubetest.API
	t      *testing.T
	client *kube.Client
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	api := kubetest.Shared(t, kubetest.Options{WithoutCRDs: true})
	client, err := kube.New(t.Context(), api.Config, "", "")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{api, t, client}
	_, err = api.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "istio-system"}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return c
	}
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "tulle-agent"}
	agent := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "tulle-agent"}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "agent", Image: "agent", Args: []string{"--kubernetes", "--exclude-namespaces=istio-system,kube-system,kube-public,default"}}}}}}}
	if _, err := api.Client.AppsV1().DaemonSets("istio-system").Create(t.Context(), agent, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, node := range map[string]string{"tulle-agent-1": "n1", "ztunnel-1": "n1", "tulle-agent-2": "n2", "ztunnel-2": "n2"} {
		p := c.pod("istio-system", name, func(p *corev1.Pod) {
			p.Labels = map[string]string{"app": name[:strings.LastIndex(name, "-")]}
			p.Spec.NodeName = node
		})
		if name != "tulle-agent-2" {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			if _, err := api.Client.CoreV1().Pods("istio-system").UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

func (c *cluster) pod(namespace, name string, change func(*corev1.Pod)) *corev1.Pod {
	c.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "c"}}}}
	if change != nil {
		change(p)
	}
	p, err := c.API.Client.CoreV1().Pods(namespace).Create(c.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

func redirection(value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{"ambient.istio.io/redirection": value} }
}

func (c *cluster) one(namespace string) membership.Namespace {
	c.t.Helper()
	list, err := membership.List(c.t.Context(), c.client, namespace)
	if err != nil || len(list) != 1 {
		c.t.Fatalf("%d namespaces, %v", len(list), err)
	}
	return list[0]
}

func TestEveryPodThatIsNotInSaysWhy(t *testing.T) {
	c := newCluster(t)
	ns := c.Namespace(t, map[string]string{mode: "ambient"})
	c.pod(ns, "in", redirection("enabled"))
	c.pod(ns, "captured", redirection("pending"))
	c.pod(ns, "waits", nil)
	c.pod(ns, "node", func(p *corev1.Pod) { p.Spec.NodeName = "n2" })
	c.pod(ns, "host", func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	c.pod(ns, "unscheduled", func(p *corev1.Pod) { p.Spec.NodeName = "" })
	c.pod(ns, "own", func(p *corev1.Pod) { p.Labels = map[string]string{mode: "none"} })
	c.pod(ns, "odd", func(p *corev1.Pod) { p.Labels = map[string]string{mode: "sidecar"} })
	done := c.pod(ns, "job", nil)
	done.Status.Phase = corev1.PodSucceeded
	if _, err := c.API.Client.CoreV1().Pods(ns).UpdateStatus(t.Context(), done, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}

	n := c.one(ns)
	got := make(map[string]string)
	for _, p := range n.Pods {
		got[p.Name] = string(p.State) + " " + p.Why
	}
	want := map[string]string{
		"in":          "in ",
		"captured":    "pending captured, and no ztunnel has taken it yet",
		"waits":       "pending its node's agent has not taken it yet",
		"node":        "pending no tulle-agent is ready on n2",
		"host":        "none uses its node's network (hostNetwork)",
		"unscheduled": "pending not scheduled yet",
		"own":         "none its own label istio.io/dataplane-mode=none",
		"odd":         "pending its node's agent has not taken it yet",
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if n.Mode != "ambient" || n.In != 1 || n.Pending != 5 || n.Out != 2 {
		t.Errorf("%+v", n)
	}
}

func TestAPodWithItsOwnLabelIsInANamespaceWithout(t *testing.T) {
	c := newCluster(t)
	ns := c.Namespace(t, nil)
	c.pod(ns, "own", func(p *corev1.Pod) { p.Labels = map[string]string{mode: "ambient"} })
	c.pod(ns, "other", nil)
	if n := c.one(ns); n.Pending != 1 || n.Out != 1 || n.Mode != "" {
		t.Errorf("%+v", n)
	}
}

// annotate plays the agent.
func (c *cluster) annotate(ctx context.Context, namespace, pod, patch string) error {
	_, err := c.API.Client.CoreV1().Pods(namespace).Patch(ctx, pod, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"ambient.istio.io/redirection":`+patch+`}}}`), metav1.PatchOptions{})
	return err
}

func (c *cluster) label(namespace string) string {
	c.t.Helper()
	n, err := c.API.Client.CoreV1().Namespaces().Get(c.t.Context(), namespace, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return n.Labels[mode]
}

func TestJoinAndLeaveWaitForThePods(t *testing.T) {
	c := newCluster(t)
	ns := c.Namespace(t, nil)
	c.pod(ns, "a", nil)
	c.pod(ns, "b", nil)
	c.pod(ns, "own", func(p *corev1.Pod) {
		p.Labels = map[string]string{mode: "ambient"}
		redirection("enabled")(p)
	})
	agent := make(chan error, 1)
	var said []string
	list, err := membership.Join(t.Context(), c.client, []string{ns}, membership.Options{Wait: patience, Say: func(line string) {
		said = append(said, line)
		if len(said) == 1 { // the first look has been taken
			agent <- errors.Join(c.annotate(t.Context(), ns, "a", `"enabled"`), c.annotate(t.Context(), ns, "b", `"enabled"`))
		}
	}})
	if err := errors.Join(err, <-agent); err != nil {
		t.Fatal(err)
	}
	if list[0].In != 3 || c.label(ns) != "ambient" || said[0] != ns+": 2 of 3 pods to go" {
		t.Errorf("%+v; said %q", list, said)
	}

	said = nil
	list, err = membership.Leave(t.Context(), c.client, []string{ns}, membership.Options{Wait: patience, Say: func(line string) {
		said = append(said, line)
		if len(said) == 1 {
			agent <- errors.Join(c.annotate(t.Context(), ns, "a", `null`), c.annotate(t.Context(), ns, "b", `null`))
		}
	}})
	if err := errors.Join(err, <-agent); err != nil {
		t.Fatal(err)
	}
	if list[0].In != 1 || list[0].Out != 2 || c.label(ns) != "" {
		t.Errorf("%+v; said %q", list, said)
	}
}

func TestAJoinThatTakesTooLongTellsWhoIsMissing(t *testing.T) {
	c := newCluster(t)
	ns := c.Namespace(t, nil)
	c.pod(ns, "a", func(p *corev1.Pod) { p.Spec.NodeName = "n2" })
	list, err := membership.Join(t.Context(), c.client, []string{ns}, membership.Options{Wait: time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "the label stays") || len(list) != 1 || list[0].Pods[0].Why != "no tulle-agent is ready on n2" {
		t.Errorf("%+v, %v", list, err)
	}
	if c.label(ns) != "ambient" {
		t.Error("the label does not stay")
	}
}

func TestNamespacesThatMustStayOutAreRefused(t *testing.T) {
	c := newCluster(t)
	for name, why := range map[string]string{
		"kube-system": "needs to start", "istio-system": "needs to start", "kube-public": "needs to start",
		"default": "namespace default is left out of the mesh by the agents' setting --exclude-namespaces",
	} {
		if _, err := membership.Join(t.Context(), c.client, []string{name}, membership.Options{}); err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "--force") {
			t.Errorf("%s: %v", name, err)
		}
		if got := c.label(name); got != "" {
			t.Errorf("%s is labelled %s", name, got)
		}
	}
	ns := c.Namespace(t, nil)
	if _, err := membership.Join(t.Context(), c.client, []string{ns, "nowhere"}, membership.Options{}); err == nil || !strings.Contains(err.Error(), "there is no namespace nowhere") {
		t.Error(err)
	}
	if got := c.label(ns); got != "" {
		t.Errorf("%s is labelled although another name was wrong", ns)
	}
	if _, err := membership.Join(t.Context(), c.client, []string{"kube-public"}, membership.Options{Force: true}); err != nil || c.label("kube-public") != "ambient" {
		t.Errorf("by force: %v", err)
	}
}

func TestWithoutAMeshNobodyJoins(t *testing.T) {
	api := kubetest.Start(t, kubetest.Options{WithoutCRDs: true})
	client, err := kube.New(t.Context(), api.Config, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := membership.Join(t.Context(), client, []string{"default"}, membership.Options{}); !errors.Is(err, membership.ErrNoMesh) {
		t.Error(err)
	}
	c := &cluster{api, t, client}
	ns := c.Namespace(t, map[string]string{mode: "ambient"})
	c.pod(ns, "waits", nil)
	if n := c.one(ns); n.Pending != 1 || n.Pods[0].Why != membership.NoMesh {
		t.Errorf("%+v", n)
	}
}
