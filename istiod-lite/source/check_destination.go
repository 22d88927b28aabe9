package source

import (
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"google.golang.org/protobuf/types/known/durationpb"
)

func checkDestinationRule(dr *networkingv1.DestinationRule) field.ErrorList {
	path, spec := field.NewPath("spec"), &dr.Spec
	errs := checkHost(spec.Host, path.Child("host"))
	errs = append(errs, checkTrafficPolicy(spec.TrafficPolicy, path.Child("trafficPolicy"))...)
	subsets := path.Child("subsets")
	if n := len(spec.Subsets); n > maxSubsets {
		errs = append(errs, field.TooMany(subsets, n, maxSubsets))
	}
	names := map[string]bool{}
	for i, s := range spec.Subsets {
		path := subsets.Index(i)
		switch {
		case s.GetName() == "":
			errs = append(errs, field.Required(path.Child("name"), ""))
		case names[s.GetName()]:
			errs = append(errs, field.Duplicate(path.Child("name"), s.GetName()))
		default:
			for _, msg := range validation.IsDNS1123Label(strings.ToLower(s.GetName())) {
				errs = append(errs, field.Invalid(path.Child("name"), s.GetName(), msg))
			}
		}
		names[s.GetName()] = true
		errs = append(errs, checkLabelMap(s.GetLabels(), path.Child("labels"))...)
		errs = append(errs, checkTrafficPolicy(s.GetTrafficPolicy(), path.Child("trafficPolicy"))...)
	}
	for i, e := range spec.ExportTo {
		errs = append(errs, checkExport(e, path.Child("exportTo").Index(i))...)
	}
	if s := spec.WorkloadSelector; s != nil {
		errs = append(errs, checkSelector(s, path.Child("workloadSelector"))...)
	}
	return errs
}

// checkHost takes the name of a service, short or whole, or a wildcard.
func checkHost(host string, path *field.Path) field.ErrorList {
	switch host {
	case "":
		return field.ErrorList{field.Required(path, "the name of a service")}
	case "*":
		return nil
	}
	return checkHostname(host, path)
}

// checkExport takes ".", "*", "~" and names of namespaces.
func checkExport(e string, path *field.Path) field.ErrorList {
	if e == "." || e == "*" || e == "~" {
		return nil
	}
	var errs field.ErrorList
	for _, msg := range validation.IsDNS1123Label(e) {
		errs = append(errs, field.Invalid(path, e, msg))
	}
	return errs
}

func checkTrafficPolicy(p *networking.TrafficPolicy, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := checkPolicyParts(p.LoadBalancer, p.ConnectionPool, p.OutlierDetection, p.Tls, path)
	ports := map[uint32]bool{}
	for i, s := range p.PortLevelSettings {
		path := path.Child("portLevelSettings").Index(i)
		n := s.GetPort().GetNumber()
		errs = append(errs, checkPort(int64(n), path.Child("port", "number"))...)
		if ports[n] {
			errs = append(errs, field.Duplicate(path.Child("port", "number"), n))
		}
		ports[n] = true
		errs = append(errs, checkPolicyParts(s.LoadBalancer, s.ConnectionPool, s.OutlierDetection, s.Tls, path)...)
	}
	if b := p.RetryBudget; b != nil {
		path := path.Child("retryBudget")
		errs = append(errs, checkPercent(b.GetPercent().GetValue(), path.Child("percent"))...)
		errs = append(errs, checkSpan(b.GetBudgetInterval(), path.Child("budgetInterval"))...)
	}
	return errs
}

func checkPolicyParts(lb *networking.LoadBalancerSettings, pool *networking.ConnectionPoolSettings, outlier *networking.OutlierDetection, tls *networking.ClientTLSSettings, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if lb != nil {
		errs = append(errs, checkBalancer(lb, path.Child("loadBalancer"))...)
	}
	if pool != nil {
		path := path.Child("connectionPool")
		tcp, http := pool.GetTcp(), pool.GetHttp()
		for _, n := range []struct {
			value int32
			path  *field.Path
		}{
			{tcp.GetMaxConnections(), path.Child("tcp", "maxConnections")}, {http.GetHttp1MaxPendingRequests(), path.Child("http", "http1MaxPendingRequests")},
			{http.GetHttp2MaxRequests(), path.Child("http", "http2MaxRequests")}, {http.GetMaxRequestsPerConnection(), path.Child("http", "maxRequestsPerConnection")},
			{http.GetMaxRetries(), path.Child("http", "maxRetries")}, {http.GetMaxConcurrentStreams(), path.Child("http", "maxConcurrentStreams")},
		} {
			errs = append(errs, checkCount(int64(n.value), n.path)...)
		}
		errs = append(errs, checkSpan(tcp.GetConnectTimeout(), path.Child("tcp", "connectTimeout"))...)
		errs = append(errs, checkSpan(tcp.GetIdleTimeout(), path.Child("tcp", "idleTimeout"))...)
		errs = append(errs, checkSpan(tcp.GetMaxConnectionDuration(), path.Child("tcp", "maxConnectionDuration"))...)
		errs = append(errs, checkSpan(http.GetIdleTimeout(), path.Child("http", "idleTimeout"))...)
	}
	if o := outlier; o != nil {
		path := path.Child("outlierDetection")
		errs = append(errs, checkSpan(o.GetInterval(), path.Child("interval"))...)
		errs = append(errs, checkSpan(o.GetBaseEjectionTime(), path.Child("baseEjectionTime"))...)
		errs = append(errs, checkPercent(float64(o.GetMaxEjectionPercent()), path.Child("maxEjectionPercent"))...)
		errs = append(errs, checkPercent(float64(o.GetMinHealthPercent()), path.Child("minHealthPercent"))...)
	}
	if tls != nil {
		errs = append(errs, checkClientTLS(tls, path.Child("tls"))...)
	}
	return errs
}

func checkBalancer(lb *networking.LoadBalancerSettings, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if h := lb.GetConsistentHash(); h != nil {
		path := path.Child("consistentHash")
		switch key := h.GetHashKey().(type) {
		case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
			errs = append(errs, checkHeaderName(key.HttpHeaderName, path.Child("httpHeaderName"))...)
		case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
			errs = append(errs, checkNotEmpty(key.HttpQueryParameterName, path.Child("httpQueryParameterName"))...)
		case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
			errs = append(errs, checkHeaderName(key.HttpCookie.GetName(), path.Child("httpCookie", "name"))...)
			errs = append(errs, checkSpan(key.HttpCookie.GetTtl(), path.Child("httpCookie", "ttl"))...)
		case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		default:
			errs = append(errs, field.Required(path, "one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName says what is hashed"))
		}
		if size := max(h.GetMinimumRingSize(), h.GetRingHash().GetMinimumRingSize()); size > maxRingSize {
			errs = append(errs, field.Invalid(path.Child("ringHash", "minimumRingSize"), size, "must be at most 8388608"))
		}
		if size := h.GetMaglev().GetTableSize(); size > maxMaglevTable {
			errs = append(errs, field.Invalid(path.Child("maglev", "tableSize"), size, "must be at most 5000011"))
		}
	}
	errs = append(errs, checkSpan(lb.GetWarmupDurationSecs(), path.Child("warmupDurationSecs"))...)
	if w := lb.GetWarmup(); w != nil {
		errs = append(errs, checkSpan(w.GetDuration(), path.Child("warmup", "duration"))...)
		errs = append(errs, checkPercent(w.GetMinimumPercent().GetValue(), path.Child("warmup", "minimumPercent"))...)
		if a := w.GetAggression(); a != nil && a.GetValue() < 1 {
			errs = append(errs, field.Invalid(path.Child("warmup", "aggression"), a.GetValue(), "must be at least 1"))
		}
	}
	if l := lb.GetLocalityLbSetting(); l != nil {
		path := path.Child("localityLbSetting")
		parts := 0
		for _, n := range []int{len(l.GetDistribute()), len(l.GetFailover()), len(l.GetFailoverPriority())} {
			if n > 0 {
				parts++
			}
		}
		if parts > 1 && len(l.GetDistribute()) > 0 {
			errs = append(errs, field.Forbidden(path.Child("distribute"), "distribute excludes failover and failoverPriority"))
		}
		for i, f := range l.GetFailover() {
			if f.GetFrom() == f.GetTo() {
				errs = append(errs, field.Invalid(path.Child("failover").Index(i).Child("to"), f.GetTo(), "must differ from from"))
			}
		}
	}
	return errs
}

func checkClientTLS(tls *networking.ClientTLSSettings, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	files := tls.GetClientCertificate() != "" || tls.GetPrivateKey() != ""
	switch tls.GetMode() {
	case networking.ClientTLSSettings_MUTUAL:
		if tls.GetCredentialName() == "" && tls.GetClientCertificate() == "" {
			errs = append(errs, field.Required(path.Child("clientCertificate"), "the mode MUTUAL needs a certificate"))
		}
		if tls.GetCredentialName() == "" && tls.GetPrivateKey() == "" {
			errs = append(errs, field.Required(path.Child("privateKey"), "the mode MUTUAL needs a private key"))
		}
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		if files || tls.GetCredentialName() != "" || tls.GetCaCertificates() != "" {
			errs = append(errs, field.Forbidden(path, "the mode ISTIO_MUTUAL uses the mesh's certificates and takes no others"))
		}
	default:
		if files {
			errs = append(errs, field.Forbidden(path.Child("clientCertificate"), "only the mode MUTUAL presents a certificate"))
		}
	}
	return errs
}

func checkSpan(d *durationpb.Duration, path *field.Path) field.ErrorList {
	if d == nil {
		return nil
	}
	if v := d.AsDuration(); !d.IsValid() || v > maxRouteDuration {
		return field.ErrorList{field.Invalid(path, v.String(), "must be at most "+maxRouteDuration.String())}
	}
	if v := d.AsDuration(); v < 0 {
		return field.ErrorList{field.Invalid(path, v.String(), "must not be negative")}
	}
	if v := d.AsDuration(); v > 0 && v < time.Millisecond {
		return field.ErrorList{field.Invalid(path, v.String(), "must be at least a millisecond")}
	}
	return nil
}

func checkPercent(v float64, path *field.Path) field.ErrorList {
	if !(v >= 0 && v <= 100) {
		return field.ErrorList{field.Invalid(path, v, "must be between 0 and 100")}
	}
	return nil
}

func checkCount(n int64, path *field.Path) field.ErrorList {
	if n < 0 {
		return field.ErrorList{field.Invalid(path, n, "must not be negative")}
	}
	return nil
}
