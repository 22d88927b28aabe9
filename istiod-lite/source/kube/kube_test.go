package kube_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	istio "istio.io/client-go/pkg/clientset/versioned"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/kube"
)

// deadline bounds every wait for the API server.
const deadline = 30 * time.Second

// run starts a Source on the cluster and stops it at the test's end.
func run(t *testing.T, config *rest.Config) *kube.Source {
	t.Helper()
	src, err := kube.New(kube.Config{REST: config, RootNamespace: "istio-system", Logger: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return src
}

// eventually waits until holds is true of the source's objects.
func eventually(t *testing.T, src *kube.Source, what string, holds func(*source.Objects) bool) *source.Objects {
	t.Helper()
	limit := time.After(deadline)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if o := src.Objects(); o != nil && holds(o) {
			return o
		}
		select {
		case <-limit:
			t.Fatalf("waited %v for: %s; status %+v", deadline, what, src.Status())
		case <-src.Changed():
		case <-tick.C:
		}
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func pod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "web-sa", Containers: []corev1.Container{{Name: "c", Image: "i",
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {ContainerPort: 9000}}}}},
	}
}

func TestItFollowsACluster(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	ns, ctx := api.Namespace(t, map[string]string{"istio.io/dataplane-mode": "ambient"}), t.Context()
	src := run(t, api.Config)
	istioClient := must[*istio.Clientset](t)(istio.NewForConfig(api.Config))
	core := api.Client.CoreV1()

	name := func(n string) source.Name { return source.Name{Namespace: ns, Name: n} }
	must[*corev1.Pod](t)(core.Pods(ns).Create(ctx, pod(ns, "web"), metav1.CreateOptions{}))
	must[*corev1.Pod](t)(core.Pods(ns).Create(ctx, pod(ns, "other"), metav1.CreateOptions{}))
	must[*corev1.Service](t)(core.Services(ns).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}))
	must[*securityv1.AuthorizationPolicy](t)(istioClient.SecurityV1().AuthorizationPolicies(ns).Create(ctx, &securityv1.AuthorizationPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "nobody"}, Spec: security.AuthorizationPolicy{}}, metav1.CreateOptions{}))

	first := eventually(t, src, "the objects made", func(o *source.Objects) bool {
		return o.Pods[name("web")] != nil && o.Pods[name("other")] != nil && o.Services[name("web")] != nil && o.AuthorizationPolicies[name("nobody")] != nil
	})
	if got := first.Namespaces[source.Name{Name: ns}].Labels["istio.io/dataplane-mode"]; got != "ambient" {
		t.Errorf("namespace label = %q", got)
	}
	if p := first.Pods[name("web")]; len(p.ManagedFields) != 0 || p.ResourceVersion != "" || len(p.Spec.Containers[0].Ports) != 1 || p.UID == "" {
		t.Errorf("pod is not trimmed as it should be: %+v", p)
	}
	if !src.RunsOnNode("n1", ns, "web-sa") || !first.RunsOnNode("n1", ns, "web-sa") || src.RunsOnNode("n2", ns, "web-sa") || src.RunsOnNode("n1", ns, "other-sa") {
		t.Error("placement is wrong")
	}

	// A status changes one pod; the other keeps its pointer, and so do the kinds.
	web := must[*corev1.Pod](t)(core.Pods(ns).Get(ctx, "web", metav1.GetOptions{}))
	web.Status.Phase, web.Status.PodIP, web.Status.PodIPs = corev1.PodRunning, "10.0.0.1", []corev1.PodIP{{IP: "10.0.0.1"}}
	must[*corev1.Pod](t)(core.Pods(ns).UpdateStatus(ctx, web, metav1.UpdateOptions{}))
	second := eventually(t, src, "the pod's address", func(o *source.Objects) bool { return o.Pods[name("web")].Status.PodIP != "" })
	if second.Pods[name("other")] != first.Pods[name("other")] || second.Services[name("web")] != first.Services[name("web")] {
		t.Error("objects that did not change are new pointers")
	}
	if keys := second.Changes(first); len(keys) != 1 || keys[0].Name != name("web") || keys[0].Kind != "Pod" {
		t.Errorf("changes = %v, want the one pod", keys)
	}

	// A change of what nobody reads is none.
	web = must[*corev1.Pod](t)(core.Pods(ns).Get(ctx, "web", metav1.GetOptions{}))
	web.Status.Message = "of no interest"
	must[*corev1.Pod](t)(core.Pods(ns).UpdateStatus(ctx, web, metav1.UpdateOptions{}))

	// A pod that has ended leaves, as one that is deleted.
	web = must[*corev1.Pod](t)(core.Pods(ns).Get(ctx, "web", metav1.GetOptions{}))
	web.Status.Phase = corev1.PodSucceeded
	must[*corev1.Pod](t)(core.Pods(ns).UpdateStatus(ctx, web, metav1.UpdateOptions{}))
	third := eventually(t, src, "the ended pod to leave", func(o *source.Objects) bool { return o.Pods[name("web")] == nil })
	if !src.RunsOnNode("n1", ns, "web-sa") {
		t.Error("the other pod's account does not run on the node any more")
	}
	if third.Pods[name("other")] != first.Pods[name("other")] {
		t.Error("a pod that did not change is a new pointer")
	}
	zero := int64(0)
	if err := core.Pods(ns).Delete(ctx, "other", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	eventually(t, src, "the deleted pod to leave", func(o *source.Objects) bool { return o.Pods[name("other")] == nil })
	if src.RunsOnNode("n1", ns, "web-sa") || !second.RunsOnNode("n1", ns, "web-sa") {
		t.Error("placement: the newest state has the account still, or an older one lost it")
	}
}

func TestItLeavesOutTheSlicesOfSelectors(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	ns, ctx := api.Namespace(t, nil), t.Context()
	src := run(t, api.Config)
	slices := api.Client.DiscoveryV1().EndpointSlices(ns)
	for name, by := range map[string]string{"made": source.EndpointSliceController, "written": "", "mirrored": "endpointslicemirroring-controller.k8s.io"} {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{source.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}}}
		if by != "" {
			s.Labels[source.LabelSliceManagedBy] = by
		}
		must[*discoveryv1.EndpointSlice](t)(slices.Create(ctx, s, metav1.CreateOptions{}))
	}
	o := eventually(t, src, "both slices", func(o *source.Objects) bool {
		return o.EndpointSlices[source.Name{Namespace: ns, Name: "written"}] != nil && o.EndpointSlices[source.Name{Namespace: ns, Name: "mirrored"}] != nil
	})
	if o.EndpointSlices[source.Name{Namespace: ns, Name: "made"}] != nil {
		t.Error("the controller's own slice is there")
	}
}
