package source

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
)

// placement counts the live pods of each service account on each node.
type placement map[string]map[account]int

type account struct{ namespace, name string }

func (p placement) runs(node, namespace, serviceAccount string) bool {
	return p[node][account{namespace, serviceAccount}] > 0
}

// move takes note that a pod was and is now; either may be nil.
func (p placement) move(was, is *corev1.Pod) {
	p.count(was, -1, false)
	p.count(is, 1, false)
}

// place returns the node and account under which the pod counts, if it does.
func place(pod *corev1.Pod) (string, account, bool) {
	if pod == nil || pod.Spec.NodeName == "" || Ended(pod) {
		return "", account{}, false
	}
	return pod.Spec.NodeName, account{pod.Namespace, ServiceAccountOf(pod)}, true
}

// count changes the pod's count; fresh says to leave the node's counts as they
// are for who holds them and to work on a copy.
func (p placement) count(pod *corev1.Pod, by int, fresh bool) {
	node, who, ok := place(pod)
	if !ok {
		return
	}
	counts := p[node]
	switch {
	case counts == nil:
		counts = map[account]int{}
	case fresh:
		counts = maps.Clone(counts)
	}
	if counts[who] += by; counts[who] <= 0 {
		delete(counts, who)
	}
	if p[node] = counts; len(counts) == 0 {
		delete(p, node)
	}
}
