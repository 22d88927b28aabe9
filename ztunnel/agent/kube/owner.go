package kube

import (
	"context"
	"sync"

	"go.uber.org/zap"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Owner watches the DaemonSet that the agent belongs to, to know at the agent's
// end whether it is uninstalled or comes back. It watches rather than asks at
// the end, because whoever uninstalls may delete the agent's rights together
// with the DaemonSet.
type Owner struct {
	client          kubernetes.Interface
	namespace, name string
	log             *zap.Logger
	factory         informers.SharedInformerFactory

	mu sync.Mutex
	// seen: there was such a DaemonSet; without one nothing can be concluded.
	seen, deleted bool
}

// NewOwner makes an Owner for the DaemonSet namespace/name.
func NewOwner(client kubernetes.Interface, namespace, name string, logger *zap.Logger) (*Owner, error) {
	o := &Owner{client: client, namespace: namespace, name: name, log: logger}
	o.factory = informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(l *metav1.ListOptions) {
			l.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
		}))
	set := func(deleted bool) func(any) {
		return func(obj any) {
			ds, err := object[*appsv1.DaemonSet](obj)
			if err != nil {
				return
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			o.seen, o.deleted = true, deleted || ds.DeletionTimestamp != nil
		}
	}
	_, err := o.factory.Apps().V1().DaemonSets().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: set(false), UpdateFunc: func(_, now any) { set(false)(now) }, DeleteFunc: set(true),
	})
	return o, err
}

// Run watches until ctx ends.
func (o *Owner) Run(ctx context.Context) error {
	o.factory.Start(ctx.Done())
	<-ctx.Done()
	o.factory.Shutdown()
	return nil
}

// Seen tells whether the DaemonSet was there at any time.
func (o *Owner) Seen() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}

// Uninstalled tells whether the DaemonSet was deleted. It asks the API server
// once more; when that does not answer or refuses, what the watch saw last
// counts. In doubt the answer is no, and pods stay captured.
func (o *Owner) Uninstalled(ctx context.Context) bool {
	o.mu.Lock()
	seen, deleted := o.seen, o.deleted
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, callTimeout/2)
	defer cancel()
	ds, err := o.client.AppsV1().DaemonSets(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
	switch {
	case err == nil:
		return ds.DeletionTimestamp != nil
	case apierrors.IsNotFound(err):
		return seen
	}
	o.log.Warn("cannot ask whether the agent is uninstalled", zap.Bool("deleted", deleted), zap.Error(err))
	return seen && deleted
}
