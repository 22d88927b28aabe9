package mesh

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Find finds a pod as people name it: NAME, NAMESPACE/NAME, NAME.NAMESPACE, pod/NAME
// or deploy/NAME, which is any pod of the Deployment, a ready one when there is
// one. Without a namespace in the reference, namespace counts, then the mesh's.
func Find(ctx context.Context, m Mesh, namespace, ref string) (Pod, error) {
	if namespace == "" {
		namespace = m.Namespace()
	}
	parts := strings.Split(ref, "/")
	name := parts[len(parts)-1]
	kind := "pod"
	switch len(parts) {
	case 1:
	case 2:
		if k, ok := kinds[parts[0]]; ok {
			kind = k
		} else {
			namespace = parts[0]
		}
	case 3:
		k, ok := kinds[parts[1]]
		if !ok {
			return Pod{}, fmt.Errorf("%q: must be POD, NAMESPACE/POD, deploy/NAME or NAMESPACE/deploy/NAME", ref)
		}
		namespace, kind = parts[0], k
	default:
		return Pod{}, fmt.Errorf("%q: must be POD, NAMESPACE/POD, deploy/NAME or NAMESPACE/deploy/NAME", ref)
	}
	if name == "" {
		return Pod{}, fmt.Errorf("%q names no pod", ref)
	}
	if kind == "deployment" {
		return ofDeployment(ctx, m, namespace, name)
	}
	pod, err := m.Pod(ctx, namespace, name)
	var missing *NotFoundError
	if errors.As(err, &missing) && len(parts) == 1 {
		if i := strings.LastIndexByte(name, '.'); i > 0 {
			if other, err := m.Pod(ctx, name[i+1:], name[:i]); err == nil {
				return other, nil
			}
		}
	}
	return pod, err
}

var kinds = map[string]string{
	"pod": "pod", "pods": "pod", "po": "pod",
	"deploy": "deployment", "deployment": "deployment", "deployments": "deployment",
}

// ofDeployment returns a pod of a Deployment.
func ofDeployment(ctx context.Context, m Mesh, namespace, name string) (Pod, error) {
	pods, err := m.Pods(ctx, namespace)
	if err != nil {
		return Pod{}, err
	}
	member := func(p Pod) bool { return deploymentPod(name, p.Name) }
	if c, ok := m.(*Cluster); ok {
		d, err := c.Client.Kubernetes.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return Pod{}, &NotFoundError{Kind: "deployment", Namespace: namespace, Name: name, Hint: "`kubectl get deployments -n " + namespace + "` lists them"}
		}
		if err != nil {
			return Pod{}, c.Client.Explain(err)
		}
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err != nil {
			return Pod{}, err
		}
		member = func(p Pod) bool { return selector.Matches(labelSet(p.Labels)) }
	}
	var found *Pod
	for i := range pods {
		if member(pods[i]) && (found == nil || !found.Ready && pods[i].Ready) {
			found = &pods[i]
		}
	}
	if found == nil {
		hint := "it has none now"
		if m.Local() { // which does not tell of deployments
			hint = localStatus
		}
		return Pod{}, &NotFoundError{Kind: "pod of deployment", Namespace: namespace, Name: name, Hint: hint}
	}
	return *found, nil
}

// deploymentPod tells whether a pod's name is of the form NAME-HASH-SUFFIX.
func deploymentPod(deployment, pod string) bool {
	return regexp.MustCompile(`^` + regexp.QuoteMeta(deployment) + `-[a-z0-9]+-[a-z0-9]+$`).MatchString(pod)
}

type labelSet map[string]string

func (l labelSet) Has(k string) bool              { _, ok := l[k]; return ok }
func (l labelSet) Get(k string) string            { return l[k] }
func (l labelSet) Lookup(k string) (string, bool) { v, ok := l[k]; return v, ok }
