package kube

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
	"github.com/tulle-mesh/tulle/ztunnel/agent/sandbox"
)

// Pods enrols and releases; *enrol.Manager is one.
type Pods interface {
	Enrol(ctx context.Context, pod enrol.Pod) error
	// Remove releases a running pod, Gone one that was deleted.
	Remove(ctx context.Context, uid string) error
	Gone(ctx context.Context, uid string) error
	Pods() []enrol.Status
	Pod(uid string) (enrol.Status, bool)
	// Leaving are those that were released and of which something is left.
	Leaving() []enrol.Pod
}

// Finder finds network namespaces by the UIDs under which the runtime knows
// pods; sandbox.Finder is one.
type Finder interface {
	Find(uids []string) (map[string]sandbox.Sandbox, error)
	// Inhabited tells whether a process is in the namespace.
	Inhabited(id netns.ID) (bool, error)
}

// Probes lets the kubelet's probes reach pods; *hostprobe.Probes is one.
type Probes interface {
	Set(uid string, addresses []netip.Addr) error
	Delete(uid string) error
	Known() error
}

// Config makes a Controller. Client, Node, Pods, Finder and Probes are required.
type Config struct {
	Client kubernetes.Interface
	// Node is the name of the node that the process runs on.
	Node string
	// Exclude are the namespaces whose pods never belong to the mesh.
	Exclude []string
	Pods    Pods
	Finder  Finder
	Probes  Probes
	// Proc is the proc file system that all of the node's processes are seen in,
	// for runtimes that name a network namespace by a process. Empty means /proc.
	Proc string
	// Settle and Resync are those of limits.go when zero.
	Settle, Resync time.Duration
	// Logger may be nil.
	Logger *zap.Logger
	// Registerer takes the metrics; nil: none are kept.
	Registerer prometheus.Registerer
}

// Controller follows Kubernetes. It is safe for concurrent use.
type Controller struct {
	cfg     Config
	log     *zap.Logger
	metrics *metrics
	caches  *caches
	queue   workqueue.TypedRateLimitingInterface[string]
	scan    scan
	// synced is closed when the caches are complete and the probes' addresses are
	// known.
	synced chan struct{}
	// releasing: the agent is uninstalled, and lets everybody pass.
	releasing atomic.Bool

	mu sync.Mutex
	// leaving says since when the annotation of a pod that leaves has been away.
	leaving map[string]time.Time
	// announced is what was last written into the annotations of members.
	announced map[string]announcement
}

// announcement is a value of the annotation and when it was written.
type announcement struct {
	value string
	at    time.Time
}

// New makes a Controller; Run begins, and Close ends one that does not Run.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Node == "" || cfg.Pods == nil || cfg.Finder == nil || cfg.Probes == nil {
		return nil, errors.New("kube: Config needs Client, Node, Pods, Finder and Probes")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Settle == 0 {
		cfg.Settle = Settle
	}
	if cfg.Resync == 0 {
		cfg.Resync = resync
	}
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	c := &Controller{
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer), synced: make(chan struct{}),
		leaving: map[string]time.Time{}, announced: map[string]announcement{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryMin, retryMax)),
	}
	c.scan.finder = cfg.Finder
	var err error
	if c.caches, err = newCaches(cfg.Client, cfg.Node); err != nil {
		return nil, err
	}
	return c, c.listen()
}

// Close frees what New made.
func (c *Controller) Close() { c.queue.ShutDown() }

// Synced is closed when the Controller knows the node's pods.
func (c *Controller) Synced() <-chan struct{} { return c.synced }

// listen turns events into pods to look at.
func (c *Controller) listen() error {
	pod := func(o any) {
		if p, err := object[*corev1.Pod](o); err == nil {
			c.queue.Add(string(p.UID))
		}
	}
	_, err := c.caches.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: pod, DeleteFunc: pod,
		UpdateFunc: func(old, now any) {
			pod(now)
			// A pod of the same name may have replaced it without a deletion in between.
			if o, err := object[*corev1.Pod](old); err == nil {
				if n, err := object[*corev1.Pod](now); err == nil && n.UID != o.UID {
					pod(old)
				}
			}
		},
	})
	if err != nil {
		return err
	}
	podsOf := func(namespace string) {
		found, err := c.caches.pods.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
		if err != nil {
			return
		}
		for _, p := range found {
			pod(p)
		}
	}
	_, err = c.caches.namespaces.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if n, err := object[*corev1.Namespace](o); err == nil {
				podsOf(n.Name)
			}
		},
		UpdateFunc: func(old, now any) {
			o, err := object[*corev1.Namespace](old)
			n, err2 := object[*corev1.Namespace](now)
			if err == nil && err2 == nil && o.Labels[membership.Label] != n.Labels[membership.Label] {
				podsOf(n.Name)
			}
		},
	})
	return err
}

// Run follows Kubernetes until ctx ends. Pods stay as they are when it returns.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := c.caches.run(ctx)
	defer stop()
	defer cancel() // before stop waits
	var group sync.WaitGroup
	defer group.Wait()
	defer c.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), c.caches.pods.HasSynced, c.caches.namespaces.HasSynced) {
		return nil
	}
	c.tellProbes()
	close(c.synced)
	c.log.Info("follows Kubernetes", zap.String("node", c.cfg.Node), zap.Int("pods", len(c.caches.allPods())))
	for range workers {
		group.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	ticker := time.NewTicker(c.cfg.Resync)
	defer ticker.Stop()
	for {
		c.lookAtAll()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// tellProbes says which addresses the pods of before have.
func (c *Controller) tellProbes() {
	for _, s := range c.cfg.Pods.Pods() {
		if pod := c.caches.pod(s.UID); pod != nil && !membership.Ended(pod) {
			c.setProbes(pod)
		}
	}
	if err := c.cfg.Probes.Known(); err != nil {
		c.log.Warn("addresses of pods of before stay among the probes'", zap.Error(err))
	}
}

// lookAtAll queues the pods that the cache knows and those that are enrolled.
func (c *Controller) lookAtAll() {
	for _, p := range c.caches.allPods() {
		c.queue.Add(string(p.UID))
	}
	for _, s := range c.cfg.Pods.Pods() {
		c.queue.Add(s.UID)
	}
}

// next looks at one pod; false ends the worker.
func (c *Controller) next(ctx context.Context) bool {
	uid, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(uid)
	again, err := c.reconcile(ctx, uid)
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		c.metrics.failures.Inc()
		c.log.Warn("pod is not as it should be; tried again", zap.String("uid", uid), zap.Error(err))
		c.queue.AddRateLimited(uid)
	case again == later:
		c.queue.AddRateLimited(uid)
	case again > 0:
		c.queue.Forget(uid)
		c.queue.AddAfter(uid, again)
	default:
		c.queue.Forget(uid)
	}
	return true
}
