package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// DestinationType is the resource type of how requests are sent to a service.
const DestinationType = "type.googleapis.com/tulle.waypoint.Destination"

// DestinationHandler takes destinations from the control plane. What cannot be done in
// one is its fault, and answers 503; one that cannot be named is rejected.
func (m *Mesh) DestinationHandler() xdsclient.Handler {
	return xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection {
		rejections := m.apply(d, m.putDestination, m.removeDestination)
		m.refresh(m.cfg.Store.Snapshot())
		return rejections
	})
}

func (m *Mesh) putDestination(r xdsclient.Resource, _ changed) error {
	var d api.Destination
	if err := unpack(r, &d); err != nil {
		return err
	}
	key := workload.ServiceKey{Namespace: d.GetNamespace(), Hostname: d.GetHostname()}
	if key.String() != m.destinationName(r.Name) {
		return fmt.Errorf("it calls itself %s", key)
	}
	m.destinations[key] = m.compileDestination(&d, m.destinations[key])
	return nil
}

func (m *Mesh) removeDestination(name string, _ changed) {
	if key, ok := workload.ParseServiceKey(m.destinationName(name)); ok {
		delete(m.destinations, key)
	}
}

// destinationName is a resource's name without the namespace of the waypoint, which
// stands behind it where the service is of another one.
func (m *Mesh) destinationName(resource string) string {
	return strings.TrimSuffix(resource, "/"+m.cfg.Namespace)
}

// destination is how requests are sent to one service. It is immutable.
type destination struct {
	portSettings
	subsets map[string]*subset
	// tls has what its settings speak TLS with, by what was said of it.
	tls map[string]*security
}

// subset is a part of a service's endpoints.
type subset struct {
	workloads map[string]bool
	// own has settings of the subset; nil takes the service's.
	own *portSettings
}

// portSettings are those of all ports, and of some in their place.
type portSettings struct {
	all   *settings
	ports map[uint16]*settings
}

func (p *portSettings) of(port uint16) *settings {
	if s := p.ports[port]; s != nil {
		return s
	}
	return p.all
}

// settings are DestinationSettings, compiled. The zero value has the defaults.
type settings struct {
	config     upstream.Config
	locality   *api.LocalityChoice
	upgrade    bool
	secure     *security
	mesh       bool // secure is for endpoints without a tunnel
	health     *api.HealthCheck
	retry      *upstream.RetryPolicy
	affinity   *upstream.Affinity
	priorities []priorityRule
	fault      string
}

// priorityRule says how urgent a request is that fits.
type priorityRule struct {
	priority   upstream.Priority
	fields     *route.Matcher
	namespaces []string
	principals []string
}

// of returns the settings of a port of the service, or of a subset, and the UIDs of the
// subset's workloads, nil for all. The error is an ErrNoService.
func (d *destination) of(port uint16, name string) (*settings, map[string]bool, error) {
	if name == "" {
		if d == nil {
			return nil, nil, nil
		}
		return d.portSettings.of(port), nil, nil
	}
	if d == nil || d.subsets[name] == nil {
		return nil, nil, fmt.Errorf("%w: it has no subset %q", ErrNoService, name)
	}
	s := d.subsets[name]
	if s.own != nil {
		if own := s.own.of(port); own != nil {
			return own, s.workloads, nil
		}
	}
	return d.portSettings.of(port), s.workloads, nil
}

// compiler compiles the settings of one service.
type compiler struct {
	*Mesh
	hostname string
	// before is the TLS that the service had: where nothing of it has changed it stays
	// the same, and with it the connections.
	before, tls map[string]*security
}

func (m *Mesh) compileDestination(d *api.Destination, old *destination) *destination {
	c := compiler{Mesh: m, hostname: d.GetHostname(), tls: map[string]*security{}}
	if old != nil {
		c.before = old.tls
	}
	out := &destination{portSettings: c.ports(d.GetSettings(), d.GetPorts()), subsets: map[string]*subset{}, tls: c.tls}
	unknown := unknownIn(d) || unknownIn(d.GetPorts()...)
	for _, s := range d.GetSubsets() {
		compiled := &subset{workloads: map[string]bool{}}
		for _, uid := range s.GetWorkloads() {
			compiled.workloads[uid] = true
		}
		if s.GetSettings() != nil || len(s.GetPorts()) > 0 {
			own := c.ports(s.GetSettings(), s.GetPorts())
			compiled.own = &own
		}
		unknown = unknown || unknownIn(s) || unknownIn(s.GetPorts()...)
		out.subsets[s.GetName()] = compiled
	}
	if unknown {
		// It may say anything of any port and subset.
		for _, s := range out.subsets {
			s.own = nil
		}
		out.portSettings = portSettings{all: &settings{fault: "something that this waypoint does not know"}}
	}
	return out
}

// unknownIn reports whether one of the messages, themselves, says what this version does
// not know. Those below are settings, whose own fault it is.
func unknownIn[M proto.Message](messages ...M) bool {
	return slices.ContainsFunc(messages, func(m M) bool { return len(m.ProtoReflect().GetUnknown()) > 0 })
}

func (c *compiler) ports(all *api.DestinationSettings, ports []*api.DestinationPort) portSettings {
	var out portSettings
	if all != nil {
		out.all = c.settings(all)
	}
	for _, p := range ports {
		if out.ports == nil {
			out.ports = map[uint16]*settings{}
		}
		out.ports[uint16(p.GetPort())] = c.settings(p.GetSettings())
	}
	return out
}

// settings makes what cannot be done the settings' fault: to send requests
// otherwise than their author wrote, without TLS or to other endpoints, is no default.
func (c *compiler) settings(s *api.DestinationSettings) *settings {
	out := &settings{fault: s.GetFault(), health: s.GetHealthCheck(), upgrade: s.GetPool().GetUpgrade(), mesh: s.GetTls().GetMesh()}
	if out.fault == "" && route.Unknown(s) {
		out.fault = "something that this waypoint does not know"
	}
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	cfg := &out.config
	cfg.PanicPercent = int(s.GetPanicPercent())
	note(compileBalancing(cfg, s.GetBalancing()))
	out.locality = s.GetBalancing().GetLocality()
	cfg.Outlier = compileOutlier(s.GetOutlier(), note)
	limits := s.GetCircuit()
	cfg.Circuit = upstream.CircuitLimits{
		Connections: int(limits.GetConnections()), Pending: int(limits.GetPending()),
		Requests: int(limits.GetRequests()), Retries: int(limits.GetRetries()),
	}
	p := s.GetPool()
	cfg.Pool = upstream.PoolConfig{
		MaxRequests: int(p.GetRequestsPerConnection()), MaxStreams: int(p.GetMaxStreams()), IdleTimeout: span(p.GetIdleTimeout(), note),
		ConnectTimeout: span(p.GetConnectTimeout(), note), MaxDuration: span(p.GetMaxConnectionDuration(), note),
	}
	if b := s.GetBudget(); b != nil {
		cfg.Budget = upstream.BudgetConfig{
			Off: b.GetOff(), Percent: orNone(b.GetPercent()), Interval: span(b.GetInterval(), note),
			MinCount: orNone(b.GetMinCount()), MinInterval: span(b.GetMinInterval(), note),
		}
	}
	if a := s.GetAdaptive(); a != nil {
		cfg.Adaptive = &upstream.Adaptive{
			Percentile: int(a.GetPercentile()), Window: span(a.GetWindow(), note), MinRTTInterval: span(a.GetMinRttInterval(), note),
			MinRTTRequests: int(a.GetMinRttRequests()), MinConcurrency: int(a.GetMinConcurrency()),
			BufferPercent: int(a.GetBufferPercent()), MaxConcurrency: int(a.GetMaxConcurrency()),
		}
		for i, rule := range a.GetPriorities() {
			compiled, err := compilePriority(rule)
			if err != nil {
				note(fmt.Errorf("priority %d: %w", i, err))
			}
			out.priorities = append(out.priorities, compiled)
		}
	}
	var err error
	out.secure, err = c.security(s.GetTls())
	note(err)
	out.affinity, err = route.CompileAffinity(s.GetSessionAffinity())
	note(err)
	out.retry, err = route.CompileRetry(s.GetRetry())
	note(err)
	if out.health != nil {
		// What upstream makes of it shows whether it can be.
		_, err = c.checks(out.health, c.hostname, upstream.HTTP1, note)
		note(err)
	}
	if err := errors.Join(errs...); err != nil && out.fault == "" {
		out.fault = err.Error()
	}
	return out
}

var balancers = map[api.Balancer]upstream.Balancer{
	api.Balancer_LEAST_REQUEST: upstream.LeastRequest, api.Balancer_ROUND_ROBIN: upstream.RoundRobin, api.Balancer_RANDOM: upstream.Random,
	api.Balancer_PEAK_EWMA: upstream.PeakEWMA, api.Balancer_RING_HASH: upstream.RingHash, api.Balancer_MAGLEV: upstream.Maglev,
}

func compileBalancing(c *upstream.Config, b *api.Balancing) error {
	var known bool
	if c.Balancer, known = balancers[b.GetBalancer()]; !known {
		return fmt.Errorf("balancer %v is unknown", b.GetBalancer())
	}
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	c.SlowStart = upstream.SlowStart{
		Window: span(b.GetSlowStart(), note), Aggression: float64(b.GetSlowStartAggression()) / 1000, MinPercent: int(b.GetSlowStartPercent()),
	}
	c.RingSize, c.TableSize = int(min(b.GetRingSize(), maxTableSize)), int(min(b.GetTableSize(), maxTableSize))
	for i, k := range b.GetHash() {
		key := upstream.HashKey{Header: k.GetHeader(), Query: k.GetQuery(), Source: k.GetSourceIp()}
		if cookie := k.GetCookie(); cookie != nil {
			key.Cookie = upstream.HashCookie{Name: cookie.GetName(), Path: cookie.GetPath(), Make: cookie.GetHasTtl(), TTL: span(cookie.GetTtl(), note)}
			if !message.ValidValue(cookie.GetPath()) {
				note(fmt.Errorf("hash key %d: path of the cookie", i))
			}
		}
		name := key.Header + key.Cookie.Name
		if key == (upstream.HashKey{}) || name != "" && !message.ValidName(strings.ToLower(name)) {
			note(fmt.Errorf("hash key %d: no name, or of a kind that this waypoint does not know", i))
		}
		key.Header = strings.ToLower(key.Header)
		c.Hash = append(c.Hash, key)
	}
	return errors.Join(errs...)
}

func compileOutlier(o *api.Outlier, note func(error)) *upstream.Outlier {
	if o == nil {
		return nil
	}
	return &upstream.Outlier{
		Consecutive5xx: int(o.GetConsecutive_5Xx()), ConsecutiveGateway: int(o.GetConsecutiveGateway()),
		ConsecutiveLocal: int(o.GetConsecutiveLocal()), SplitLocal: o.GetSplitLocal(),
		Interval: span(o.GetInterval(), note), BaseEjection: span(o.GetBaseEjection(), note), MaxEjection: span(o.GetMaxEjection(), note),
		MaxEjectedPercent: int(o.GetMaxEjectedPercent()),
		SuccessRate: upstream.SuccessRate{
			Factor: float64(o.GetSuccessRateFactor()) / 1000, MinTargets: int(o.GetSuccessRateTargets()), MinRequests: int(o.GetSuccessRateRequests()),
		},
		FailurePercent: upstream.FailurePercent{
			Threshold: int(o.GetFailurePercent()), MinTargets: int(o.GetFailurePercentTargets()), MinRequests: int(o.GetFailurePercentRequests()),
		},
	}
}

var priorities = map[api.Priority]upstream.Priority{
	api.Priority_NORMAL: upstream.Normal, api.Priority_LOW: upstream.Low, api.Priority_HIGH: upstream.High, api.Priority_CRITICAL: upstream.Critical,
}

func compilePriority(r *api.PriorityRule) (priorityRule, error) {
	out := priorityRule{namespaces: r.GetNamespaces(), principals: r.GetPrincipals()}
	var known bool
	if out.priority, known = priorities[r.GetPriority()]; !known {
		return out, fmt.Errorf("%v is unknown", r.GetPriority())
	}
	var err error
	out.fields, err = route.NewMatcher(&api.Match{Headers: r.GetHeaders()})
	return out, err
}

// checks returns the health checks of endpoints that speak p, nil without.
func (m *Mesh) checks(h *api.HealthCheck, hostname string, p upstream.Protocol, note func(error)) (*upstream.Health, error) {
	if h == nil {
		return nil, nil
	}
	out := &upstream.Health{
		Interval: span(h.GetInterval(), note), Timeout: span(h.GetTimeout(), note),
		UnhealthyThreshold: int(h.GetUnhealthyThreshold()), HealthyThreshold: int(h.GetHealthyThreshold()),
	}
	switch kind := h.GetKind().(type) {
	case *api.HealthCheck_Http:
		c := upstream.HTTPChecker{Dialer: m.cfg.Dialer, Protocol: p, Path: kind.Http.GetPath(), Authority: kind.Http.GetHost()}
		if c.Authority == "" {
			c.Authority = hostname
		}
		if len(kind.Http.GetCodes()) == 0 {
			c.Low, c.High = 200, 399
		}
		for _, code := range kind.Http.GetCodes() {
			c.Codes.Add(int(code))
		}
		if c.Path != "" && c.Path[0] != '/' || !message.ValidValue(c.Path) {
			return nil, fmt.Errorf("health check: path %q", c.Path)
		}
		if _, err := message.NormalizeAuthority(c.Authority); err != nil {
			return nil, fmt.Errorf("health check: host %q: %w", c.Authority, err)
		}
		out.Checker = c
	case *api.HealthCheck_Grpc:
		out.Checker = upstream.GRPCChecker{Dialer: m.cfg.Dialer, Service: kind.Grpc.GetService(), Authority: hostname}
	case *api.HealthCheck_Tcp:
		connector, ok := m.cfg.Dialer.(upstream.Connector)
		if !ok {
			return nil, errors.New("health check: no connections of bytes are made here")
		}
		out.Checker = upstream.TCPChecker{Connector: connector}
	default:
		return nil, errors.New("health check of a kind that this waypoint does not know")
	}
	return out, nil
}

// scopes are the labels that a failover may go by.
var scopes = map[string]workload.Scope{
	"topology.kubernetes.io/region": workload.ScopeRegion, "topology.kubernetes.io/zone": workload.ScopeZone,
	"topology.istio.io/subzone": workload.ScopeSubzone, "topology.istio.io/network": workload.ScopeNetwork,
	"topology.istio.io/cluster": workload.ScopeCluster, "kubernetes.io/hostname": workload.ScopeNode,
}

// place puts a choice of localities into c, where the waypoint's region is own.
func place(c *upstream.Config, l *api.LocalityChoice, own string) error {
	if l == nil {
		return nil
	}
	c.LoadBalancing.Preference, c.LoadBalancing.Mode = nil, workload.LoadBalancing{}.Mode
	if l.GetOff() {
		return nil
	}
	c.LoadBalancing.Mode = workload.ModeFailover
	c.LoadBalancing.Preference = []workload.Scope{workload.ScopeRegion, workload.ScopeZone, workload.ScopeSubzone}
	if labels := l.GetFailoverPriority(); len(labels) > 0 {
		c.LoadBalancing.Preference = nil
		for _, label := range labels {
			scope, known := scopes[label]
			if !known {
				return fmt.Errorf("failover by label %q, which endpoints do not tell", label)
			}
			c.LoadBalancing.Preference = append(c.LoadBalancing.Preference, scope)
		}
	}
	if i := slices.IndexFunc(l.GetFailover(), func(f *api.Failover) bool { return f.GetFrom() == own }); i >= 0 && own != "" {
		c.FailoverTo = l.GetFailover()[i].GetTo()
	}
	return nil
}

// span is a length of time that must not be negative.
func span(d *durationpb.Duration, note func(error)) time.Duration {
	if d == nil {
		return 0
	}
	v := d.AsDuration()
	if d.CheckValid() != nil || v < 0 {
		note(fmt.Errorf("%v is no length of time", v))
		return 0
	}
	return v
}

// orNone is n, or upstream's word for none.
func orNone(n uint32) int {
	if n == 0 {
		return -1
	}
	return int(n)
}
