package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
)

// byUID indexes pods by metadata.uid.
const byUID = "uid"

// caches are the informers: this node's pods and all namespaces.
type caches struct {
	factories        []informers.SharedInformerFactory
	pods, namespaces cache.SharedIndexInformer
}

func newCaches(client kubernetes.Interface, node string) (*caches, error) {
	ofNode := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTransform(trim),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
		}))
	all := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim))
	c := &caches{
		factories: []informers.SharedInformerFactory{ofNode, all},
		pods:      ofNode.Core().V1().Pods().Informer(), namespaces: all.Core().V1().Namespaces().Informer(),
	}
	err := c.pods.AddIndexers(cache.Indexers{byUID: func(o any) ([]string, error) {
		return []string{string(o.(*corev1.Pod).UID)}, nil
	}})
	return c, err
}

// run starts the informers; stop waits for their end.
func (c *caches) run(ctx context.Context) (stop func()) {
	for _, f := range c.factories {
		f.Start(ctx.Done())
	}
	return func() {
		for _, f := range c.factories {
			f.Shutdown()
		}
	}
}

// trim keeps what decisions read: a node has hundreds of pods, a cluster
// thousands of namespaces, and their objects are long.
func trim(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.Pod:
		return &corev1.Pod{
			ObjectMeta: trimMeta(o.ObjectMeta),
			Spec: corev1.PodSpec{
				NodeName: o.Spec.NodeName, HostNetwork: o.Spec.HostNetwork, ServiceAccountName: o.Spec.ServiceAccountName,
			},
			Status: corev1.PodStatus{Phase: o.Status.Phase, PodIP: o.Status.PodIP, PodIPs: o.Status.PodIPs},
		}, nil
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: trimMeta(o.ObjectMeta)}, nil
	}
	return o, nil
}

func trimMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion,
		DeletionTimestamp: m.DeletionTimestamp, Labels: membership.Labels(m.Labels), Annotations: membership.Annotations(m.Annotations),
	}
}

// pod returns the cached pod with that UID, nil when there is none.
func (c *caches) pod(uid string) *corev1.Pod {
	found, err := c.pods.GetIndexer().ByIndex(byUID, uid)
	if err != nil || len(found) == 0 {
		return nil
	}
	return found[0].(*corev1.Pod)
}

func (c *caches) podNamed(namespace, name string) *corev1.Pod {
	o, ok, err := c.pods.GetIndexer().GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil
	}
	return o.(*corev1.Pod)
}

func (c *caches) allPods() []*corev1.Pod {
	list := c.pods.GetIndexer().List()
	pods := make([]*corev1.Pod, 0, len(list))
	for _, o := range list {
		pods = append(pods, o.(*corev1.Pod))
	}
	return pods
}

// labels returns the cached labels of a namespace; known is false when the cache
// does not have it.
func (c *caches) labels(namespace string) (labels map[string]string, known bool) {
	o, ok, err := c.namespaces.GetIndexer().GetByKey(namespace)
	if err != nil || !ok {
		return nil, false
	}
	return o.(*corev1.Namespace).Labels, true
}

// object takes the object out of an event, which may be the last one known of
// something that was deleted.
func object[T any](o any) (T, error) {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	t, ok := o.(T)
	if !ok {
		return t, fmt.Errorf("event about a %T", o)
	}
	return t, nil
}
