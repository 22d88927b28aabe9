package kube_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/ztunnel/agent/kube"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
)

func daemonSet(t *testing.T, api *kubetest.API, namespace string) {
	t.Helper()
	labels := map[string]string{"app": "agent"}
	_, err := api.Client.AppsV1().DaemonSets(namespace).Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "tulle-agent"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// owner watches until the test ends.
func owner(t *testing.T, client kubernetes.Interface, namespace string) *kube.Owner {
	t.Helper()
	o, err := kube.NewOwner(client, namespace, "tulle-agent", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return o
}

func TestOwnerTellsAnUninstallFromARestart(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{WithoutCRDs: true})
	namespace := api.Namespace(t, nil)
	never := owner(t, api.Client, namespace)
	if never.Uninstalled(t.Context()) {
		t.Error("an agent that belongs to no DaemonSet")
	}
	daemonSet(t, api, namespace)
	o := owner(t, api.Client, namespace)
	seen := func() bool { return o.Seen() && never.Seen() }
	for deadline := time.Now().Add(podtest.Patience); !seen(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the DaemonSet is never seen")
		}
	}
	if o.Uninstalled(t.Context()) {
		t.Error("the DaemonSet is there")
	}
	if err := api.Client.AppsV1().DaemonSets(namespace).Delete(t.Context(), "tulle-agent", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if !o.Uninstalled(t.Context()) {
		t.Error("the DaemonSet was deleted")
	}
	// Who may not ask any more has seen it before.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for deadline := time.Now().Add(podtest.Patience); !o.Uninstalled(ended); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what the watch saw does not count")
		}
	}
	daemonSet(t, api, namespace)
	if o.Uninstalled(t.Context()) {
		t.Error("the DaemonSet is there again")
	}
}
