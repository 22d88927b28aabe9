package manifests

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// applyOrder holds kinds that others need to be there before them. Kinds that are not
// named come after them, and before workloads.
var applyOrder = []string{
	"CustomResourceDefinition", "Namespace", "PriorityClass", "ServiceAccount", "Secret", "ConfigMap", "ClusterRole",
	"ClusterRoleBinding", "Role", "RoleBinding", "Service",
}

// workloadOrder comes last, in this order: pods start when all else is there. The
// control plane is first, since a ztunnel waits for its root certificates.
var workloadOrder = []string{"Deployment", "DaemonSet"}

// SortForApply sorts objects so that what others need comes before them. Objects of
// one kind keep their order.
func SortForApply(objects []*unstructured.Unstructured) {
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int {
		return cmp.Compare(rank(a), rank(b))
	})
}

func rank(o *unstructured.Unstructured) int {
	if i := slices.Index(applyOrder, o.GetKind()); i >= 0 {
		return i
	}
	if i := slices.Index(workloadOrder, o.GetKind()); i >= 0 {
		return len(applyOrder) + 1 + i
	}
	return len(applyOrder)
}
