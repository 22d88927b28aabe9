package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/workqueue"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Config is what a [Writer] needs. Client must be set.
type Config struct {
	Client     dynamic.Interface
	Decider    Decider
	Logger     *zap.Logger           // may be nil
	Registerer prometheus.Registerer // may be nil
}

// Writer writes conditions while it runs. Run may be called again after it
// returned; Observe at any time.
type Writer struct {
	cfg    Config
	writes *prometheus.CounterVec
	newest atomic.Pointer[source.Objects]
	// newestView is one of the newest states; making it anew costs a look at all pods
	// of waypoints' namespaces.
	newestView atomic.Pointer[view]
	wake       chan struct{}
	// again has the next pass look at all objects, changed or not.
	again atomic.Bool
}

// New checks cfg. It asks nothing of the API server yet.
func New(cfg Config) (*Writer, error) {
	if cfg.Client == nil {
		return nil, errors.New("status: no client")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	w := &Writer{cfg: cfg, wake: make(chan struct{}, 1), writes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "istiod_status_writes_total",
		Help: "Attempts to write conditions into the status of an object, by kind and result: ok or error.",
	}, []string{"kind", "result"})}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(w.writes); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Observe tells of a new state. It does not block.
func (w *Writer) Observe(objects *source.Objects) {
	w.newest.Store(objects)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Recheck has all objects compared with their status again, though none has changed:
// something else that is said in it has. It does not block.
func (w *Writer) Recheck() {
	w.again.Store(true)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run is the state of one Run.
type run struct {
	*Writer
	queue workqueue.TypedRateLimitingInterface[source.Key]

	mu   sync.Mutex
	held map[source.Key]hold
}

// hold keeps a statement that was written from being written again at once.
type hold struct {
	statement string
	until     time.Time
	length    time.Duration
}

// Run writes until ctx ends. All it has begun has ended when it returns.
func (w *Writer) Run(ctx context.Context) {
	r := &run{Writer: w, held: map[source.Key]hold{}, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[source.Key](retryFirst, retryMost))}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	var seen *source.Objects
	for ctx.Err() == nil {
		seen = r.pass(seen)
		pause := time.NewTimer(passInterval)
		select {
		case <-pause.C:
			select {
			case <-w.wake:
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		pause.Stop()
	}
	r.queue.ShutDown()
	wg.Wait()
}

// pass queues every object whose status does not say what it should, and returns
// the state that it looked at.
func (r *run) pass(since *source.Objects) *source.Objects {
	objects := r.newest.Load()
	again := r.again.Swap(false)
	if objects == nil || objects == since && !again {
		return objects
	}
	v := r.viewOf(objects)
	if since != nil && !again && !changed(v, since) {
		return objects
	}
	for kind := range kinds {
		for _, key := range objects.Keys(kind) {
			obj := objects.Object(key)
			if want, ok := r.cfg.Decider.decide(v, obj); ok && !upToDate(obj, kind, want) {
				r.queue.Add(key)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.held {
		if objects.Object(key) == nil {
			delete(r.held, key)
		}
	}
	return objects
}

func changed(v *view, since *source.Objects) bool {
	for _, key := range v.objects.Changes(since) {
		if relevant(key.Kind) || key.Kind == "Pod" && v.waypoints.In(key.Namespace) {
			return true
		}
	}
	return false
}

// viewOf returns the view of a state, the one that is there already if it is of it.
func (r *run) viewOf(objects *source.Objects) *view {
	if v := r.newestView.Load(); v != nil && v.objects == objects {
		return v
	}
	v := r.cfg.Decider.view(objects)
	r.newestView.Store(v)
	return v
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
	written, err := r.reconcile(ctx, key)
	switch {
	case apierrors.IsNotFound(err):
		// The object, or its kind, has gone.
	case err != nil && ctx.Err() == nil:
		r.writes.WithLabelValues(key.Kind, "error").Inc()
		level := zap.WarnLevel
		if apierrors.IsConflict(err) {
			level = zap.DebugLevel // somebody else wrote first
		}
		r.cfg.Logger.Log(level, "status not written, trying again", zap.Stringer("object", key), zap.Error(err))
		r.queue.AddRateLimited(key)
		return true
	case written:
		r.writes.WithLabelValues(key.Kind, "ok").Inc()
	}
	r.queue.Forget(key)
	return true
}

// reconcile writes the status of one object if it is not what it should be.
func (r *run) reconcile(ctx context.Context, key source.Key) (written bool, err error) {
	objects := r.newest.Load()
	obj := objects.Object(key)
	if obj == nil {
		return false, nil
	}
	want, ok := r.cfg.Decider.decide(r.viewOf(objects), obj)
	if !ok || upToDate(obj, key.Kind, want) {
		return false, nil
	}
	if wait := r.hold(key, obj, want); wait > 0 {
		r.queue.AddAfter(key, wait)
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if written, err = r.write(ctx, key, obj, want); err != nil {
		r.release(key)
		return false, fmt.Errorf("status of %s: %w", key, err)
	}
	if written {
		r.cfg.Logger.Debug("status written", zap.Stringer("object", key))
	}
	return written, nil
}

// hold returns how long the object must be left alone; when it need not be, it
// holds the statement from now on.
func (r *run) hold(key source.Key, obj metav1.Object, want Wanted) time.Duration {
	text, err := json.Marshal(want)
	if err != nil {
		text = nil // no type of Wanted can do this
	}
	statement := fmt.Sprintf("%s %d %s", obj.GetUID(), obj.GetGeneration(), text)
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	h, again := r.held[key]
	again = again && h.statement == statement
	if again && now.Before(h.until) {
		return h.until.Sub(now)
	}
	length := holdFirst
	if again && now.Before(h.until.Add(holdMost)) {
		length = min(2*h.length, holdMost)
		r.cfg.Logger.Warn("somebody else changes a condition of ours; it is written again", zap.Stringer("object", key), zap.Duration("left_alone_for", length))
	}
	r.held[key] = hold{statement: statement, until: now.Add(length), length: length}
	return 0
}

// release forgets a statement that was not written.
func (r *run) release(key source.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, key)
}
