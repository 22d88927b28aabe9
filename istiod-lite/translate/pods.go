package translate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// podMemo is a pod and what its workload was last made of.
type podMemo struct {
	name      source.Name
	pod       *corev1.Pod
	namespace *namespace
	node      *corev1.Node
	// lastResortOf names the services that a retiring pod still serves.
	lastResortOf []string
}

// podIndex holds the pods, also by the addresses that are theirs alone.
type podIndex struct {
	memos     map[source.Name]*podMemo
	addresses map[string][]*podMemo
	retiring  map[source.Name]*podMemo
}

func newPodIndex() podIndex {
	return podIndex{memos: map[source.Name]*podMemo{}, addresses: map[string][]*podMemo{}, retiring: map[source.Name]*podMemo{}}
}

// at returns the pod that has the address; of several the first by name.
func (x *podIndex) at(address string) (source.Name, bool) {
	memos := x.addresses[address]
	if len(memos) == 0 {
		return source.Name{}, false
	}
	return slices.MinFunc(memos, func(a, b *podMemo) int { return compareNames(a.name, b.name) }).name, true
}

// updatePods takes in the pods that changed. Slices with an endpoint at an
// address that came or went must be resolved anew.
func (t *Translator) updatePods(u *update) {
	x := &t.pods
	for _, name := range u.pods {
		u.dirtyPods[name] = true
		memo := x.memos[name]
		var before, after []string
		if memo != nil {
			before = ownIPs(memo.pod)
		}
		pod := u.objects.Pods[name]
		if pod != nil {
			after = ownIPs(pod)
		}
		switch {
		case pod == nil:
			delete(x.memos, name)
		case memo == nil:
			memo = &podMemo{name: name, pod: pod}
			x.memos[name] = memo
		default:
			memo.pod = pod
		}
		if slices.Equal(before, after) {
			continue
		}
		for _, ip := range before {
			left := slices.DeleteFunc(slices.Clone(x.addresses[ip]), func(m *podMemo) bool { return m == memo })
			if x.addresses[ip] = left; len(left) == 0 {
				delete(x.addresses, ip)
			}
			t.touch(u, ip)
		}
		for _, ip := range after {
			if !slices.Contains(x.addresses[ip], memo) {
				x.addresses[ip] = append(slices.Clip(x.addresses[ip]), memo)
			}
			t.touch(u, ip)
		}
	}
}

func (t *Translator) touch(u *update, address string) {
	for s := range t.slices.strays[address] {
		u.dirtySlices[s] = true
	}
}

// ownIPs returns the addresses by which the pod can be told from others.
func ownIPs(pod *corev1.Pod) []string {
	if pod.Spec.HostNetwork || source.Ended(pod) {
		return nil
	}
	return podIPs(pod)
}
