package kube

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Pod returns a pod of the newest state, without making an Objects of it; nil
// when there is none.
func (s *Source) Pod(name source.Name) *corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.synced {
		return nil
	}
	pod, _ := s.store.Object(source.Key{Kind: "Pod", Name: name}).(*corev1.Pod)
	return pod
}
