package app

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/nexthop"
	"github.com/tulle-mesh/tulle/ztunnel/state"
)

// podMesh is the mesh as one pod's proxies see it.
type podMesh struct {
	store           *state.Store
	namespace, name string
	network         string
	wait            time.Duration
}

// Local implements inbound.Mesh and outbound.Mesh.
func (m *podMesh) Local(ctx context.Context) (*workload.Workload, error) {
	find := func(s *state.Snapshot) *workload.Workload { return s.WorkloadByPod(m.namespace, m.name) }
	if w := find(m.store.Snapshot()); w != nil {
		return w, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.wait, fmt.Errorf("waited %v", m.wait))
	defer cancel()
	return m.store.WaitWorkload(ctx, find)
}

// Policies implements inbound.Mesh.
func (m *podMesh) Policies() (authz.Policies, bool) {
	snap := m.store.Snapshot()
	w := snap.WorkloadByPod(m.namespace, m.name)
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
func (m *podMesh) Decide(source *workload.Workload, dest netip.AddrPort) nexthop.Decision {
	return nexthop.Decide(m.store.Snapshot(), nexthop.Input{Source: source, Dest: dest, Network: m.network, Pick: rand.IntN})
}

// describe is the baggage of a workload; nil describes nothing.
func describe(w *workload.Workload) string {
	if w == nil {
		return ""
	}
	return w.Baggage().String()
}
