package app

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/certs/rotation"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
	"github.com/tulle-mesh/tulle/ztunnel/inbound"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
)

// pods are the pods that this process serves.
type pods struct {
	cfg          config.Config
	store        *state.Store
	certificates *rotation.Manager
	reporter     conntrack.Reporter
	log          *zap.Logger
	// life is the life of every proxy; a drain ends them before it ends.
	life context.Context
	// endBy is when the process is to have ended, once that is known.
	endBy atomic.Pointer[time.Time]

	mu     sync.RWMutex
	byUID  map[string]*podProxy
	byName map[podName]*podProxy
}

type podName struct{ namespace, name string }

func nameOf(p inpod.Pod) podName { return podName{p.Info.Namespace, p.Info.Name} }

// Start implements the start of a pod for inpod.
func (p *pods) Start(_ context.Context, pod inpod.Pod) (inpod.Proxy, error) {
	x, err := p.start(p.life, pod)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.byUID[pod.UID], p.byName[nameOf(pod)] = x, x
	p.mu.Unlock()
	x.log.Info("pod started", zap.String("uid", pod.UID))
	return listed{x}, nil
}

// listed takes a pod off the list when its drain begins: it delivers no more.
type listed struct{ *podProxy }

// Drain implements inpod.Proxy.
func (l listed) Drain(ctx context.Context) {
	p := l.pods
	p.mu.Lock()
	if name := nameOf(l.pod); p.byName[name] == l.podProxy {
		delete(p.byName, name)
	}
	p.mu.Unlock()
	l.podProxy.Drain(ctx)
	p.mu.Lock()
	if p.byUID[l.pod.UID] == l.podProxy {
		delete(p.byUID, l.pod.UID)
	}
	p.mu.Unlock()
}

// Inbound implements outbound.Deliverer. A workload of the same name in another
// cluster, or that is no pod, is not here.
func (p *pods) Inbound(w *workload.Workload) *inbound.Proxy {
	if w.UID != workload.PodUID(p.cfg.ClusterID, w.Namespace, w.Name) {
		return nil
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if x := p.byName[podName{w.Namespace, w.Name}]; x != nil {
		return x.inbound
	}
	return nil
}

func (p *pods) all() []*podProxy {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]*podProxy, 0, len(p.byUID))
	for _, x := range p.byUID {
		out = append(out, x)
	}
	return out
}

// watchMesh authorizes live connections again whenever the policies changed, and
// lets go of tunnels to what has left, until ctx ends.
func (p *pods) watchMesh(ctx context.Context) error {
	first := p.store.Snapshot()
	policies, moves := first.PolicyVersion(), first.Moves()
	for {
		snap := p.store.Snapshot()
		if version := snap.PolicyVersion(); version != policies {
			policies = version
			for _, x := range p.all() {
				_ = x.mesh.own(snap) // remembered for when it is gone
				p.reauthorize(snap, x)
			}
		}
		if version := snap.Moves(); version != moves {
			moves = version
			for _, x := range p.all() {
				x.dropTunnels(snap)
			}
		}
		select {
		case <-snap.Changed():
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *pods) reauthorize(snap *state.Snapshot, x *podProxy) {
	w := snap.WorkloadByPod(x.pod.Info.Namespace, x.pod.Info.Name)
	if w == nil {
		return // gone from the control plane before it is from the node: nothing says that its connections are wrong
	}
	begin := time.Now()
	if checked, cut := x.table.Reauthorize(snap.Policies(w)); cut > 0 {
		x.log.Info("policy change cut live connections", zap.Int("checked", checked), zap.Int("cut", cut),
			zap.Duration("took", time.Since(begin)))
	}
}

// dropTunnels opens no more streams on tunnels to workloads that are not any more
// where and who they were. What runs on them goes on: a pod that ends is served to
// its end.
func (x *podProxy) dropTunnels(snap *state.Snapshot) {
	x.pool.Revalidate(func(key hbone.Key, _ hbone.Tunnel) bool {
		if key.Workload == "" {
			return true
		}
		w := snap.WorkloadByUID(key.Workload)
		return w != nil && w.Protocol == workload.HBONE && slices.Contains(w.Addresses, key.Destination.Addr())
	})
}
