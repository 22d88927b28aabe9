package mesh

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
	"github.com/tulle-mesh/tulle/waypoint/route"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// Config makes a Mesh.
type Config struct {
	// Store holds workloads and services.
	Store *state.Store
	// Dialer connects to endpoints.
	Dialer upstream.Dialer
	// Network, Namespace and Pod are the waypoint's own.
	Network, Namespace, Pod string
	// Own tells that the waypoint's own pod was asked for: where it runs decides which
	// endpoints are near.
	Own bool
	// SVID and Bundles are the waypoint's own, for applications that speak the mesh's
	// TLS themselves; nil where there are none.
	SVID    x509svid.Source
	Bundles x509bundle.Source
	// Want asks the control plane for services, "namespace/hostname", and their
	// endpoints. It must not block; nil where the Store has all.
	Want func(names ...string)
	// Drop gives names back; resources are those that are of no use any more. It must
	// not block; nil keeps them.
	Drop func(names, resources []string)
	// Limiter counts by rate limits. It outlives the Mesh; nil makes one that counts
	// locally alone.
	Limiter *ratelimit.Limiter
	// Keys hold the keys of tokens' issuers. They outlive the Mesh.
	Keys   *jwt.Keys
	Logger *zap.Logger
}

// Service is one that the waypoint stands before. It is immutable.
type Service struct {
	*route.Service
	Key workload.ServiceKey
	// Policies apply to all of its requests, Tokens checks those that they carry.
	Policies request.Policies
	Tokens   *jwt.Checker
}

// Mesh is safe for concurrent use.
type Mesh struct {
	cfg Config
	log *zap.Logger

	services atomic.Pointer[map[workload.ServiceKey]*Service]
	backends atomic.Pointer[map[backendKey]*Destination]
	limits   atomic.Pointer[map[string]*ratelimit.Policy]

	// asked is wanted.n, for who holds no lock.
	asked atomic.Pointer[map[string]int]

	// mu serialises changes of the two maps, which are replaced and never changed, and
	// guards what services are made of.
	mu              sync.Mutex
	routes          map[workload.ServiceKey]*route.Service
	policies        map[string]*request.Policy
	authentications map[string]*jwt.Authentication
	destinations    map[workload.ServiceKey]*destination
	wanted          wants
	closed          bool
}

// New returns a Mesh that knows nothing. Run keeps its backends in step.
func New(cfg Config) *Mesh {
	m := &Mesh{
		cfg: cfg, log: cfg.Logger, routes: map[workload.ServiceKey]*route.Service{},
		policies: map[string]*request.Policy{}, authentications: map[string]*jwt.Authentication{},
		destinations: map[workload.ServiceKey]*destination{},
		wanted:       wants{by: map[string][]string{}, n: map[string]int{}},
	}
	m.asked.Store(&map[string]int{})
	if m.cfg.Limiter == nil {
		m.cfg.Limiter = ratelimit.New(ratelimit.Config{Logger: m.log})
	}
	m.limits.Store(&map[string]*ratelimit.Policy{})
	m.services.Store(&map[workload.ServiceKey]*Service{})
	m.backends.Store(&map[backendKey]*Destination{})
	return m
}

// Service returns the service, nil when the waypoint does not stand before it.
func (m *Mesh) Service(key workload.ServiceKey) *Service { return (*m.services.Load())[key] }

// Services returns all that the waypoint stands before. Nobody may change it.
func (m *Mesh) Services() map[workload.ServiceKey]*Service { return *m.services.Load() }

// Await waits until the services that the waypoint stands before have come, and its own
// pod, shortly: what has not come by then is not there.
func (m *Mesh) Await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	for {
		snap := m.cfg.Store.Snapshot()
		missing := m.cfg.Own && snap.WorkloadByPod(m.cfg.Namespace, m.cfg.Pod) == nil
		for key := range m.Services() {
			missing = missing || snap.ServiceByHost(key) == nil && snap.WorkloadByUID(key.Hostname) == nil
		}
		if !missing {
			return
		}
		select {
		case <-snap.Changed():
		case <-ctx.Done():
			return
		}
	}
}

// workloadKey is how a workload is known among services: it has no namespace there.
func workloadKey(uid string) workload.ServiceKey { return workload.ServiceKey{Hostname: uid} }

// Resolve says which service and port a client means by the target of its CONNECT: a
// virtual address, that of a workload, or a name, and a port. Of services with the same
// name it is that of the client's namespace. The error says why it is none of the
// waypoint's.
func (m *Mesh) Resolve(target, clientNamespace string) (*Service, uint16, error) {
	host, digits, ok := cutPort(target)
	port, err := strconv.ParseUint(digits, 10, 16)
	if !ok || err != nil || port == 0 {
		return nil, 0, fmt.Errorf("target %q is not host:port", target)
	}
	snap := m.cfg.Store.Snapshot()
	if addr, err := netip.ParseAddr(host); err == nil {
		svc := snap.ServiceByVIP(m.cfg.Network, addr.Unmap())
		if svc == nil {
			w := snap.WorkloadByAddr(m.cfg.Network, addr.Unmap())
			if w == nil {
				return nil, 0, fmt.Errorf("%v is no service's address, and no workload's", addr)
			}
			if s := m.Service(workloadKey(w.UID)); s != nil {
				return s, uint16(port), nil
			}
			return nil, 0, fmt.Errorf("workload %s does not use this waypoint", w.UID)
		}
		if s := m.Service(svc.Key()); s != nil {
			return s, uint16(port), nil
		}
		return nil, 0, fmt.Errorf("service %s does not use this waypoint", svc.Key())
	}
	if s := m.Service(workload.ServiceKey{Namespace: clientNamespace, Hostname: host}); s != nil && clientNamespace != "" {
		return s, uint16(port), nil
	}
	var found *Service
	for key, s := range m.Services() {
		switch {
		case key.Hostname != host || key.Namespace == "":
		case found != nil:
			return nil, 0, fmt.Errorf("services %s and %s have the same name", found.Key, key)
		default:
			found = s
		}
	}
	if found == nil {
		return nil, 0, fmt.Errorf("no service %q uses this waypoint", host)
	}
	return found, uint16(port), nil
}

// cutPort splits host:port, with brackets around IPv6.
func cutPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", false
	}
	host, port = s[:i], s[i+1:]
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return host, port, host != ""
}

// Run keeps backends in step with the endpoints until ctx ends, and then closes them.
func (m *Mesh) Run(ctx context.Context) error {
	defer m.close()
	for {
		snap := m.cfg.Store.Snapshot()
		m.refresh(snap)
		select {
		case <-ctx.Done():
			return nil
		case <-snap.Changed():
		}
	}
}

// rebuild puts the services of the keys in force again; the caller holds mu.
func (m *Mesh) rebuild(keys map[workload.ServiceKey]bool) {
	if len(keys) == 0 {
		return
	}
	next := maps.Clone(*m.services.Load())
	for key := range keys {
		r := m.routes[key]
		if r == nil {
			delete(next, key)
			continue
		}
		next[key] = &Service{Service: r, Key: key, Policies: m.policiesOf(r), Tokens: m.tokensOf(r)}
	}
	m.services.Store(&next)
}

// tokensOf puts together what checks the tokens of a service's requests.
func (m *Mesh) tokensOf(r *route.Service) *jwt.Checker {
	var known []*jwt.Authentication
	var missing []string
	for _, name := range r.Authentications {
		if a := m.authentications[name]; a != nil {
			known = append(known, a)
		} else {
			missing = append(missing, name)
		}
	}
	checker := jwt.NewChecker(known...)
	for _, name := range missing {
		checker = checker.WithMissing(name)
	}
	return checker
}

// policiesOf puts the policies of a service together.
func (m *Mesh) policiesOf(r *route.Service) request.Policies {
	var known []*request.Policy
	var missing []string
	for _, name := range r.Policies {
		if p := m.policies[name]; p != nil {
			known = append(known, p)
		} else {
			missing = append(missing, name)
		}
	}
	set := request.NewPolicies(known...)
	for _, name := range missing {
		set = set.WithMissing(name)
	}
	return set
}
