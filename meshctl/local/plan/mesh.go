package plan

import (
	securityv1 "istio.io/api/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
)

const dataplaneLabel = "istio.io/dataplane-mode"

// enrolled tells whether a pod is in the mesh: its own label decides, else its
// namespace's.
func enrolled(set *manifest.Set, pod *corev1.Pod) bool {
	if mode, own := pod.Labels[dataplaneLabel]; own {
		return mode == "ambient"
	}
	ns := set.Find("Namespace", "", pod.Namespace)
	return ns != nil && ns.Meta.Labels[dataplaneLabel] == "ambient"
}

// strict tells whether PeerAuthentication asks for mutual TLS on every port of a
// pod: a policy that selects it decides, else its namespace's, else the mesh's;
// the oldest decides among equals, which here is the first by name.
func strict(set *manifest.Set, pod *corev1.Pod) bool {
	var selecting, namespace, mesh *securityv1.PeerAuthentication
	first := func(slot **securityv1.PeerAuthentication, p *securityv1.PeerAuthentication) {
		if *slot == nil {
			*slot = p
		}
	}
	for _, o := range set.OfKind("PeerAuthentication") {
		p := o.Value.(*securityv1.PeerAuthentication)
		selector := p.GetSelector().GetMatchLabels()
		switch {
		case o.Namespace == pod.Namespace && len(selector) > 0:
			if matches(selector, pod.Labels) {
				first(&selecting, p)
			}
		case o.Namespace == manifest.RootNamespace && len(selector) == 0:
			first(&mesh, p)
		case o.Namespace == pod.Namespace && len(selector) == 0:
			first(&namespace, p)
		}
	}
	for _, p := range []*securityv1.PeerAuthentication{selecting, namespace, mesh} {
		if mode := p.GetMtls().GetMode(); mode != securityv1.PeerAuthentication_MutualTLS_UNSET {
			return mode == securityv1.PeerAuthentication_MutualTLS_STRICT
		}
	}
	return false
}

// matches tells whether labels hold every pair of selector.
func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
