package rootcert

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Name and Key are where Istio's clients look for the roots.
const (
	Name = "istio-ca-root-cert"
	Key  = "root-cert.pem"
)

// fieldManager owns what is written.
const fieldManager = "istiod-lite"

// Config is what a [Distributor] needs. All but Logger and Registerer must be set.
type Config struct {
	Client   kubernetes.Interface
	Metadata metadata.Interface
	// Bundle returns the roots in PEM. It must be safe for concurrent use.
	Bundle     func() []byte
	Logger     *zap.Logger           // may be nil
	Registerer prometheus.Registerer // may be nil
}

// Distributor writes the ConfigMaps. Run may be called again after it returned.
type Distributor struct {
	cfg    Config
	writes *prometheus.CounterVec
}

// New checks cfg. It asks nothing of the API server yet.
func New(cfg Config) (*Distributor, error) {
	if cfg.Client == nil || cfg.Metadata == nil || cfg.Bundle == nil {
		return nil, errors.New("root certificates: no client or no bundle")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	d := &Distributor{cfg: cfg, writes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "istiod_root_configmap_writes_total",
		Help: "Attempts to write the roots into a namespace, by result: ok or error.",
	}, []string{"result"})}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(d.writes); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// run is the state of one Run.
type run struct {
	*Distributor
	namespaces cache.Store // of *metav1.PartialObjectMetadata
	configMaps cache.Store // of *corev1.ConfigMap
	queue      workqueue.TypedRateLimitingInterface[string]
}

// Run writes until ctx ends. All it has begun has ended when it returns.
func (d *Distributor) Run(ctx context.Context) {
	r := &run{Distributor: d, queue: workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryMost),
		workqueue.TypedRateLimitingQueueConfig[string]{})}
	namespaces := metadatainformer.NewSharedInformerFactoryWithOptions(d.cfg.Metadata, 0, metadatainformer.WithTransform(dropManagedFields))
	configMaps := informers.NewSharedInformerFactoryWithOptions(d.cfg.Client, 0, informers.WithTransform(dropManagedFields),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, Name).String()
		}))
	byName := namespaces.ForResource(corev1.SchemeGroupVersion.WithResource("namespaces")).Informer()
	roots := configMaps.Core().V1().ConfigMaps().Informer()
	r.namespaces, r.configMaps = byName.GetStore(), roots.GetStore()
	// Adding a handler fails only for an informer that has stopped.
	_, errNamespaces := byName.AddEventHandler(r.enqueue(func(m metav1.Object) string { return m.GetName() }))
	_, errRoots := roots.AddEventHandler(r.enqueue(metav1.Object.GetNamespace))
	if err := errors.Join(errNamespaces, errRoots); err != nil {
		d.cfg.Logger.Error("the roots are not distributed", zap.Error(err))
		return
	}
	namespaces.Start(ctx.Done())
	configMaps.StartWithContext(ctx)
	defer namespaces.Shutdown()
	defer configMaps.Shutdown()
	// Before the ConfigMaps are known, every namespace would look bare.
	if !cache.WaitForCacheSync(ctx.Done(), byName.HasSynced, roots.HasSynced) {
		r.queue.ShutDown()
		return
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	r.queue.ShutDown()
	wg.Wait()
}

func dropManagedFields(obj any) (any, error) {
	if m, ok := obj.(metav1.Object); ok {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
	}
	return obj, nil
}

func (r *run) enqueue(namespace func(metav1.Object) string) cache.ResourceEventHandler {
	add := func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if m, ok := obj.(metav1.Object); ok {
			r.queue.Add(namespace(m))
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, obj any) { add(obj) }, DeleteFunc: add}
}

// next works on one namespace, and returns false when the queue is shut down.
func (r *run) next(ctx context.Context) bool {
	ns, shutdown := r.queue.Get()
	if shutdown {
		return false
	}
	defer r.queue.Done(ns)
	if ctx.Err() != nil {
		return true // empty the queue, write no more
	}
	written, err := r.reconcile(ctx, ns)
	switch {
	case err == nil && written:
		r.writes.WithLabelValues("ok").Inc()
		r.cfg.Logger.Info("roots written", zap.String("namespace", ns), zap.String("configmap", Name))
	case err != nil && ctx.Err() == nil:
		r.writes.WithLabelValues("error").Inc()
		r.cfg.Logger.Warn("roots not written, trying again", zap.String("namespace", ns), zap.Error(err))
		r.queue.AddRateLimited(ns)
		return true
	}
	r.queue.Forget(ns)
	return true
}

// reconcile writes the ConfigMap of a namespace if it is not as it should be.
func (r *run) reconcile(ctx context.Context, ns string) (written bool, err error) {
	obj, ok, err := r.namespaces.GetByKey(ns)
	if err != nil || !ok {
		return false, err
	}
	if m, ok := obj.(metav1.Object); !ok || m.GetDeletionTimestamp() != nil {
		return false, nil // nothing can be made in it any more
	}
	bundle := string(r.cfg.Bundle())
	if obj, ok, err := r.configMaps.GetByKey(ns + "/" + Name); err != nil {
		return false, err
	} else if ok && obj.(*corev1.ConfigMap).Data[Key] == bundle {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	_, err = r.cfg.Client.CoreV1().ConfigMaps(ns).Apply(ctx,
		applycorev1.ConfigMap(Name, ns).WithLabels(map[string]string{"istio.io/config": "true"}).WithData(map[string]string{Key: bundle}),
		metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return false, nil // the namespace ends
	}
	if err != nil {
		return false, fmt.Errorf("write ConfigMap %s/%s: %w", ns, Name, err)
	}
	return true, nil
}
