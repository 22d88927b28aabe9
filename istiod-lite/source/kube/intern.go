package kube

import (
	"maps"
	"reflect"

	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// interner keeps one copy of what objects of one kind share: the names of nodes,
// namespaces and accounts, labels, and what the pods of one owner have of its
// template. It halves what a pod takes. It belongs to one goroutine.
type interner struct {
	strings   map[string]string
	templates map[source.Name]template
}

// template is what the last pod of an owner had.
type template struct {
	labels           map[string]string
	containers, init []corev1.Container
}

func newInterner() *interner {
	return &interner{strings: map[string]string{}, templates: map[source.Name]template{}}
}

func (in *interner) of(s string) string {
	if known, ok := in.strings[s]; ok {
		return known
	}
	if len(in.strings) >= maxInterned {
		clear(in.strings) // what is in use lives on in the objects
	}
	in.strings[s] = s
	return s
}

func (in *interner) labels(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	out := make(map[string]string, len(labels))
	for k, v := range labels {
		out[in.of(k)] = in.of(v)
	}
	return out
}

// share replaces what the pod has in common with the last one of its owner. Pods
// of a StatefulSet differ in their labels, and those of a Deployment in nothing.
func (in *interner) share(pod *corev1.Pod, labels map[string]string, owner string) {
	at := source.Name{Namespace: pod.Namespace, Name: owner}
	last, ok := in.templates[at]
	switch {
	case owner == "" || !ok || !maps.Equal(last.labels, labels):
		pod.Labels = in.labels(labels)
	default:
		pod.Labels = last.labels
	}
	if ok && reflect.DeepEqual(last.containers, pod.Spec.Containers) {
		pod.Spec.Containers = last.containers
	}
	if ok && reflect.DeepEqual(last.init, pod.Spec.InitContainers) {
		pod.Spec.InitContainers = last.init
	}
	if owner == "" {
		return
	}
	if len(in.templates) >= maxTemplates {
		clear(in.templates)
	}
	in.templates[at] = template{labels: pod.Labels, containers: pod.Spec.Containers, init: pod.Spec.InitContainers}
}
