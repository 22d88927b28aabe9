package deploy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// Config is what a [Controller] needs.
type Config struct {
	// Dynamic writes, and Metadata watches what was made. Both are required.
	Dynamic  dynamic.Interface
	Metadata metadata.Interface
	// Settings are those of all waypoints; Image is required.
	Settings Settings
	// Options are those of the translation.
	Options translate.Options
	// Changed is called when an Outcome has; it must not block. May be nil.
	Changed    func()
	Logger     *zap.Logger           // may be nil
	Registerer prometheus.Registerer // may be nil
}

// Controller keeps what waypoints run as. Run may be called again after it returned;
// Observe and Outcome at any time.
type Controller struct {
	cfg    Config
	writes *prometheus.CounterVec
	newest atomic.Pointer[source.Objects]
	wake   chan struct{}
	// interval is parametersInterval, but in tests.
	interval time.Duration

	mu       sync.Mutex
	outcomes map[source.Name]Outcome
}

// New checks cfg. It asks nothing of the API server yet.
func New(cfg Config) (*Controller, error) {
	if cfg.Dynamic == nil || cfg.Metadata == nil || cfg.Settings.Image == "" {
		return nil, errors.New("deploy: no client or no image of waypoints")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	c := &Controller{cfg: cfg, interval: parametersInterval, wake: make(chan struct{}, 1), outcomes: map[source.Name]Outcome{}, writes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "istiod_waypoint_writes_total",
		Help: "Attempts to write what waypoints run as, by kind and result: ok or error.",
	}, []string{"kind", "result"})}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(c.writes); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Observe tells of a new state. It does not block.
func (c *Controller) Observe(objects *source.Objects) {
	c.newest.Store(objects)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run is the state of one Run.
type run struct {
	*Controller
	queue workqueue.TypedRateLimitingInterface[source.Key]
	// seen has the metadata of what was made, by kind.
	seen map[string]cache.Indexer

	mu sync.Mutex
	// applied is the print of what was applied last for a Gateway.
	applied map[source.Name]string
	// parametrised are the Gateways whose parameters are read again and again.
	parametrised map[source.Name]bool
}

// byGateway indexes what was made by the Gateway's name.
const byGateway = "gateway"

// Run keeps waypoints until ctx ends. All it has begun has ended when it returns.
func (c *Controller) Run(ctx context.Context) {
	r := &run{Controller: c, seen: map[string]cache.Indexer{}, applied: map[source.Name]string{}, parametrised: map[source.Name]bool{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[source.Key](retryFirst, retryMost))}
	defer r.queue.ShutDown()
	stop, synced, err := r.watch(ctx)
	defer stop()
	if err != nil {
		c.cfg.Logger.Error("waypoints are not deployed", zap.Error(err))
		return
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	defer wg.Wait()
	defer r.queue.ShutDown()
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	var since *source.Objects
	for {
		since = r.pass(since)
		select {
		case <-c.wake:
		case <-tick.C:
			r.again()
		case <-ctx.Done():
			return
		}
	}
}

// watch follows the metadata of what is made.
func (r *run) watch(ctx context.Context) (stop func(), synced []cache.InformerSynced, err error) {
	factory := metadatainformer.NewFilteredSharedInformerFactory(r.cfg.Metadata, 0, metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.LabelSelector = source.LabelGatewayManaged + "=" + Managed
	})
	stop = func() {}
	for _, m := range allMade {
		informer := factory.ForResource(m.resource).Informer()
		if err = informer.SetTransform(trim); err != nil {
			return stop, nil, err
		}
		if err = informer.AddIndexers(cache.Indexers{byGateway: func(obj any) ([]string, error) {
			if o, ok := obj.(metav1.Object); ok {
				return []string{gatewayOf(o).String()}, nil
			}
			return nil, nil
		}}); err != nil {
			return stop, nil, err
		}
		if _, err = informer.AddEventHandler(r.enqueue()); err != nil {
			return stop, nil, err
		}
		r.seen[m.kind] = informer.GetIndexer()
		synced = append(synced, informer.HasSynced)
	}
	factory.Start(ctx.Done())
	return factory.Shutdown, synced, nil
}

// trim keeps who an object is and whose.
func trim(obj any) (any, error) {
	if m, ok := obj.(metav1.Object); ok {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
	}
	return obj, nil
}

func gatewayOf(o metav1.Object) source.Name {
	return source.Name{Namespace: o.GetNamespace(), Name: o.GetLabels()[source.LabelGatewayName]}
}

// enqueue looks at a Gateway again when what was made for it has changed, but not
// when only its status has.
func (r *run) enqueue() cache.ResourceEventHandler {
	add := func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if m, ok := obj.(metav1.Object); ok {
			r.queue.Add(source.Key{Kind: "Gateway", Name: gatewayOf(m)})
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: add, DeleteFunc: add, UpdateFunc: func(before, after any) {
		a, okA := before.(metav1.Object)
		b, okB := after.(metav1.Object)
		if !okA || !okB || mark(a) != mark(b) {
			add(before)
			add(after)
		}
	}}
}

// pass queues the Gateways and classes that changed since a state, and returns the newest state.
func (r *run) pass(since *source.Objects) *source.Objects {
	objects := r.newest.Load()
	if objects == nil || objects == since {
		return since
	}
	class := source.Key{Kind: "GatewayClass", Name: source.Name{Name: translate.WaypointClass}}
	if since == nil {
		r.queue.Add(class)
		for name := range objects.Gateways {
			r.queue.Add(source.Key{Kind: "Gateway", Name: name})
		}
		return objects
	}
	classes := false
	for _, key := range objects.Changes(since) {
		switch key.Kind {
		case "Gateway":
			r.queue.Add(key)
		case "GatewayClass":
			classes = true
		case "Service", "Namespace":
			// Ours are watched apart; a foreign one in our way may have gone.
			r.retry(key)
		}
	}
	if classes {
		r.queue.Add(class)
		for name := range objects.Gateways {
			r.queue.Add(source.Key{Kind: "Gateway", Name: name})
		}
	}
	return objects
}

// retry looks again at what failed in the namespace of an object that changed.
func (r *run) retry(key source.Key) {
	r.Controller.mu.Lock()
	defer r.Controller.mu.Unlock()
	for name, o := range r.outcomes {
		if !o.Done && name.Namespace == key.Namespace {
			r.queue.Add(source.Key{Kind: "Gateway", Name: name})
		}
	}
}

// again looks at the Gateways with parameters, and whether their class can be made by now.
func (r *run) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	class := source.Key{Kind: "GatewayClass", Name: source.Name{Name: translate.WaypointClass}}
	if objects := r.newest.Load(); objects != nil && objects.GatewayClasses[class.Name] == nil && r.queue.NumRequeues(class) == 0 {
		r.queue.Add(class)
	}
	for name := range r.parametrised {
		r.queue.Add(source.Key{Kind: "Gateway", Name: name})
	}
}

// next works on one object, and returns false when the queue is shut down.
func (r *run) next(ctx context.Context) bool {
	key, shutdown := r.queue.Get()
	if shutdown {
		return false
	}
	defer r.queue.Done(key)
	if ctx.Err() != nil {
		return true // empty the queue, write no more
	}
	timed, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var err error
	if key.Kind == "GatewayClass" {
		err = r.makeClass(timed, key.Name)
	} else {
		err = r.reconcile(timed, key.Name)
	}
	if err != nil && ctx.Err() == nil {
		r.cfg.Logger.Warn("waypoint not deployed, trying again", zap.Stringer("object", key), zap.Error(err))
		r.queue.AddRateLimited(key)
		return true
	}
	r.queue.Forget(key)
	return true
}

// gateway returns the Gateway if a waypoint is made for it.
func (r *run) gateway(name source.Name) (*gatewayv1.Gateway, *source.Objects) {
	objects := r.newest.Load()
	if objects == nil {
		return nil, nil
	}
	gw := objects.Gateways[name]
	if !deploys(objects, gw) {
		return nil, objects
	}
	return gw, objects
}
