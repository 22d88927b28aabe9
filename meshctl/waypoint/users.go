package waypoint

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/meshctl/kube"
)

// Users names what has the labels that lead through the waypoint namespace/name:
// namespaces, services and pods, as "kind name", by kind and name.
func Users(ctx context.Context, client *kube.Client, namespace, name string) ([]string, error) {
	var out []string
	for _, label := range []string{labelUseWaypoint, labelUseWaypoint + "-canary"} {
		options := metav1.ListOptions{LabelSelector: label + "=" + name}
		look := func(kind string, m metav1.ObjectMeta) {
			in, id := m.Namespace, m.Namespace+"/"+m.Name
			if kind == "namespace" {
				in, id = m.Name, m.Name
			}
			if other := m.Labels[label+"-namespace"]; other != "" {
				in = other
			}
			if user := kind + " " + id; in == namespace && !slices.Contains(out, user) {
				out = append(out, user)
			}
		}
		namespaces, err := client.Kubernetes.CoreV1().Namespaces().List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("who uses waypoint %s/%s: %w", namespace, name, client.Explain(err))
		}
		for i := range namespaces.Items {
			look("namespace", namespaces.Items[i].ObjectMeta)
		}
		services, err := client.Kubernetes.CoreV1().Services("").List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("who uses waypoint %s/%s: %w", namespace, name, client.Explain(err))
		}
		for i := range services.Items {
			look("service", services.Items[i].ObjectMeta)
		}
		pods, err := client.Kubernetes.CoreV1().Pods("").List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("who uses waypoint %s/%s: %w", namespace, name, client.Explain(err))
		}
		for i := range pods.Items {
			look("pod", pods.Items[i].ObjectMeta)
		}
	}
	slices.Sort(out)
	return out, nil
}
