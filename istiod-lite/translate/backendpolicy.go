package translate

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"google.golang.org/protobuf/types/known/durationpb"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// tlsPolicy returns the BackendTLSPolicy that holds for a port of a service, or with
// an empty name for all: one that names the port goes before one that names none,
// then the older counts.
func (x *traffic) tlsPolicy(service source.Key, port string) *gatewayv1.BackendTLSPolicy {
	whole, named := x.tlsPolicies(service, port)
	if named != nil {
		return named
	}
	return whole
}

func (x *traffic) tlsPolicies(service source.Key, port string) (whole, named *gatewayv1.BackendTLSPolicy) {
	for _, p := range x.tls[service] {
		for _, t := range p.Spec.TargetRefs {
			switch {
			case string(t.Kind) != service.Kind || string(t.Name) != service.Name.Name:
			case t.SectionName == nil || *t.SectionName == "":
				if whole == nil {
					whole = p
				}
			case port != "" && strings.EqualFold(string(*t.SectionName), port):
				if named == nil {
					named = p
				}
			}
		}
	}
	return whole, named
}

// Authorities returns the certificates in PEM that a BackendTLSPolicy trusts, empty
// for the system's, and why some of its references are none. All of them are wrong
// when it trusts nobody.
func (b *Backends) Authorities(p *gatewayv1.BackendTLSPolicy) (pem string, wrong []Fault, none bool) {
	v := &p.Spec.Validation
	if len(v.CACertificateRefs) == 0 {
		if v.WellKnownCACertificates != nil && *v.WellKnownCACertificates == gatewayv1.WellKnownCACertificatesSystem {
			return "", nil, false
		}
		return "", []Fault{{Reason: gatewayv1.RouteConditionReason(gatewayv1.BackendTLSPolicyReasonNoValidCACertificate), Message: "it says not whom to trust"}}, true
	}
	invalid := func(reason gatewayv1.PolicyConditionReason, format string, args ...any) {
		wrong = append(wrong, Fault{Reason: gatewayv1.RouteConditionReason(reason), Message: fmt.Sprintf(format, args...)})
	}
	for _, ref := range v.CACertificateRefs {
		if ref.Kind != "ConfigMap" || ref.Group != "" {
			invalid(gatewayv1.BackendTLSPolicyReasonInvalidKind, "certificates of kind %s in group %q are not supported, only those of a ConfigMap", ref.Kind, ref.Group)
			continue
		}
		cm := b.objects.ConfigMaps[source.Name{Namespace: p.Namespace, Name: string(ref.Name)}]
		if cm == nil {
			invalid(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef, "ConfigMap %s/%s with the key %s does not exist", p.Namespace, ref.Name, source.CAKey)
			continue
		}
		text := certificates(cm.Data[source.CAKey])
		if text == "" {
			invalid(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef, "the key %s of ConfigMap %s/%s holds no certificate in PEM", source.CAKey, p.Namespace, ref.Name)
			continue
		}
		pem += text
	}
	return pem, wrong, pem == ""
}

// certificates returns the certificates of a text, empty when it holds none or
// anything else.
func certificates(text string) string {
	var out strings.Builder
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return ""
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return ""
		}
		out.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
	}
	return out.String()
}

// backendTLS is what a policy asks of connections, with a fault where nobody can be
// trusted.
func (b *Backends) backendTLS(p *gatewayv1.BackendTLSPolicy) (*apiwaypoint.Tls, string) {
	authorities, wrong, none := b.Authorities(p)
	if none {
		return nil, fmt.Sprintf("BackendTLSPolicy %s/%s: %s", p.Namespace, p.Name, wrong[0].Message)
	}
	out := &apiwaypoint.Tls{ServerName: strings.ToLower(string(p.Spec.Validation.Hostname)), CaCertificates: authorities}
	for _, s := range p.Spec.Validation.SubjectAltNames {
		switch s.Type {
		case gatewayv1.HostnameSubjectAltNameType:
			out.SubjectNames = append(out.SubjectNames, strings.ToLower(string(s.Hostname)))
		case gatewayv1.URISubjectAltNameType:
			out.SubjectNames = append(out.SubjectNames, string(s.URI))
		default:
			return nil, fmt.Sprintf("BackendTLSPolicy %s/%s: names of the type %q are not known", p.Namespace, p.Name, s.Type)
		}
	}
	return out, ""
}

// Loses reports who of its kind wins against a policy at one of its targets: the
// older one, or the first by name; nil when it wins itself. A policy that names a
// port does not quarrel with one that names none.
func (b *Backends) Loses(policy metav1.Object, target source.Key, section string) metav1.Object {
	x := b.traffic()
	var winner metav1.Object
	switch p := policy.(type) {
	case *gatewayv1.BackendTLSPolicy:
		whole, named := x.tlsPolicies(target, section)
		if winner = whole; section != "" {
			winner = named
		}
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		if list := x.budgets[target]; len(list) > 0 {
			winner = list[0]
		}
	case *policyv1alpha1.BackendPolicy:
		winner = firstBackendPolicy(x.backends[target], target, section)
	default:
		_ = p
		return nil
	}
	if winner == nil || winner.GetName() == policy.GetName() {
		return nil
	}
	return winner
}

// firstBackendPolicy returns the oldest policy that names that section of the target,
// or none of its sections when section is empty.
func firstBackendPolicy(list []*policyv1alpha1.BackendPolicy, target source.Key, section string) *policyv1alpha1.BackendPolicy {
	for _, p := range list {
		for _, t := range p.Spec.TargetRefs {
			if t.Kind != target.Kind || t.Name != target.Name.Name {
				continue
			}
			if at := t.SectionName; at == nil && section == "" || at != nil && section != "" && strings.EqualFold(*at, section) {
				return p
			}
		}
	}
	return nil
}

// trafficBudget lays an XBackendTrafficPolicy over settings.
func trafficBudget(p *gatewayxv1alpha1.XBackendTrafficPolicy, s *apiwaypoint.DestinationSettings) {
	if r := p.Spec.RetryConstraint; r != nil {
		budget := &apiwaypoint.Budget{Percent: 20, Interval: durationpb.New(10 * time.Second), MinCount: 10, MinInterval: durationpb.New(time.Second)}
		if b := r.Budget; b != nil {
			if b.Percent != nil {
				budget.Percent = uint32(max(*b.Percent, 0))
			}
			set(&budget.Interval, b.Interval)
		}
		if m := r.MinRetryRate; m != nil {
			if m.Count != nil {
				budget.MinCount = uint32(max(*m.Count, 0))
			}
			set(&budget.MinInterval, m.Interval)
		}
		s.Budget = budget
	}
	if p.Spec.SessionPersistence != nil {
		a, fault := sessionAffinity(fmt.Sprintf("tulle-%s-%s", p.Namespace, p.Name), p.Spec.SessionPersistence)
		if s.SessionAffinity = a; fault != "" {
			s.Fault = fault
		}
	}
}

// set takes a duration that is valid.
func set(to **durationpb.Duration, d *gatewayv1.Duration) {
	if v, bad := duration(d); bad == "" && v != nil {
		*to = v
	}
}

func number(n *int32) uint32 {
	if n == nil {
		return 0
	}
	return uint32(max(*n, 0))
}

var balancers = map[string]apiwaypoint.Balancer{
	policyv1alpha1.LeastRequest: apiwaypoint.Balancer_LEAST_REQUEST, policyv1alpha1.RoundRobin: apiwaypoint.Balancer_ROUND_ROBIN,
	policyv1alpha1.Random: apiwaypoint.Balancer_RANDOM, policyv1alpha1.PeakEWMA: apiwaypoint.Balancer_PEAK_EWMA,
	policyv1alpha1.RingHash: apiwaypoint.Balancer_RING_HASH, policyv1alpha1.Maglev: apiwaypoint.Balancer_MAGLEV,
}

var priorities = map[string]apiwaypoint.Priority{
	policyv1alpha1.PriorityLow: apiwaypoint.Priority_LOW, policyv1alpha1.PriorityHigh: apiwaypoint.Priority_HIGH, policyv1alpha1.PriorityCritical: apiwaypoint.Priority_CRITICAL,
}

// backendSettings lays a BackendPolicy over settings. Of one with faults nothing is
// taken: see BackendPolicyFaults in package source.
func backendSettings(p *policyv1alpha1.BackendPolicy, s *apiwaypoint.DestinationSettings) {
	if len(source.BackendPolicyFaults(p)) > 0 {
		return
	}
	spec := &p.Spec
	if lb := spec.LoadBalancer; lb != nil {
		b := &apiwaypoint.Balancing{Balancer: balancers[lb.Type], Locality: s.GetBalancing().GetLocality()}
		if lb.RingSize != nil {
			b.RingSize = uint64(*lb.RingSize)
		}
		if lb.TableSize != nil {
			b.TableSize = uint64(*lb.TableSize)
		}
		for _, h := range lb.Hash {
			key := &apiwaypoint.HashKey{}
			switch h.Type {
			case policyv1alpha1.HashHeader:
				key.Kind = &apiwaypoint.HashKey_Header{Header: strings.ToLower(h.Name)}
			case policyv1alpha1.HashQueryParam:
				key.Kind = &apiwaypoint.HashKey_Query{Query: h.Name}
			case policyv1alpha1.HashCookie:
				cookie := &apiwaypoint.HashCookie{Name: h.Name, Path: h.Path, HasTtl: h.TTL != nil}
				set(&cookie.Ttl, h.TTL)
				key.Kind = &apiwaypoint.HashKey_Cookie{Cookie: cookie}
			case policyv1alpha1.HashSourceIP:
				key.Kind = &apiwaypoint.HashKey_SourceIp{SourceIp: true}
			}
			b.Hash = append(b.Hash, key)
		}
		if lb.SlowStart != nil {
			set(&b.SlowStart, &lb.SlowStart.Window)
			b.SlowStartPercent = number(lb.SlowStart.MinPercent)
		}
		s.Balancing = b
	}
	if h := spec.HealthCheck; h != nil {
		c := &apiwaypoint.HealthCheck{UnhealthyThreshold: number(h.UnhealthyThreshold), HealthyThreshold: number(h.HealthyThreshold)}
		set(&c.Interval, h.Interval)
		set(&c.Timeout, h.Timeout)
		switch {
		case h.HTTP != nil:
			check := &apiwaypoint.HttpCheck{Path: h.HTTP.Path, Host: h.HTTP.Host}
			for _, code := range h.HTTP.Codes {
				check.Codes = append(check.Codes, uint32(code))
			}
			c.Kind = &apiwaypoint.HealthCheck_Http{Http: check}
		case h.GRPC != nil:
			c.Kind = &apiwaypoint.HealthCheck_Grpc{Grpc: &apiwaypoint.GrpcCheck{Service: h.GRPC.Service}}
		case h.TCP != nil:
			c.Kind = &apiwaypoint.HealthCheck_Tcp{Tcp: &apiwaypoint.TcpCheck{}}
		}
		s.HealthCheck = c
	}
	if o := spec.OutlierDetection; o != nil {
		out := &apiwaypoint.Outlier{Consecutive_5Xx: number(o.Consecutive5xxErrors), ConsecutiveGateway: number(o.ConsecutiveGatewayErrors),
			ConsecutiveLocal: number(o.ConsecutiveLocalErrors), SplitLocal: o.ConsecutiveLocalErrors != nil, MaxEjectedPercent: number(o.MaxEjectionPercent)}
		set(&out.Interval, o.Interval)
		set(&out.BaseEjection, o.BaseEjectionTime)
		set(&out.MaxEjection, o.MaxEjectionTime)
		if r := o.SuccessRate; r != nil {
			out.SuccessRateFactor = or(r.Factor, 1900)
			out.SuccessRateTargets, out.SuccessRateRequests = or(r.MinimumEndpoints, 5), or(r.MinimumRequests, 100)
		}
		if r := o.FailurePercentage; r != nil {
			out.FailurePercent, out.FailurePercentTargets, out.FailurePercentRequests = uint32(r.Percent), or(r.MinimumEndpoints, 5), or(r.MinimumRequests, 50)
		}
		s.Outlier = out
	}
	if spec.PanicPercent != nil {
		s.PanicPercent = number(spec.PanicPercent)
	}
	if c := spec.CircuitBreaker; c != nil {
		s.Circuit = &apiwaypoint.Circuit{Connections: number(c.MaxConnections), Pending: number(c.MaxPendingRequests), Requests: number(c.MaxRequests), Retries: number(c.MaxRetries)}
	}
	if c := spec.ConnectionPool; c != nil {
		pool := &apiwaypoint.Pool{RequestsPerConnection: number(c.MaxRequestsPerConnection), MaxStreams: number(c.MaxStreams), Upgrade: c.HTTP2}
		set(&pool.IdleTimeout, c.IdleTimeout)
		set(&pool.ConnectTimeout, c.ConnectTimeout)
		set(&pool.MaxConnectionDuration, c.MaxConnectionDuration)
		s.Pool = pool
	}
	if b := spec.RetryBudget; b != nil {
		out := &apiwaypoint.Budget{Percent: or(b.Percent, 20), Interval: durationpb.New(10 * time.Second), MinCount: or(b.MinRetries, 10), MinInterval: durationpb.New(time.Second)}
		set(&out.Interval, b.Interval)
		set(&out.MinInterval, b.MinInterval)
		s.Budget = out
	}
	if a := spec.AdaptiveConcurrency; a != nil {
		out := &apiwaypoint.Adaptive{Percentile: number(a.Percentile), MinRttRequests: number(a.MinRTTRequests), MinConcurrency: number(a.MinConcurrency),
			MaxConcurrency: number(a.MaxConcurrency), BufferPercent: number(a.BufferPercent)}
		set(&out.Window, a.Window)
		set(&out.MinRttInterval, a.MinRTTInterval)
		for _, r := range a.Priorities {
			out.Priorities = append(out.Priorities, &apiwaypoint.PriorityRule{Priority: priorities[r.Priority], Headers: headerMatches(r.Headers),
				Namespaces: slices.Clone(r.Namespaces), Principals: slices.Clone(r.Principals)})
		}
		s.Adaptive = out
	}
}

// or is n, or what stands for it when it is absent.
func or(n *int32, otherwise uint32) uint32 {
	if n == nil {
		return otherwise
	}
	return number(n)
}

func headerMatches(list []policyv1alpha1.HeaderMatch) []*apiwaypoint.FieldMatch {
	var out []*apiwaypoint.FieldMatch
	for _, h := range list {
		m := &apiwaypoint.FieldMatch{Name: strings.ToLower(string(h.Name))}
		switch h.Type {
		case policyv1alpha1.MatchPrefix:
			m.Kind = &apiwaypoint.FieldMatch_Prefix{Prefix: h.Value}
		case policyv1alpha1.MatchRegularExpression:
			m.Kind = &apiwaypoint.FieldMatch_Regex{Regex: h.Value}
		case policyv1alpha1.MatchPresent:
			m.Kind = &apiwaypoint.FieldMatch_Present{Present: true}
		default:
			m.Kind = &apiwaypoint.FieldMatch_Exact{Exact: h.Value}
		}
		out = append(out, m)
	}
	return out
}
