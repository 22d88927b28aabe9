package translate

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"google.golang.org/protobuf/types/known/durationpb"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// destinationRules returns the rules that decide on how a waypoint of a namespace
// reaches a service: those of the waypoint's namespace, else of the service's, else
// of the root namespace, and there those whose host is the most exact. The first
// policy counts, and the subsets of all.
func (x *traffic) destinationRules(waypoint, service, hostname string) []*networkingv1.DestinationRule {
	seen := func(dr *networkingv1.DestinationRule) bool {
		return visible(dr.Spec.GetExportTo(), dr.Namespace, waypoint)
	}
	for _, namespace := range []string{waypoint, service, x.options.RootNamespace} {
		if list, _ := x.rules[namespace].find(hostname, seen); len(list) > 0 {
			return list
		}
	}
	return nil
}

// trafficPolicy is one with its parts laid over each other.
type trafficPolicy struct {
	balancer *networking.LoadBalancerSettings
	pool     *networking.ConnectionPoolSettings
	outlier  *networking.OutlierDetection
	tls      *networking.ClientTLSSettings
	tunnel   *networking.TrafficPolicy_TunnelSettings
	proxy    *networking.TrafficPolicy_ProxyProtocol
	budget   *networking.TrafficPolicy_RetryBudget
}

// over lays p over what there is: a part that it states replaces the other, and its
// settings of the port replace all four parts that ports have.
func (t trafficPolicy) over(p *networking.TrafficPolicy, port uint32) trafficPolicy {
	if p == nil {
		return t
	}
	if p.LoadBalancer != nil {
		t.balancer = p.LoadBalancer
	}
	if p.ConnectionPool != nil {
		t.pool = p.ConnectionPool
	}
	if p.OutlierDetection != nil {
		t.outlier = p.OutlierDetection
	}
	if p.Tls != nil {
		t.tls = p.Tls
	}
	if p.Tunnel != nil {
		t.tunnel = p.Tunnel
	}
	if p.ProxyProtocol != nil {
		t.proxy = p.ProxyProtocol
	}
	if p.RetryBudget != nil {
		t.budget = p.RetryBudget
	}
	for _, s := range p.PortLevelSettings {
		if port != 0 && s.GetPort().GetNumber() == port {
			t.balancer, t.pool, t.outlier, t.tls = s.LoadBalancer, s.ConnectionPool, s.OutlierDetection, s.Tls
		}
	}
	return t
}

// settings says what a waypoint makes of it.
func (t trafficPolicy) settings() *apiwaypoint.DestinationSettings {
	s := &apiwaypoint.DestinationSettings{Balancing: balancing(t.balancer), Tls: clientTLS(t.tls)}
	if o := t.outlier; o != nil {
		// Envoy's five are what Istio leaves in force when nothing is said.
		s.Outlier = &apiwaypoint.Outlier{Consecutive_5Xx: 5, ConsecutiveGateway: o.GetConsecutiveGatewayErrors().GetValue(),
			SplitLocal: o.GetSplitExternalLocalOriginErrors(), Interval: o.GetInterval(), BaseEjection: o.GetBaseEjectionTime(), MaxEjectedPercent: uint32(max(o.GetMaxEjectionPercent(), 0))}
		if n := o.GetConsecutive_5XxErrors(); n != nil {
			s.Outlier.Consecutive_5Xx = n.GetValue()
		}
		if s.Outlier.SplitLocal {
			s.Outlier.ConsecutiveLocal = 5
			if n := o.GetConsecutiveLocalOriginFailures(); n != nil {
				s.Outlier.ConsecutiveLocal = n.GetValue()
			}
		}
		s.PanicPercent = uint32(max(o.GetMinHealthPercent(), 0))
	}
	if p := t.pool; p != nil {
		tcp, http := p.GetTcp(), p.GetHttp()
		circuit := &apiwaypoint.Circuit{Connections: count(tcp.GetMaxConnections()), Pending: count(http.GetHttp1MaxPendingRequests()),
			Requests: count(http.GetHttp2MaxRequests()), Retries: count(http.GetMaxRetries())}
		if circuit.Connections+circuit.Pending+circuit.Requests+circuit.Retries > 0 {
			s.Circuit = circuit
		}
		pool := &apiwaypoint.Pool{RequestsPerConnection: count(http.GetMaxRequestsPerConnection()), MaxStreams: count(http.GetMaxConcurrentStreams()),
			ConnectTimeout: tcp.GetConnectTimeout(), MaxConnectionDuration: tcp.GetMaxConnectionDuration(), IdleTimeout: http.GetIdleTimeout(),
			Upgrade: http.GetH2UpgradePolicy() == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE}
		if pool.IdleTimeout == nil {
			pool.IdleTimeout = tcp.GetIdleTimeout()
		}
		if !empties(pool) {
			s.Pool = pool
		}
	}
	if b := t.budget; b != nil {
		s.Budget = &apiwaypoint.Budget{Percent: 20, Interval: b.GetBudgetInterval(), MinCount: 3, MinInterval: durationpb.New(time.Second)} // Istio's defaults
		if n := b.GetMinRetryConcurrency(); n > 0 {
			s.Budget.MinCount = n
		}
		if b.GetPercent() != nil {
			s.Budget.Percent = uint32(math.Ceil(b.GetPercent().GetValue()))
		}
	}
	switch {
	case t.tls.GetCredentialName() != "":
		s.Fault = fmt.Sprintf("tls.credentialName %q: secrets are not read for waypoints; use files", t.tls.GetCredentialName())
	case t.tunnel != nil:
		s.Fault = "tunnel: waypoints reach nothing through a proxy"
	case t.proxy != nil:
		s.Fault = "proxyProtocol: waypoints do not speak it"
	case t.tls.GetCaCrl() != "":
		s.Fault = "tls.caCrl: waypoints read no lists of revoked certificates"
	}
	return s
}

func count(n int32) uint32 { return uint32(max(n, 0)) }

func balancing(lb *networking.LoadBalancerSettings) *apiwaypoint.Balancing {
	if lb == nil {
		return nil
	}
	b := &apiwaypoint.Balancing{SlowStart: lb.GetWarmupDurationSecs()}
	switch lb.GetSimple() {
	case networking.LoadBalancerSettings_ROUND_ROBIN:
		b.Balancer = apiwaypoint.Balancer_ROUND_ROBIN
	case networking.LoadBalancerSettings_RANDOM:
		b.Balancer = apiwaypoint.Balancer_RANDOM
	}
	if h := lb.GetConsistentHash(); h != nil {
		b.Balancer = apiwaypoint.Balancer_RING_HASH
		b.RingSize = h.GetMinimumRingSize()
		if size := h.GetRingHash().GetMinimumRingSize(); size > 0 {
			b.RingSize = size
		}
		if h.GetMaglev() != nil {
			b.Balancer, b.RingSize, b.TableSize = apiwaypoint.Balancer_MAGLEV, 0, h.GetMaglev().GetTableSize()
		}
		switch key := h.GetHashKey().(type) {
		case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
			b.Hash = append(b.Hash, &apiwaypoint.HashKey{Kind: &apiwaypoint.HashKey_Header{Header: strings.ToLower(key.HttpHeaderName)}})
		case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
			b.Hash = append(b.Hash, &apiwaypoint.HashKey{Kind: &apiwaypoint.HashKey_Query{Query: key.HttpQueryParameterName}})
		case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
			c := key.HttpCookie
			b.Hash = append(b.Hash, &apiwaypoint.HashKey{Kind: &apiwaypoint.HashKey_Cookie{Cookie: &apiwaypoint.HashCookie{
				Name: c.GetName(), Path: c.GetPath(), Ttl: c.GetTtl(), HasTtl: c.GetTtl() != nil}}})
		case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
			if key.UseSourceIp {
				b.Hash = append(b.Hash, &apiwaypoint.HashKey{Kind: &apiwaypoint.HashKey_SourceIp{SourceIp: true}})
			}
		}
		if len(b.Hash) == 0 { // a ring without a key is none
			b.Balancer, b.RingSize, b.TableSize = apiwaypoint.Balancer_LEAST_REQUEST, 0, 0
		}
	}
	if w := lb.GetWarmup(); w != nil {
		b.SlowStart = w.GetDuration()
		b.SlowStartAggression = uint32(w.GetAggression().GetValue() * 1000)
		b.SlowStartPercent = uint32(math.Ceil(w.GetMinimumPercent().GetValue()))
	}
	if l := lb.GetLocalityLbSetting(); l != nil {
		b.Locality = &apiwaypoint.LocalityChoice{FailoverPriority: l.GetFailoverPriority()}
		if on := l.GetEnabled(); on != nil && !on.GetValue() {
			b.Locality = &apiwaypoint.LocalityChoice{Off: true}
		} else {
			for _, f := range l.GetFailover() {
				b.Locality.Failover = append(b.Locality.Failover, &apiwaypoint.Failover{From: f.GetFrom(), To: f.GetTo()})
			}
		}
	}
	return b
}

func clientTLS(tls *networking.ClientTLSSettings) *apiwaypoint.Tls {
	if tls == nil || tls.GetMode() == networking.ClientTLSSettings_DISABLE {
		return nil
	}
	out := &apiwaypoint.Tls{ServerName: tls.GetSni(), SubjectNames: tls.GetSubjectAltNames(), CaCertificatesFile: tls.GetCaCertificates(), Insecure: tls.GetInsecureSkipVerify().GetValue()}
	if out.CaCertificatesFile == "system" {
		out.CaCertificatesFile = "" // the system's are what there is without one
	}
	switch tls.GetMode() {
	case networking.ClientTLSSettings_MUTUAL:
		out.ClientCertificate, out.ClientKey = tls.GetClientCertificate(), tls.GetPrivateKey()
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		out.Mesh = true
	}
	return out
}

// RuleGaps returns clauses on what of a DestinationRule waypoints do not do.
func RuleGaps(dr *networkingv1.DestinationRule) []string {
	var gaps []string
	if dr.Spec.GetWorkloadSelector() != nil {
		return []string{"spec.workloadSelector: the rule is for clients with a proxy of their own and has no effect at waypoints"}
	}
	policyGaps(dr.Spec.GetTrafficPolicy(), "spec.trafficPolicy", &gaps)
	for i, s := range dr.Spec.GetSubsets() {
		policyGaps(s.GetTrafficPolicy(), fmt.Sprintf("spec.subsets[%d].trafficPolicy", i), &gaps)
	}
	return gaps
}

func policyGaps(p *networking.TrafficPolicy, path string, gaps *[]string) {
	if p == nil {
		return
	}
	note := func(field, format string, args ...any) {
		*gaps = append(*gaps, path+"."+field+": "+fmt.Sprintf(format, args...))
	}
	if p.Tunnel != nil {
		note("tunnel", "waypoints reach nothing through a proxy: all requests get 503")
	}
	if p.ProxyProtocol != nil {
		note("proxyProtocol", "waypoints do not speak it: all requests get 503")
	}
	if b := p.RetryBudget; b.GetMinRetryConcurrency() > 0 {
		note("retryBudget.minRetryConcurrency", "so many retries are allowed in each second instead of at one time")
	}
	partGaps(p.LoadBalancer, p.ConnectionPool, p.OutlierDetection, p.Tls, note)
	for i, s := range p.PortLevelSettings {
		partGaps(s.LoadBalancer, s.ConnectionPool, s.OutlierDetection, s.Tls, func(field, format string, args ...any) {
			note(fmt.Sprintf("portLevelSettings[%d].%s", i, field), format, args...)
		})
	}
}

func partGaps(lb *networking.LoadBalancerSettings, pool *networking.ConnectionPoolSettings, outlier *networking.OutlierDetection, tls *networking.ClientTLSSettings,
	note func(field, format string, args ...any)) {
	if lb.GetSimple() == networking.LoadBalancerSettings_PASSTHROUGH {
		note("loadBalancer.simple", "a waypoint chooses the endpoint: PASSTHROUGH is taken as LEAST_REQUEST")
	}
	if c := lb.GetConsistentHash().GetHttpCookie(); len(c.GetAttributes()) > 0 {
		note("loadBalancer.consistentHash.httpCookie.attributes", "has no effect")
	}
	if len(lb.GetLocalityLbSetting().GetDistribute()) > 0 {
		note("loadBalancer.localityLbSetting.distribute", "has no effect: near endpoints go first")
	}
	if lb.GetZoneAwareLbSetting() != nil {
		note("loadBalancer.zoneAwareLbSetting", "has no effect")
	}
	if pool.GetTcp().GetTcpKeepalive() != nil {
		note("connectionPool.tcp.tcpKeepalive", "has no effect: the tunnels keep themselves alive")
	}
	if pool.GetHttp().GetHttp2KeepAlive() != nil {
		note("connectionPool.http.http2KeepAlive", "has no effect: the tunnels keep themselves alive")
	}
	if pool.GetHttp().GetUseClientProtocol() {
		note("connectionPool.http.useClientProtocol", "has no effect: the port says what its endpoints speak")
	}
	if outlier.GetConsecutiveErrors() != 0 { //nolint:staticcheck // deprecated fields have no effect, which their author should know
		note("outlierDetection.consecutiveErrors", "has no effect: use consecutive5xxErrors or consecutiveGatewayErrors")
	}
	if len(outlier.GetOutlierDetectionHttpErrorCodes()) > 0 {
		note("outlierDetection.outlierDetectionHttpErrorCodes", "has no effect")
	}
	if tls.GetCredentialName() != "" {
		note("tls.credentialName", "secrets are not read for waypoints: all requests get 503")
	}
	if tls.GetCaCrl() != "" {
		note("tls.caCrl", "waypoints read no lists of revoked certificates: all requests get 503")
	}
}

// RuleHost is the service, or the services with a wildcard, that a rule is for.
func RuleHost(dr *networkingv1.DestinationRule, o Options) string {
	return o.withDefaults().fqdn(dr.Spec.GetHost(), dr.Namespace)
}

// subsetWorkloads returns the UIDs of the endpoints that have the labels, in order.
func (t *Translator) subsetWorkloads(u *update, members map[string]struct{}, labels map[string]string) []string {
	var uids []string
	for uid := range members {
		if subset(labels, t.endpointLabels(u, uid)) {
			uids = append(uids, uid)
		}
	}
	slices.Sort(uids)
	return uids
}

// endpointLabels returns those of a workload by its UID; none of one that no object
// of its own stands for.
func (t *Translator) endpointLabels(u *update, uid string) map[string]string {
	rest, ok := strings.CutPrefix(uid, t.options.ClusterID+"/")
	if !ok {
		return nil
	}
	group, rest, _ := strings.Cut(rest, "/")
	parts := strings.SplitN(rest, "/", 4)
	if len(parts) < 3 {
		return nil
	}
	name := source.Name{Namespace: parts[1], Name: parts[2]}
	switch kind := parts[0]; {
	case group == "" && kind == "Pod":
		if pod := u.objects.Pods[name]; pod != nil {
			return pod.Labels
		}
	case group == networkingGroup && kind == "WorkloadEntry":
		if we := u.objects.WorkloadEntries[name]; we != nil {
			return laidOver(we.Labels, we.Spec.Labels)
		}
	case group == networkingGroup && kind == "ServiceEntry" && len(parts) == 4:
		se := u.objects.ServiceEntries[name]
		if se == nil {
			return nil
		}
		seen := map[string]int{}
		for _, e := range se.Spec.Endpoints {
			if endpointSuffix(seen, e.GetAddress()) == parts[3] {
				return laidOver(se.Labels, e.GetLabels())
			}
		}
		return se.Labels
	}
	return nil
}
