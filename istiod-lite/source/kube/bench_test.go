package kube

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// examplePod is about as large as the pod of a Deployment in a cluster.
func examplePod(i int, ready corev1.ConditionStatus) *corev1.Pod {
	controller := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: fmt.Sprintf("ns-%d", i%100), Name: fmt.Sprintf("web-%d-5d4f8c7b9-%05d", i%1000, i), UID: "2f6b0c1e-0000-4000-8000-000000000000",
			Labels: map[string]string{"app": fmt.Sprintf("web-%d", i%1000), "version": "v1", "pod-template-hash": "5d4f8c7b9"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: fmt.Sprintf("web-%d-5d4f8c7b9", i%1000),
				UID: "2f6b0c1e-0000-4000-8000-000000000001", Controller: &controller}},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: &metav1.FieldsV1{Raw: make([]byte, 2048)}}},
			Annotations:   map[string]string{"ambient.istio.io/redirection": "enabled", "prometheus.io/scrape": "true"},
		},
		Spec: corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", i%100), ServiceAccountName: "web", Containers: []corev1.Container{{
			Name: "web", Image: "example.com/web:v1", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
			Env: make([]corev1.EnvVar, 20), VolumeMounts: make([]corev1.VolumeMount, 5),
		}}, Volumes: make([]corev1.Volume, 5)},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.%d.%d.%d", i/62500, i/250%250, i%250+1),
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "True"}, {Type: corev1.PodReady, Status: ready, LastProbeTime: metav1.NewTime(time.Unix(1, 0))}}},
	}
	p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
	return p
}

func filled(b *testing.B, pods int) (*Source, *collector) {
	s, err := New(Config{REST: &rest.Config{Host: "https://127.0.0.1:1"}, RootNamespace: "istio-system", Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	var pod *collector
	for _, c := range s.collectors {
		c.absent.Store(true)
		if c.kind.name == "Pod" {
			pod = c
		}
	}
	var list []any
	for i := range pods {
		trimmed, err := pod.Transformer()(examplePod(i, "True"))
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, trimmed)
	}
	if err := pod.Replace(list, "1"); err != nil {
		b.Fatal(err)
	}
	return s, pod
}

// BenchmarkPodEvent is one decoded change of one pod of 10,000: "alone" makes an
// Objects of each and translates it, "batched" of each ten, as a publication at
// 100 changes a second does; "nothing" changes nothing that is read.
func BenchmarkPodEvent(b *testing.B) {
	for _, c := range []struct {
		name   string
		batch  int
		change bool
	}{{"alone", 1, true}, {"batched", 10, true}, {"nothing", 10, false}} {
		b.Run(c.name, func(b *testing.B) {
			s, pods := filled(b, 10_000)
			translator := translate.New(translate.Options{Kubernetes: true})
			translator.Translate(s.Objects())
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				ready := corev1.ConditionTrue
				if c.change && i/10_000%2 == 0 {
					ready = corev1.ConditionFalse
				}
				if err := pods.Update(examplePod(i%10_000, ready)); err != nil {
					b.Fatal(err)
				}
				if i%c.batch == 0 {
					translator.Translate(s.Objects())
				}
			}
		})
	}
}

// BenchmarkPodAtRest says how many bytes the source and the translation hold for
// each pod.
func BenchmarkPodAtRest(b *testing.B) {
	const pods = 10_000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		s, _ := filled(b, pods)
		source := heap()
		translator := translate.New(translate.Options{Kubernetes: true})
		mesh := translator.Translate(s.Objects())
		translated := heap()
		b.ReportMetric(float64(source-before)/pods, "source-B/pod")
		b.ReportMetric(float64(translated-source)/pods, "translation-B/pod")
		runtime.KeepAlive(s)
		runtime.KeepAlive(mesh)
		runtime.KeepAlive(translator)
	}
}
