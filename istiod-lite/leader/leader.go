package leader

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Times that Kubernetes' own components use. A leader that does not come to
// renew within DefaultRenewDeadline stops, DefaultLeaseDuration after its last
// renewal another takes over.
const (
	DefaultLeaseDuration = 15 * time.Second
	DefaultRenewDeadline = 10 * time.Second
	DefaultRetryPeriod   = 2 * time.Second
	// releaseTimeout bounds giving up the Lease at the end.
	releaseTimeout = 3 * time.Second
)

// Config is what an [Election] needs.
type Config struct {
	Client kubernetes.Interface
	// Namespace and Name are those of the Lease.
	Namespace, Name string
	// Identity tells this replica to readers of the Lease. The process adds
	// something of its own, so that two with one name are told apart.
	Identity string
	// LeaseDuration, RenewDeadline and RetryPeriod are as their defaults, which
	// zero stands for.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	Logger                                    *zap.Logger           // may be nil
	Registerer                                prometheus.Registerer // may be nil
}

// Election stands one replica for election. Run it once.
type Election struct {
	cfg     Config
	lock    *resourcelock.LeaseLock
	leading atomic.Bool
}

// New checks cfg. It asks nothing of the API server yet.
func New(cfg Config) (*Election, error) {
	if cfg.Client == nil || cfg.Namespace == "" || cfg.Name == "" || cfg.Identity == "" {
		return nil, errors.New("election: no client, namespace, name or identity")
	}
	cfg.LeaseDuration = cmp.Or(cfg.LeaseDuration, DefaultLeaseDuration)
	cfg.RenewDeadline = cmp.Or(cfg.RenewDeadline, DefaultRenewDeadline)
	cfg.RetryPeriod = cmp.Or(cfg.RetryPeriod, DefaultRetryPeriod)
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	e := &Election{cfg: cfg, lock: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: cfg.Namespace, Name: cfg.Name},
		Client:     cfg.Client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: cfg.Identity + "_" + rand.Text()[:8]},
	}}
	if cfg.Registerer != nil {
		err := cfg.Registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "istiod_leader", Help: "1 while this replica is the one that writes to the cluster.",
		}, func() float64 {
			if e.Leading() {
				return 1
			}
			return 0
		}))
		if err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Leading reports whether this replica leads now.
func (e *Election) Leading() bool { return e.leading.Load() }

// Identity is what stands in the Lease while this replica leads.
func (e *Election) Identity() string { return e.lock.Identity() }

// Run stands for election until ctx ends. Each time this replica is chosen it
// calls lead with a context that ends with the leadership; lead must return
// then. When ctx ends, Run waits for lead and gives up the Lease.
func (e *Election) Run(ctx context.Context, lead func(context.Context)) error {
	for ctx.Err() == nil {
		if err := e.term(ctx, lead); err != nil {
			return err
		}
	}
	return nil
}

// term ends with ctx or with the loss of the Lease.
func (e *Election) term(ctx context.Context, lead func(context.Context)) error {
	// The Lease must be held until lead has returned, longer than ctx lasts.
	electing, stop := context.WithCancel(logr.NewContext(context.WithoutCancel(ctx), logr.Discard()))
	defer stop()
	var mu sync.Mutex
	var leads sync.WaitGroup
	ending, led := false, false
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: e.lock, Name: e.cfg.Name,
		LeaseDuration: e.cfg.LeaseDuration, RenewDeadline: e.cfg.RenewDeadline, RetryPeriod: e.cfg.RetryPeriod,
		// Not ReleaseOnCancel: that also gives up a Lease that could not be
		// renewed, before it ends the context of who leads.
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) {
				mu.Lock()
				if ending {
					mu.Unlock()
					return
				}
				led = true
				leads.Add(1)
				mu.Unlock()
				defer leads.Done()
				held, cancel := context.WithCancel(held)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				e.leading.Store(true)
				e.cfg.Logger.Info("this replica leads", zap.String("lease", e.cfg.Name), zap.String("identity", e.Identity()))
				lead(held)
				e.leading.Store(false)
				e.cfg.Logger.Info("this replica leads no more", zap.String("lease", e.cfg.Name))
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				e.cfg.Logger.Info("leader", zap.String("lease", e.cfg.Name), zap.String("identity", identity), zap.Bool("self", identity == e.Identity()))
			},
		},
	})
	if err != nil {
		return fmt.Errorf("election %s: %w", e.cfg.Name, err)
	}
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		elector.Run(electing)
	}()
	select {
	case <-ctx.Done():
	case <-lost:
	}
	mu.Lock()
	ending = true
	mu.Unlock()
	leads.Wait()
	stop()
	<-lost
	if ctx.Err() != nil && led {
		e.release(ctx)
	}
	return nil
}

// release lets the next leader begin at once. When it fails, the Lease ends by
// itself.
func (e *Election) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	record, _, err := e.lock.Get(ctx)
	if err == nil && record.HolderIdentity == e.Identity() {
		now := metav1.Now()
		err = e.lock.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaseDurationSeconds: 1, AcquireTime: now, RenewTime: now, LeaderTransitions: record.LeaderTransitions,
		})
	}
	if err != nil {
		e.cfg.Logger.Warn("the lease is not given up and ends by itself", zap.String("lease", e.cfg.Name), zap.Error(err))
	}
}
