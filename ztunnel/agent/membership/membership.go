package membership

import (
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// What users and others write.
const (
	// Label is on namespaces and pods; a pod's own wins.
	Label = "istio.io/dataplane-mode"
	// Ambient and None are the values of Label.
	Ambient = "ambient"
	None    = "none"
	// sidecarStatus is written by Istio's injector: the pod has a proxy of its own.
	sidecarStatus = "sidecar.istio.io/status"
	// mirrorHash is on the API's image of a static pod, which the runtime knows
	// under this value and not under metadata.uid.
	mirrorHash = "kubernetes.io/config.mirror"
)

// Redirection is the annotation by which the node agent tells the control plane
// that a pod is captured.
const (
	Redirection = "ambient.istio.io/redirection"
	// Enabled: captured, and a proxy serves it.
	Enabled = "enabled"
	// Pending: captured, and no proxy has accepted it; its connections are refused.
	Pending = "pending"
)

// Decision says whether a pod belongs to the mesh, and why.
type Decision struct {
	Member bool
	Reason string
}

// Decide decides. namespace are the labels of the pod's namespace, excluded the
// namespaces that never belong. Whether the pod has ended is for the caller.
func Decide(pod *corev1.Pod, namespace map[string]string, excluded []string) Decision {
	own, labelled := pod.Labels[Label]
	_, sidecar := pod.Annotations[sidecarStatus]
	switch {
	case slices.Contains(excluded, pod.Namespace):
		return Decision{Reason: "namespace " + pod.Namespace + " is excluded from the mesh on this node"}
	case pod.Spec.HostNetwork:
		return Decision{Reason: "the pod is in the node's network"}
	case sidecar:
		return Decision{Reason: "the pod has a sidecar (annotation " + sidecarStatus + ")"}
	case labelled && own == Ambient:
		return Decision{Member: true, Reason: "label " + Label + "=" + Ambient + " on the pod"}
	case labelled && own == None:
		return Decision{Reason: "label " + Label + "=" + None + " on the pod"}
	case namespace[Label] == Ambient:
		return Decision{Member: true, Reason: "label " + Label + "=" + Ambient + " on the namespace"}
	}
	return Decision{Reason: "neither pod nor namespace has the label " + Label + "=" + Ambient}
}

// NeedsNamespace tells whether the labels of the pod's namespace matter for the
// decision.
func NeedsNamespace(pod *corev1.Pod, excluded []string) bool {
	without := Decide(pod, nil, excluded)
	with := Decide(pod, map[string]string{Label: Ambient}, excluded)
	return without.Member != with.Member
}

// Ended tells whether the pod's containers have ended for good.
func Ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// hashForm is that of the kubelet's hash of a static pod. Whoever may create pods
// may write the annotation too, and must not name the UID of another pod by it.
var hashForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// RuntimeUID is the UID under which the container runtime knows the pod: its own
// but for static pods.
func RuntimeUID(pod *corev1.Pod) string {
	if hash := pod.Annotations[mirrorHash]; hashForm.MatchString(hash) {
		return hash
	}
	return string(pod.UID)
}

// Labels and Annotations return those that this package or the agent reads, for
// caches that keep nothing else.
func Labels(all map[string]string) map[string]string { return only(all, Label) }

// Annotations is Labels for annotations.
func Annotations(all map[string]string) map[string]string {
	return only(all, sidecarStatus, mirrorHash, Redirection)
}

func only(all map[string]string, keys ...string) map[string]string {
	var some map[string]string
	for _, k := range keys {
		if v, ok := all[k]; ok {
			if some == nil {
				some = map[string]string{}
			}
			some[k] = v
		}
	}
	return some
}
