package kube

import (
	"cmp"
	"slices"

	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
)

// PodStatus is what an operator wants to know of a pod of the node.
type PodStatus struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Member tells whether the pod belongs to the mesh, by the labels.
	Member bool `json:"member"`
	// State is enrolled, pending or failed as of package enrol, waiting for a
	// member that the agent has not found yet, and outside for others.
	State string `json:"state"`
	// Reason says why the pod is a member or not, or why it is not enrolled.
	Reason string `json:"reason"`
}

// Status lists the node's pods that have not ended, sorted by namespace and
// name.
func (c *Controller) Status() []PodStatus {
	list := []PodStatus{}
	for _, p := range c.caches.allPods() {
		if membership.Ended(p) {
			continue
		}
		labels, _ := c.caches.labels(p.Namespace)
		d := membership.Decide(p, labels, c.cfg.Exclude)
		s := PodStatus{
			Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Member: d.Member, State: "outside", Reason: d.Reason,
		}
		if d.Member {
			s.State = "waiting"
		}
		if e, known := c.cfg.Pods.Pod(s.UID); known {
			s.State = string(e.State)
			if e.Reason != "" {
				s.Reason = e.Reason
			}
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b PodStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return list
}
