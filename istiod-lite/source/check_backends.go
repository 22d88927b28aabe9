package source

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
)

func checkBackendTLSPolicy(p *gatewayv1.BackendTLSPolicy) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	targets := spec.Child("targetRefs")
	if len(p.Spec.TargetRefs) == 0 {
		errs = append(errs, field.Required(targets, "a policy needs a target"))
	}
	if n := len(p.Spec.TargetRefs); n > maxPolicyTargets {
		errs = append(errs, field.TooMany(targets, n, maxPolicyTargets))
	}
	for i, t := range p.Spec.TargetRefs {
		errs = append(errs, checkServiceTarget(string(t.Group), string(t.Kind), string(t.Name), targets.Index(i))...)
	}
	v, path := &p.Spec.Validation, spec.Child("validation")
	switch {
	case len(v.CACertificateRefs) > 0 && v.WellKnownCACertificates != nil && *v.WellKnownCACertificates != "":
		errs = append(errs, field.Forbidden(path.Child("wellKnownCACertificates"), "caCertificateRefs and wellKnownCACertificates exclude each other"))
	case len(v.CACertificateRefs) == 0 && (v.WellKnownCACertificates == nil || *v.WellKnownCACertificates == ""):
		errs = append(errs, field.Required(path.Child("caCertificateRefs"), "caCertificateRefs or wellKnownCACertificates says whom to trust"))
	case len(v.CACertificateRefs) == 0:
		errs = append(errs, notSupported(path.Child("wellKnownCACertificates"), string(*v.WellKnownCACertificates), string(gatewayv1.WellKnownCACertificatesSystem))...)
	}
	for i, ref := range v.CACertificateRefs {
		errs = append(errs, checkNotEmpty(string(ref.Name), path.Child("caCertificateRefs").Index(i).Child("name"))...)
	}
	errs = append(errs, checkPreciseHost(string(v.Hostname), path.Child("hostname"))...)
	for i, s := range v.SubjectAltNames {
		path := path.Child("subjectAltNames").Index(i)
		switch s.Type {
		case gatewayv1.HostnameSubjectAltNameType:
			errs = append(errs, checkHostname(string(s.Hostname), path.Child("hostname"))...)
		case gatewayv1.URISubjectAltNameType:
			errs = append(errs, checkNotEmpty(string(s.URI), path.Child("uri"))...)
		default:
			errs = append(errs, field.NotSupported(path.Child("type"), string(s.Type), []string{"Hostname", "URI"}))
		}
	}
	return errs
}

func checkPreciseHost(host string, path *field.Path) field.ErrorList {
	if strings.HasPrefix(host, "*") {
		return field.ErrorList{field.Invalid(path, host, "must be one name, not a wildcard")}
	}
	return checkHostname(host, path)
}

// checkServiceTarget takes a Service or a ServiceEntry.
func checkServiceTarget(group, kind, name string, path *field.Path) field.ErrorList {
	errs := checkNotEmpty(name, path.Child("name"))
	switch {
	case kind == "Service" && group == "", kind == "ServiceEntry" && group == "networking.istio.io":
	case kind == "Service":
		errs = append(errs, field.Invalid(path.Child("group"), group, `a Service is in group ""`))
	case kind == "ServiceEntry":
		errs = append(errs, field.Invalid(path.Child("group"), group, "a ServiceEntry is in group networking.istio.io"))
	default:
		errs = append(errs, field.NotSupported(path.Child("kind"), kind, []string{"Service", "ServiceEntry"}))
	}
	return errs
}

func checkBackendTrafficPolicy(p *gatewayxv1alpha1.XBackendTrafficPolicy) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	targets := spec.Child("targetRefs")
	if len(p.Spec.TargetRefs) == 0 {
		errs = append(errs, field.Required(targets, "a policy needs a target"))
	}
	if n := len(p.Spec.TargetRefs); n > maxPolicyTargets {
		errs = append(errs, field.TooMany(targets, n, maxPolicyTargets))
	}
	for i, t := range p.Spec.TargetRefs {
		errs = append(errs, checkServiceTarget(string(t.Group), string(t.Kind), string(t.Name), targets.Index(i))...)
	}
	if r := p.Spec.RetryConstraint; r != nil {
		path := spec.Child("retryConstraint")
		if b := r.Budget; b != nil {
			if b.Percent != nil {
				errs = append(errs, checkPercent(float64(*b.Percent), path.Child("budget", "percent"))...)
			}
			errs = append(errs, checkDuration(b.Interval, path.Child("budget", "interval"))...)
		}
		if m := r.MinRetryRate; m != nil {
			if m.Count != nil {
				errs = append(errs, checkCount(int64(*m.Count), path.Child("minRetryRate", "count"))...)
			}
			errs = append(errs, checkDuration(m.Interval, path.Child("minRetryRate", "interval"))...)
		}
	}
	if s := p.Spec.SessionPersistence; s != nil {
		path := spec.Child("sessionPersistence")
		errs = append(errs, checkDuration(s.AbsoluteTimeout, path.Child("absoluteTimeout"))...)
		if s.Type != nil {
			errs = append(errs, notSupported(path.Child("type"), string(*s.Type), string(gatewayv1.CookieBasedSessionPersistence), string(gatewayv1.HeaderBasedSessionPersistence))...)
		}
	}
	return errs
}

// checkOwnTargets takes targets of Tulle's policies: services, and kinds of routes.
func checkOwnTargets(refs []policyv1alpha1.TargetRef, path *field.Path, routes ...string) field.ErrorList {
	var errs field.ErrorList
	if len(refs) == 0 {
		errs = append(errs, field.Required(path, "a policy needs a target"))
	}
	if n := len(refs); n > maxPolicyTargets {
		errs = append(errs, field.TooMany(path, n, maxPolicyTargets))
	}
	for i, t := range refs {
		path := path.Index(i)
		if !slices.Contains(routes, t.Kind) {
			for _, err := range checkServiceTarget(t.Group, t.Kind, t.Name, path) {
				if err.Type == field.ErrorTypeNotSupported {
					err = field.NotSupported(path.Child("kind"), t.Kind, append([]string{"Service", "ServiceEntry"}, routes...))
				}
				errs = append(errs, err)
			}
			continue
		}
		errs = append(errs, checkNotEmpty(t.Name, path.Child("name"))...)
		if t.Group != gatewayv1.GroupName {
			errs = append(errs, field.Invalid(path.Child("group"), t.Group, "a route is in group "+gatewayv1.GroupName))
		}
	}
	return errs
}

func checkHeaderMatches(list []policyv1alpha1.HeaderMatch, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(list); n > maxPolicyHeaders {
		errs = append(errs, field.TooMany(path, n, maxPolicyHeaders))
	}
	for i, h := range list {
		path := path.Index(i)
		errs = append(errs, checkHeaderName(string(h.Name), path.Child("name"))...)
		errs = append(errs, notSupported(path.Child("type"), h.Type, "", policyv1alpha1.MatchExact, policyv1alpha1.MatchPrefix, policyv1alpha1.MatchRegularExpression, policyv1alpha1.MatchPresent)...)
		switch h.Type {
		case policyv1alpha1.MatchPrefix:
			errs = append(errs, checkNotEmpty(h.Value, path.Child("value"))...)
		case policyv1alpha1.MatchRegularExpression:
			errs = append(errs, checkRegex(h.Value, path.Child("value"))...)
		case policyv1alpha1.MatchPresent:
			if h.Value != "" {
				errs = append(errs, field.Forbidden(path.Child("value"), "a match of the type Present has no value"))
			}
		}
	}
	return errs
}

func checkShare(s policyv1alpha1.Share, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Percent != nil {
		errs = append(errs, checkPercent(float64(*s.Percent), path.Child("percent"))...)
		if s.Fraction != nil {
			errs = append(errs, field.Forbidden(path.Child("fraction"), "percent and fraction exclude each other"))
		}
	}
	if f := s.Fraction; f != nil {
		of := int32(100)
		if f.Denominator != nil {
			of = *f.Denominator
		}
		switch {
		case of < 1:
			errs = append(errs, field.Invalid(path.Child("fraction", "denominator"), of, "must be at least 1"))
		case f.Numerator < 0 || f.Numerator > of:
			errs = append(errs, field.Invalid(path.Child("fraction", "numerator"), f.Numerator, "must be between 0 and the denominator"))
		}
	}
	return errs
}

// FaultPolicyFaults returns what of a FaultPolicy cannot be done.
func FaultPolicyFaults(p *policyv1alpha1.FaultPolicy) field.ErrorList {
	spec := field.NewPath("spec")
	errs := checkOwnTargets(p.Spec.TargetRefs, spec.Child("targetRefs"), "HTTPRoute", "GRPCRoute")
	for i, t := range p.Spec.TargetRefs {
		if t.SectionName != nil && (t.Kind == "Service" || t.Kind == "ServiceEntry") {
			errs = append(errs, field.Forbidden(spec.Child("targetRefs").Index(i).Child("sectionName"), "faults of a service are those of all of its ports"))
		}
	}
	errs = append(errs, checkHeaderMatches(p.Spec.Headers, spec.Child("headers"))...)
	if p.Spec.Delay == nil && p.Spec.Abort == nil {
		errs = append(errs, field.Required(spec.Child("delay"), "a policy has a delay, an abort, or both"))
	}
	if d := p.Spec.Delay; d != nil {
		errs = append(errs, checkShare(d.Share, spec.Child("delay"))...)
		errs = append(errs, checkPositive(&d.Duration, spec.Child("delay", "duration"))...)
	}
	if a := p.Spec.Abort; a != nil {
		path := spec.Child("abort")
		errs = append(errs, checkShare(a.Share, path)...)
		if a.HTTPStatus != nil {
			errs = append(errs, checkStatus(int64(*a.HTTPStatus), path.Child("httpStatus"))...)
		}
		if a.GRPCStatus != nil && (*a.GRPCStatus < 0 || *a.GRPCStatus > 16) {
			errs = append(errs, field.Invalid(path.Child("grpcStatus"), *a.GRPCStatus, "must be between 0 and 16"))
		}
		errs = append(errs, checkOneOf(path, "a request ends in exactly one way", part{"httpStatus", a.HTTPStatus != nil},
			part{"grpcStatus", a.GRPCStatus != nil}, part{"reset", a.Reset})...)
	}
	return errs
}

// part is a field of several of which one must be there.
type part struct {
	name  string
	there bool
}

// checkOneOf names the fields that are there and exclude each other, or all of which one
// is missing.
func checkOneOf(path *field.Path, why string, parts ...part) field.ErrorList {
	var all, there []string
	for _, p := range parts {
		if all = append(all, p.name); p.there {
			there = append(there, p.name)
		}
	}
	switch len(there) {
	case 0:
		return field.ErrorList{field.Required(path, why+": one of "+strings.Join(all, ", "))}
	case 1:
		return nil
	}
	return field.ErrorList{field.Forbidden(path, why+", and not by "+strings.Join(there, " and ")+" at once")}
}

func checkPositive(d *gatewayv1.Duration, path *field.Path) field.ErrorList {
	errs := checkDuration(d, path)
	if len(errs) == 0 && d != nil {
		if v, err := time.ParseDuration(string(*d)); err == nil && v == 0 {
			errs = append(errs, field.Invalid(path, string(*d), "must be longer than nothing"))
		}
	}
	return errs
}

// BackendPolicyFaults returns what of a BackendPolicy cannot be done.
func BackendPolicyFaults(p *policyv1alpha1.BackendPolicy) field.ErrorList {
	spec, s := field.NewPath("spec"), &p.Spec
	errs := checkOwnTargets(s.TargetRefs, spec.Child("targetRefs"))
	count := func(n *int32, least int32, path *field.Path) {
		if n != nil && *n < least {
			errs = append(errs, field.Invalid(path, *n, "must be at least "+strconv.Itoa(int(least))))
		}
	}
	percent := func(n *int32, path *field.Path) {
		if n != nil {
			errs = append(errs, checkPercent(float64(*n), path)...)
		}
	}
	span := func(d *gatewayv1.Duration, path *field.Path) { errs = append(errs, checkPositive(d, path)...) }
	if lb := s.LoadBalancer; lb != nil {
		path := spec.Child("loadBalancer")
		errs = append(errs, notSupported(path.Child("type"), lb.Type, policyv1alpha1.LeastRequest, policyv1alpha1.RoundRobin, policyv1alpha1.Random,
			policyv1alpha1.PeakEWMA, policyv1alpha1.RingHash, policyv1alpha1.Maglev)...)
		hashes := lb.Type == policyv1alpha1.RingHash || lb.Type == policyv1alpha1.Maglev
		if hashes && len(lb.Hash) == 0 {
			errs = append(errs, field.Required(path.Child("hash"), "says what is hashed"))
		}
		if !hashes && len(lb.Hash) > 0 {
			errs = append(errs, field.Forbidden(path.Child("hash"), "only RingHash and Maglev hash"))
		}
		for i, h := range lb.Hash {
			path := path.Child("hash").Index(i)
			switch h.Type {
			case policyv1alpha1.HashHeader, policyv1alpha1.HashCookie:
				errs = append(errs, checkHeaderName(h.Name, path.Child("name"))...)
			case policyv1alpha1.HashQueryParam:
				errs = append(errs, checkNotEmpty(h.Name, path.Child("name"))...)
			case policyv1alpha1.HashSourceIP:
			default:
				errs = append(errs, field.NotSupported(path.Child("type"), h.Type, []string{"Header", "QueryParam", "Cookie", "SourceIP"}))
			}
			errs = append(errs, checkDuration(h.TTL, path.Child("ttl"))...)
		}
		if n := lb.RingSize; n != nil && (*n < 1 || *n > maxRingSize) {
			errs = append(errs, field.Invalid(path.Child("ringSize"), *n, "must be between 1 and 8388608"))
		}
		if n := lb.TableSize; n != nil && (*n < 2 || *n > maxMaglevTable) {
			errs = append(errs, field.Invalid(path.Child("tableSize"), *n, "must be a prime of at most 5000011"))
		}
		if lb.SlowStart != nil {
			span(&lb.SlowStart.Window, path.Child("slowStart", "window"))
			percent(lb.SlowStart.MinPercent, path.Child("slowStart", "minPercent"))
		}
	}
	if h := s.HealthCheck; h != nil {
		path := spec.Child("healthCheck")
		if h.HTTP != nil {
			if !strings.HasPrefix(h.HTTP.Path, "/") {
				errs = append(errs, field.Invalid(path.Child("http", "path"), h.HTTP.Path, "must start with /"))
			}
			for i, c := range h.HTTP.Codes {
				errs = append(errs, checkStatus(int64(c), path.Child("http", "codes").Index(i))...)
			}
		}
		errs = append(errs, checkOneOf(path, "endpoints are asked in exactly one way", part{"http", h.HTTP != nil}, part{"grpc", h.GRPC != nil}, part{"tcp", h.TCP != nil})...)
		span(h.Interval, path.Child("interval"))
		span(h.Timeout, path.Child("timeout"))
		count(h.UnhealthyThreshold, 1, path.Child("unhealthyThreshold"))
		count(h.HealthyThreshold, 1, path.Child("healthyThreshold"))
	}
	if o := s.OutlierDetection; o != nil {
		path := spec.Child("outlierDetection")
		count(o.Consecutive5xxErrors, 0, path.Child("consecutive5xxErrors"))
		count(o.ConsecutiveGatewayErrors, 0, path.Child("consecutiveGatewayErrors"))
		count(o.ConsecutiveLocalErrors, 0, path.Child("consecutiveLocalErrors"))
		span(o.Interval, path.Child("interval"))
		span(o.BaseEjectionTime, path.Child("baseEjectionTime"))
		span(o.MaxEjectionTime, path.Child("maxEjectionTime"))
		percent(o.MaxEjectionPercent, path.Child("maxEjectionPercent"))
		if r := o.SuccessRate; r != nil {
			count(r.Factor, 1, path.Child("successRate", "factor"))
			count(r.MinimumEndpoints, 1, path.Child("successRate", "minimumEndpoints"))
			count(r.MinimumRequests, 1, path.Child("successRate", "minimumRequests"))
		}
		if r := o.FailurePercentage; r != nil {
			if r.Percent < 1 || r.Percent > 100 {
				errs = append(errs, field.Invalid(path.Child("failurePercentage", "percent"), r.Percent, "must be between 1 and 100"))
			}
			count(r.MinimumEndpoints, 1, path.Child("failurePercentage", "minimumEndpoints"))
			count(r.MinimumRequests, 1, path.Child("failurePercentage", "minimumRequests"))
		}
	}
	percent(s.PanicPercent, spec.Child("panicPercent"))
	if c := s.CircuitBreaker; c != nil {
		path := spec.Child("circuitBreaker")
		count(c.MaxConnections, 1, path.Child("maxConnections"))
		count(c.MaxPendingRequests, 1, path.Child("maxPendingRequests"))
		count(c.MaxRequests, 1, path.Child("maxRequests"))
		count(c.MaxRetries, 1, path.Child("maxRetries"))
	}
	if c := s.ConnectionPool; c != nil {
		path := spec.Child("connectionPool")
		count(c.MaxRequestsPerConnection, 1, path.Child("maxRequestsPerConnection"))
		count(c.MaxStreams, 1, path.Child("maxStreams"))
		span(c.IdleTimeout, path.Child("idleTimeout"))
		span(c.ConnectTimeout, path.Child("connectTimeout"))
		span(c.MaxConnectionDuration, path.Child("maxConnectionDuration"))
	}
	if b := s.RetryBudget; b != nil {
		path := spec.Child("retryBudget")
		percent(b.Percent, path.Child("percent"))
		span(b.Interval, path.Child("interval"))
		count(b.MinRetries, 0, path.Child("minRetries"))
		span(b.MinInterval, path.Child("minInterval"))
	}
	if a := s.AdaptiveConcurrency; a != nil {
		path := spec.Child("adaptiveConcurrency")
		if a.Percentile != nil && (*a.Percentile < 1 || *a.Percentile > 100) {
			errs = append(errs, field.Invalid(path.Child("percentile"), *a.Percentile, "must be between 1 and 100"))
		}
		span(a.Window, path.Child("window"))
		span(a.MinRTTInterval, path.Child("minRTTInterval"))
		count(a.MinRTTRequests, 1, path.Child("minRTTRequests"))
		count(a.MinConcurrency, 1, path.Child("minConcurrency"))
		count(a.MaxConcurrency, 1, path.Child("maxConcurrency"))
		if a.MinConcurrency != nil && a.MaxConcurrency != nil && *a.MinConcurrency > *a.MaxConcurrency {
			errs = append(errs, field.Invalid(path.Child("maxConcurrency"), *a.MaxConcurrency, "must be at least minConcurrency"))
		}
		percent(a.BufferPercent, path.Child("bufferPercent"))
		if n := len(a.Priorities); n > maxPriorities {
			errs = append(errs, field.TooMany(path.Child("priorities"), n, maxPriorities))
		}
		for i, r := range a.Priorities {
			path := path.Child("priorities").Index(i)
			errs = append(errs, notSupported(path.Child("priority"), r.Priority, policyv1alpha1.PriorityLow, policyv1alpha1.PriorityNormal, policyv1alpha1.PriorityHigh, policyv1alpha1.PriorityCritical)...)
			errs = append(errs, checkHeaderMatches(r.Headers, path.Child("headers"))...)
			for j, ns := range r.Namespaces {
				for _, msg := range validation.IsDNS1123Label(ns) {
					errs = append(errs, field.Invalid(path.Child("namespaces").Index(j), ns, msg))
				}
			}
			for j, p := range r.Principals {
				errs = append(errs, checkNotEmpty(p, path.Child("principals").Index(j))...)
			}
		}
	}
	return errs
}
