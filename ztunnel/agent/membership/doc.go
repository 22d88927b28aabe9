// Package membership decides whether a pod of Kubernetes belongs to the mesh, by
// Istio's rules. It owns the names of the labels and annotations that the
// decision reads and the node agent writes, and does nothing else: no cache, no
// clock, no network.
//
//	d := membership.Decide(pod, namespace.Labels, excluded)
//	if d.Member { … }
package membership
