package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// ErrNoService says that a backend is no service, or no port of it, that the mesh knows.
var ErrNoService = errors.New("no such service")

// backendKey is one port of a service.
type backendKey struct {
	service workload.ServiceKey
	port    uint16
}

// backend is one port of a service as a destination, with what it was made of.
type backend struct {
	*upstream.Backend
	protocol upstream.Protocol

	// The rest is guarded by Mesh.mu.
	service   *workload.Service
	endpoints state.Endpoints
}

// Backend returns one port of a service as a destination, and what is spoken there. It
// is made at the first call for it; a service that was asked for and has not come yet
// is waited for, shortly.
func (m *Mesh) Backend(ctx context.Context, service workload.ServiceKey, port uint16) (*upstream.Backend, upstream.Protocol, error) {
	if b := (*m.backends.Load())[backendKey{service, port}]; b != nil {
		return b.Backend, b.protocol, nil
	}
	ctx, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	for {
		snap := m.cfg.Store.Snapshot()
		b, p, err := m.backend(service, port)
		if !errors.Is(err, ErrNoService) || m.cfg.Want == nil {
			return b, p, err
		}
		select {
		case <-snap.Changed():
		case <-ctx.Done():
			return nil, 0, err
		}
	}
}

func (m *Mesh) backend(service workload.ServiceKey, port uint16) (*upstream.Backend, upstream.Protocol, error) {
	key := backendKey{service, port}
	if b := (*m.backends.Load())[key]; b != nil {
		return b.Backend, b.protocol, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := (*m.backends.Load())[key]; b != nil {
		return b.Backend, b.protocol, nil
	}
	if m.closed {
		return nil, 0, fmt.Errorf("%s:%d: the waypoint ends", service, port)
	}
	snap := m.cfg.Store.Snapshot()
	b, err := m.make(snap, key)
	if err != nil {
		return nil, 0, err
	}
	next := maps.Clone(*m.backends.Load())
	next[key] = b
	m.backends.Store(&next)
	return b.Backend, b.protocol, nil
}

// Backends returns the status of all backends in use.
func (m *Mesh) Backends() []upstream.Status {
	var list []upstream.Status
	for _, b := range *m.backends.Load() {
		list = append(list, b.Status())
	}
	return list
}

// make makes a backend; the caller holds mu.
func (m *Mesh) make(snap *state.Snapshot, key backendKey) (*backend, error) {
	svc := snap.ServiceByHost(key.service)
	if svc == nil {
		return nil, fmt.Errorf("%s: %w", key.service, ErrNoService)
	}
	port, ok := svc.Port(key.port)
	if !ok {
		return nil, fmt.Errorf("%s: %w: it has no port %d", key.service, ErrNoService, key.port)
	}
	cfg := upstream.Config{Name: fmt.Sprintf("%s:%d", key.service, key.port), LoadBalancing: svc.LoadBalancing, Log: m.log.Named("upstream")}
	if own := snap.WorkloadByPod(m.cfg.Namespace, m.cfg.Pod); own != nil {
		cfg.Place = upstream.PlaceOf(own)
	}
	up, err := upstream.New(cfg, m.cfg.Dialer)
	if err != nil {
		return nil, err
	}
	b := &backend{Backend: up, protocol: protocolOf(port.App)}
	m.update(b, snap, svc, port)
	return b, nil
}

func protocolOf(p workload.AppProtocol) upstream.Protocol {
	if p == workload.AppHTTP2 || p == workload.AppGRPC {
		return upstream.HTTP2
	}
	return upstream.HTTP1
}

// refresh brings all backends in step with snap.
func (m *Mesh) refresh(snap *state.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var next map[backendKey]*backend
	for key, b := range *m.backends.Load() {
		svc := snap.ServiceByHost(key.service)
		if svc == b.service && snap.Endpoints(key.service) == b.endpoints {
			continue
		}
		var port workload.Port
		ok := false
		if svc != nil {
			port, ok = svc.Port(key.port)
		}
		if ok && protocolOf(port.App) == b.protocol && reflect.DeepEqual(svc.LoadBalancing, b.service.LoadBalancing) {
			m.update(b, snap, svc, port)
			continue
		}
		// Gone, or another one: the next request makes it.
		if next == nil {
			next = maps.Clone(*m.backends.Load())
		}
		delete(next, key)
		defer b.Close()
	}
	if next != nil {
		m.backends.Store(&next)
	}
}

// update gives a backend its endpoints; the caller holds mu.
func (m *Mesh) update(b *backend, snap *state.Snapshot, svc *workload.Service, port workload.Port) {
	key := svc.Key()
	b.service, b.endpoints = svc, snap.Endpoints(key)
	var endpoints []upstream.Endpoint
	for w := range b.endpoints.All() {
		e, why := upstream.EndpointOf(w, svc, port, m.cfg.Network, netip.Addr{})
		if why != "" {
			m.log.Debug("endpoint left out", zap.Stringer("service", key), zap.String("workload", w.UID), zap.String("reason", why))
			continue
		}
		endpoints = append(endpoints, e)
	}
	if err := b.Update(endpoints); err != nil {
		m.log.Error("endpoints stay as they were", zap.Stringer("service", key), zap.Error(err))
	}
}

// CloseBackends closes the idle connections to all backends, those in use when they are
// no more, and makes no new ones: what they pass through can then be drained. It may be
// called more than once, and Run does at its end.
func (m *Mesh) CloseBackends() {
	m.mu.Lock()
	m.closed = true
	backends := *m.backends.Load()
	m.backends.Store(&map[backendKey]*backend{})
	m.mu.Unlock()
	for _, b := range backends {
		b.Close()
	}
}

// close ends all that the mesh has.
func (m *Mesh) close() {
	m.CloseBackends()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.authentications {
		a.Close()
	}
}
