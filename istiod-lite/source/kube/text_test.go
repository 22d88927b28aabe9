package kube_test

import (
	"testing"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// TestTextOfAPodThatIsNoUTF8HoldsNobodyUp writes what the API server checks for
// nothing but its presence, in the encoding that lets any bytes pass. One such
// object must not keep the state of the whole mesh from being packed.
func TestTextOfAPodThatIsNoUTF8HoldsNobodyUp(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	ns := api.Namespace(t, nil)
	config := rest.CopyConfig(api.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	client := must[*kubernetes.Clientset](t)(kubernetes.NewForConfig(config))
	p := pod(ns, "odd")
	yes := true
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Job", Name: "\xff\xfe", UID: "1", Controller: &yes}}
	made := must[*corev1.Pod](t)(client.CoreV1().Pods(ns).Create(t.Context(), p, metav1.CreateOptions{}))
	made.Status.PodIP, made.Status.PodIPs = "10.1.2.3", []corev1.PodIP{{IP: "10.1.2.3"}}
	made.Status.Phase = corev1.PodRunning
	must[*corev1.Pod](t)(client.CoreV1().Pods(ns).UpdateStatus(t.Context(), made, metav1.UpdateOptions{}))

	src := run(t, api.Config)
	name := source.Name{Namespace: ns, Name: "odd"}
	objects := eventually(t, src, "the pod with its address", func(o *source.Objects) bool {
		return o.Pods[name] != nil && o.Pods[name].Status.PodIP != ""
	})
	if owner := objects.Pods[name].OwnerReferences[0].Name; !utf8.ValidString(owner) {
		t.Errorf("the owner's name %q is kept as it is", owner)
	}
	mesh := translate.Translate(objects, translate.Options{Kubernetes: true})
	if mesh.Addresses["Kubernetes//Pod/"+ns+"/odd"] == nil {
		t.Error("the pod is left out")
	}
	if _, _, err := snapshot.Next(nil, mesh); err != nil {
		t.Errorf("the mesh cannot be packed: %v", err)
	}
}
