package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"go.uber.org/zap"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// ErrNoService says that a backend is no service, no port or no subset of it, that the
// mesh knows.
var ErrNoService = errors.New("no such service")

// backendKey is one port of a service, or of a subset of it.
type backendKey struct {
	service workload.ServiceKey
	port    uint16
	subset  string
}

// Destination is one port of a service, or of a subset of it, as requests are sent
// there. It is immutable but for its Backend, which stays the same when the rest changes.
type Destination struct {
	*upstream.Backend
	// Protocol is what the port says.
	Protocol upstream.Protocol
	// Secure tells that applications there speak TLS themselves.
	Secure bool

	settings  *settings // never nil
	fault     string
	service   *workload.Service
	endpoints state.Endpoints
	members   map[string]bool // of the subset; nil has all
	place     upstream.Place
	workload  *workload.Workload // in the place of a service
}

// Fault says why nothing can be sent there as its author wrote; "" when it can.
func (d *Destination) Fault() string { return d.fault }

// Retry is the policy for requests whose rule has none; nil is the default.
func (d *Destination) Retry() *upstream.RetryPolicy { return d.settings.retry }

// Affinity binds clients whose rule says nothing of it; nil does not.
func (d *Destination) Affinity() *upstream.Affinity { return d.settings.affinity }

// Speak returns the protocol for a request. Upgrades take the port's own: what is no
// request cannot share a connection that is HTTP/2 only between us.
func (d *Destination) Speak(r *message.Request) upstream.Protocol {
	if d.settings.upgrade && r.Protocol == "" && r.Method != "CONNECT" {
		return upstream.HTTP2
	}
	return d.Protocol
}

// Priority says how urgent a request of the peer is.
func (d *Destination) Priority(r *message.Request, peer *request.Peer) upstream.Priority {
	for i := range d.settings.priorities {
		p := &d.settings.priorities[i]
		if (len(p.namespaces) == 0 || slices.Contains(p.namespaces, peer.Namespace())) &&
			(len(p.principals) == 0 || slices.Contains(p.principals, peer.Principal())) && p.fields.Fits(r) {
			return p.priority
		}
	}
	return upstream.Normal
}

// Backend returns one port of a service as a destination, and what is spoken there: for
// questions of the waypoint's own. It is as Destination, without a subset.
func (m *Mesh) Backend(ctx context.Context, service workload.ServiceKey, port uint16) (*upstream.Backend, upstream.Protocol, error) {
	d, err := m.Destination(ctx, service, port, "")
	if err != nil {
		return nil, 0, err
	}
	if d.fault != "" {
		return nil, 0, fmt.Errorf("%s: %s", d.Name(), d.fault)
	}
	return d.Backend, d.Protocol, nil
}

// Destination returns one port of a service, or of a subset of it. It is made at the
// first call for it; a service that was asked for and has not come yet is waited for,
// shortly. The error is an ErrNoService, or that the waypoint ends.
func (m *Mesh) Destination(ctx context.Context, service workload.ServiceKey, port uint16, subset string) (*Destination, error) {
	key := backendKey{service, port, subset}
	if d := (*m.backends.Load())[key]; d != nil {
		return d, nil
	}
	ctx, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	for {
		snap := m.cfg.Store.Snapshot()
		d, err := m.backend(key)
		// A port or a subset that a known service has not will not come by waiting.
		if !errors.Is(err, ErrNoService) || m.cfg.Want == nil || snap.ServiceByHost(service) != nil || snap.WorkloadByUID(service.Hostname) != nil {
			return d, err
		}
		select {
		case <-snap.Changed():
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (m *Mesh) backend(key backendKey) (*Destination, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := (*m.backends.Load())[key]; d != nil {
		return d, nil
	}
	if m.closed {
		return nil, fmt.Errorf("%s:%d: the waypoint ends", key.service, key.port)
	}
	d, err := m.destine(m.cfg.Store.Snapshot(), key, nil)
	if err != nil {
		return nil, err
	}
	next := maps.Clone(*m.backends.Load())
	next[key] = d
	m.backends.Store(&next)
	return d, nil
}

// Backends returns the status of all backends in use.
func (m *Mesh) Backends() []upstream.Status {
	var list []upstream.Status
	for _, b := range *m.backends.Load() {
		list = append(list, b.Status())
	}
	return list
}

// defaults are the settings of services without any.
var defaults = &settings{}

// destine makes a destination as it is by snap: out of the old one, whose backend it
// brings in step, where there is one. It returns the old one when nothing has changed.
// The caller holds mu.
func (m *Mesh) destine(snap *state.Snapshot, key backendKey, old *Destination) (*Destination, error) {
	if key.service.Namespace == "" {
		return m.destineWorkload(snap, key, old)
	}
	svc := snap.ServiceByHost(key.service)
	if svc == nil {
		return nil, fmt.Errorf("%s: %w", key.service, ErrNoService)
	}
	port, ok := svc.Port(key.port)
	if !ok {
		return nil, fmt.Errorf("%s: %w: it has no port %d", key.service, ErrNoService, key.port)
	}
	set, members, err := m.destinations[key.service].of(key.port, key.subset)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key.service, err)
	}
	if set == nil {
		set = defaults
	}
	next := &Destination{
		Protocol: protocolOf(port.App), Secure: set.secure != nil && !set.mesh, settings: set,
		fault: set.fault, service: svc, endpoints: snap.Endpoints(key.service), members: members,
	}
	if own := snap.WorkloadByPod(m.cfg.Namespace, m.cfg.Pod); own != nil {
		next.place = upstream.PlaceOf(own)
	}
	if old != nil && old.sameSettings(next) && old.service == svc && old.endpoints == next.endpoints && maps.Equal(old.members, members) {
		return old, nil
	}
	if old != nil {
		next.Backend, next.fault = old.Backend, old.fault
	}
	if old == nil || !old.sameSettings(next) || !reflect.DeepEqual(old.service.LoadBalancing, svc.LoadBalancing) {
		if err := m.configure(next, key); err != nil {
			return nil, err
		}
	}
	m.update(next, port)
	return next, nil
}

// destineWorkload is destine for one workload, which is its only endpoint.
func (m *Mesh) destineWorkload(snap *state.Snapshot, key backendKey, old *Destination) (*Destination, error) {
	w, r := snap.WorkloadByUID(key.service.Hostname), m.routes[key.service]
	if w == nil || r == nil || w.Network != m.cfg.Network {
		return nil, fmt.Errorf("workload %s: %w", key.service.Hostname, ErrNoService)
	}
	next := &Destination{Protocol: upstream.HTTP1, settings: defaults, workload: w}
	if p := r.Port(key.port).Protocol; p == api.Protocol_HTTP2 || p == api.Protocol_GRPC {
		next.Protocol = upstream.HTTP2
	}
	if old != nil {
		if old.workload == w && old.Protocol == next.Protocol {
			return old, nil
		}
		next.Backend = old.Backend
	} else if err := m.enforce(next, upstream.Config{Name: fmt.Sprintf("%s:%d", w.UID, key.port), Log: m.log.Named("upstream")}); err != nil {
		return nil, err
	}
	var like netip.Addr
	if len(w.Addresses) > 0 {
		like = w.Addresses[0]
	}
	return next, next.Update([]upstream.Endpoint{{
		UID: w.UID, Addr: netip.AddrPortFrom(w.Address(like), key.port), Identity: w.Identity(), Tunnelled: w.Protocol == workload.HBONE,
		Place: upstream.PlaceOf(w), Weight: 1, Healthy: true,
	}})
}

// sameSettings reports whether both are configured alike, but for what the service says.
func (d *Destination) sameSettings(other *Destination) bool {
	return d.settings == other.settings && d.Protocol == other.Protocol && d.place == other.place
}

// configure makes the backend of d, or changes it in place. Settings that cannot be are
// a fault.
func (m *Mesh) configure(d *Destination, key backendKey) error {
	name := fmt.Sprintf("%s:%d", key.service, key.port)
	if key.subset != "" {
		name += "|" + key.subset
	}
	base := upstream.Config{Name: name, Log: m.log.Named("upstream"), LoadBalancing: d.service.LoadBalancing, Place: d.place}
	c := d.settings.config
	c.Name, c.Log, c.LoadBalancing, c.Place = base.Name, base.Log, base.LoadBalancing, base.Place
	d.fault = d.settings.fault
	errs := []error{place(&c, d.settings.locality, d.place.Region)}
	health, err := m.checks(d.settings.health, d.service.Hostname, d.Protocol, func(err error) { errs = append(errs, err) })
	c.Health = health
	err = errors.Join(append(errs, err)...)
	if err == nil {
		err = m.enforce(d, c)
	}
	if err == nil {
		return nil
	}
	if d.fault == "" {
		d.fault = err.Error()
	}
	// Nothing is sent there; the defaults keep what there is.
	return m.enforce(d, base)
}

// enforce gives d a backend with c, or its backend c.
func (m *Mesh) enforce(d *Destination, c upstream.Config) error {
	if d.Backend != nil {
		return d.Configure(c)
	}
	up, err := upstream.New(c, m.cfg.Dialer)
	if err == nil {
		d.Backend = up
	}
	return err
}

func protocolOf(p workload.AppProtocol) upstream.Protocol {
	if p == workload.AppHTTP2 || p == workload.AppGRPC {
		return upstream.HTTP2
	}
	return upstream.HTTP1
}

// refresh brings all backends in step with snap.
func (m *Mesh) refresh(snap *state.Snapshot) {
	for _, d := range m.refreshed(snap) {
		d.Close() // not under mu: it waits for checks
	}
}

// refreshed does it, and returns those that are gone.
func (m *Mesh) refreshed(snap *state.Snapshot) []*Destination {
	m.mu.Lock()
	defer m.mu.Unlock()
	var gone []*Destination
	var next map[backendKey]*Destination
	for key, old := range *m.backends.Load() {
		d, err := m.destine(snap, key, old)
		if d == old {
			continue
		}
		if next == nil {
			next = maps.Clone(*m.backends.Load())
		}
		if err != nil {
			delete(next, key)
			gone = append(gone, old)
			continue
		}
		next[key] = d
	}
	if next != nil {
		m.backends.Store(&next)
	}
	return gone
}

// update gives a backend its endpoints; the caller holds mu.
func (m *Mesh) update(d *Destination, port workload.Port) {
	key := d.service.Key()
	var endpoints []upstream.Endpoint
	for w := range d.endpoints.All() {
		if d.members != nil && !d.members[w.UID] {
			continue
		}
		e, why := upstream.EndpointOf(w, d.service, port, m.cfg.Network, netip.Addr{})
		if why != "" {
			m.log.Debug("endpoint left out", zap.Stringer("service", key), zap.String("workload", w.UID), zap.String("reason", why))
			continue
		}
		if s := d.settings; s.secure != nil && !(s.mesh && e.Tunnelled) {
			e.Secure = s.secure
		}
		endpoints = append(endpoints, e)
	}
	if err := d.Update(endpoints); err != nil {
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
	m.backends.Store(&map[backendKey]*Destination{})
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
