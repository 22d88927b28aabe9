package app

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/nexthop"
)

// podMesh is the mesh as one pod's proxies see it.
type podMesh struct {
	store   *state.Store
	network string
	wait    time.Duration
	// self is the pod as the node agent names it, without addresses.
	self workload.Workload
	// last is the pod as it was announced last. A pod that ends is served until the
	// node agent says that it is gone, which may be after the control plane has
	// dropped it.
	last atomic.Pointer[workload.Workload]
}

// mesh is the mesh as pod sees it.
func (p *pods) mesh(pod inpod.Pod) *podMesh {
	return &podMesh{
		store: p.store, network: p.cfg.Network, wait: p.cfg.WorkloadWait,
		self: workload.Workload{
			UID: workload.PodUID(p.cfg.ClusterID, pod.Info.Namespace, pod.Info.Name), Name: pod.Info.Name,
			Namespace: pod.Info.Namespace, ServiceAccount: pod.Info.ServiceAccount, TrustDomain: p.cfg.TrustDomain,
			Network: p.cfg.Network, Node: p.cfg.Node, ClusterID: p.cfg.ClusterID, Protocol: workload.HBONE,
			WorkloadName: pod.Info.Name, Type: workload.Pod, Healthy: true,
		},
	}
}

// own is the pod in a snapshot, or as it was last, or nil.
func (m *podMesh) own(s *state.Snapshot) *workload.Workload {
	if w := s.WorkloadByPod(m.self.Namespace, m.self.Name); w != nil {
		if m.last.Load() != w {
			m.last.Store(w)
		}
		return w
	}
	return m.last.Load()
}

// Local implements inbound.Mesh and outbound.Mesh.
func (m *podMesh) Local(ctx context.Context) (*workload.Workload, error) {
	if w := m.own(m.store.Snapshot()); w != nil {
		return w, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.wait, fmt.Errorf("waited %v", m.wait))
	defer cancel()
	return m.store.WaitWorkload(ctx, m.own)
}

// Self implements outbound.Mesh.
func (m *podMesh) Self(client netip.Addr) (w *workload.Workload, announced bool) {
	if w := m.own(m.store.Snapshot()); w != nil {
		return w, true
	}
	self := m.self
	self.Addresses = []netip.Addr{client}
	return &self, false
}

// Joined implements inbound.Mesh.
func (m *podMesh) Joined(local *workload.Workload) time.Time {
	return m.store.Snapshot().Joined(local.UID)
}

// Left implements inbound.Mesh.
func (m *podMesh) Left(ctx context.Context) *workload.Workload {
	w, _ := m.store.WaitWorkload(ctx, func(s *state.Snapshot) *workload.Workload {
		if w := m.own(s); w != nil && w.Protocol != workload.HBONE {
			return w
		}
		return nil
	})
	return w
}

// Policies implements inbound.Mesh.
func (m *podMesh) Policies() (authz.Policies, bool) {
	snap := m.store.Snapshot()
	w := m.own(snap)
	if w == nil {
		return authz.Policies{}, false
	}
	return snap.Policies(w), true
}

// ByAddr implements inbound.Mesh.
func (m *podMesh) ByAddr(addr netip.Addr) *workload.Workload {
	return m.store.Snapshot().WorkloadByAddr(m.network, addr)
}

// Service implements inbound.Mesh.
func (m *podMesh) Service(local *workload.Workload, hostname string) *workload.Service {
	for key := range local.Services {
		if key.Hostname == hostname {
			return m.store.Snapshot().ServiceByHost(key)
		}
	}
	return nil
}

// Decide implements outbound.Mesh.
func (m *podMesh) Decide(in nexthop.Input) nexthop.Decision {
	in.Network, in.Pick = m.network, rand.IntN
	return nexthop.Decide(m.store.Snapshot(), in)
}

// describe is the baggage of a workload; nil describes nothing.
func describe(w *workload.Workload) string {
	if w == nil {
		return ""
	}
	return w.Baggage().String()
}
