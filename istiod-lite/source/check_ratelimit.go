package source

import (
	"maps"
	"net"
	"net/netip"
	slashpath "path"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
)

// rateLimitTargets are the kinds that a RateLimitPolicy can be attached to, by
// their group.
var rateLimitTargets = map[string]string{
	"Namespace": "", "Service": "", "ServiceEntry": "networking.istio.io",
	"HTTPRoute": gatewayv1.GroupName, "GRPCRoute": gatewayv1.GroupName, "Gateway": gatewayv1.GroupName,
}

// RateLimitFaults returns what of a policy cannot be enforced as it is written.
func RateLimitFaults(p *policyv1alpha1.RateLimitPolicy) field.ErrorList {
	path, spec := field.NewPath("spec"), &p.Spec
	errs := checkPolicyTargets(p.Namespace, spec.TargetRefs, rateLimitTargets, path.Child("targetRefs"))
	errs = append(errs, checkFailureMode(spec.FailureMode, path.Child("failureMode"))...)
	if spec.Timeout != nil {
		if d, err := time.ParseDuration(string(*spec.Timeout)); err != nil || d < time.Millisecond || d > maxRateLimitTimeout {
			errs = append(errs, field.Invalid(path.Child("timeout"), string(*spec.Timeout), "must be a duration from 1ms to 10s, as 50ms"))
		}
	}
	errs = append(errs, checkRateLimitBackend(p.Namespace, spec.Backend, path.Child("backend"))...)
	rules := path.Child("rules")
	switch n := len(spec.Rules); {
	case n == 0:
		errs = append(errs, field.Required(rules, "a policy without rules limits nothing"))
	case n > maxRateLimitRules:
		errs = append(errs, field.TooMany(rules, n, maxRateLimitRules))
	}
	names := map[string]bool{}
	for i := range spec.Rules {
		rule, path := &spec.Rules[i], rules.Index(i)
		name := strconv.Itoa(i)
		if rule.Name != nil {
			name = *rule.Name
			if msgs := validation.IsDNS1123Label(name); len(msgs) > 0 {
				errs = append(errs, field.Invalid(path.Child("name"), name, strings.Join(msgs, "; ")))
			}
		}
		if names[name] {
			errs = append(errs, field.Duplicate(path.Child("name"), name))
		}
		names[name] = true
		errs = append(errs, checkRateLimitRule(rule, path)...)
	}
	return errs
}

// checkPolicyTargets refuses targets of which nothing would come.
func checkPolicyTargets(namespace string, refs []policyv1alpha1.TargetRef, groups map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch n := len(refs); {
	case n == 0:
		errs = append(errs, field.Required(path, "a policy without targets applies to nothing"))
	case n > maxPolicyTargets:
		errs = append(errs, field.TooMany(path, n, maxPolicyTargets))
	}
	for i, ref := range refs {
		path := path.Index(i)
		group, ok := groups[ref.Kind]
		switch {
		case !ok:
			errs = append(errs, field.NotSupported(path.Child("kind"), ref.Kind, slices.Sorted(maps.Keys(groups))))
		case ref.Group != group:
			errs = append(errs, field.Invalid(path.Child("group"), ref.Group, "the group of a "+ref.Kind+" is "+strconv.Quote(group)))
		}
		if ref.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), ""))
		}
		if ref.Kind == "Namespace" && ref.Name != "" && ref.Name != namespace {
			errs = append(errs, field.Invalid(path.Child("name"), ref.Name, "must be the policy's own namespace"))
		}
		if ref.SectionName != nil && ref.Kind != "HTTPRoute" && ref.Kind != "GRPCRoute" {
			errs = append(errs, field.Forbidden(path.Child("sectionName"), "only routes have rules with names"))
		}
	}
	return errs
}

func checkFailureMode(m *policyv1alpha1.FailureMode, path *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	return notSupported(path, string(*m), string(policyv1alpha1.FailOpen), string(policyv1alpha1.FailClosed))
}

// redisPasswords is where waypoints look for password files, those of a policy's own
// namespace in a folder of its name: they read no other.
const redisPasswords = "/etc/redis/"

func checkRateLimitBackend(namespace string, b *policyv1alpha1.RateLimitBackend, path *field.Path) field.ErrorList {
	if b == nil {
		return nil
	}
	errs := notSupported(path.Child("type"), string(b.Type), string(policyv1alpha1.BackendLocal), string(policyv1alpha1.BackendLeases),
		string(policyv1alpha1.BackendRedis), string(policyv1alpha1.BackendService))
	for _, part := range []struct {
		name  string
		kind  policyv1alpha1.RateLimitBackendType
		there bool
	}{
		{"redis", policyv1alpha1.BackendRedis, b.Redis != nil}, {"rateLimitService", policyv1alpha1.BackendService, b.RateLimitService != nil},
	} {
		switch {
		case part.there && b.Type != part.kind:
			errs = append(errs, field.Forbidden(path.Child(part.name), "is for the type "+string(part.kind)))
		case !part.there && b.Type == part.kind:
			errs = append(errs, field.Required(path.Child(part.name), "is what the type names"))
		}
	}
	if r := b.Redis; r != nil {
		path := path.Child("redis")
		host, port, err := net.SplitHostPort(r.Address)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 {
			errs = append(errs, field.Invalid(path.Child("address"), r.Address, "must be host:port, as redis.shop.svc.cluster.local:6379"))
		}
		if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ofMachine(ip.Unmap()) {
			errs = append(errs, field.Invalid(path.Child("address"), r.Address, "is of the waypoint's own machine or its link, which waypoints do not dial for policies"))
		}
		if r.Database < 0 {
			errs = append(errs, field.Invalid(path.Child("database"), r.Database, "must not be negative"))
		}
		folder := redisPasswords + namespace + "/"
		if r.PasswordFile != nil && (!strings.HasPrefix(*r.PasswordFile, folder) || slashpath.Clean(*r.PasswordFile) != *r.PasswordFile) {
			errs = append(errs, field.Invalid(path.Child("passwordFile"), *r.PasswordFile, "must be a path below "+folder+" in the waypoint's file system"))
		}
		if r.Username != nil && *r.Username != "" && r.PasswordFile == nil {
			errs = append(errs, field.Required(path.Child("passwordFile"), "a user has a password"))
		}
	}
	if s := b.RateLimitService; s != nil {
		path := path.Child("rateLimitService")
		errs = append(errs, checkBackendObject(&s.BackendRef, path.Child("backendRef"))...)
		errs = append(errs, checkNotEmpty(s.Domain, path.Child("domain"))...)
	}
	return errs
}

func ofMachine(ip netip.Addr) bool {
	return ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast()
}

func checkRateLimitRule(rule *policyv1alpha1.RateLimitRule, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(rule.Match); n > maxRateLimitParts {
		errs = append(errs, field.TooMany(path.Child("match"), n, maxRateLimitParts))
	}
	for i := range rule.Match {
		m, path := &rule.Match[i], path.Child("match").Index(i)
		errs = append(errs, checkHTTPMatch(&gatewayv1.HTTPRouteMatch{Path: m.Path, Headers: m.Headers, QueryParams: m.QueryParams}, path)...)
		for j, method := range m.Methods {
			errs = append(errs, checkNotEmpty(string(method), path.Child("methods").Index(j))...)
		}
		for j, p := range m.Principals {
			errs = append(errs, checkWildcard(p, path.Child("principals").Index(j))...)
		}
		for j, n := range m.Namespaces {
			errs = append(errs, checkWildcard(n, path.Child("namespaces").Index(j))...)
		}
	}
	if n := len(rule.Key); n > maxRateLimitParts {
		errs = append(errs, field.TooMany(path.Child("key"), n, maxRateLimitParts))
	}
	for i, k := range rule.Key {
		errs = append(errs, checkRateLimitKey(k, path.Child("key").Index(i))...)
	}
	limits := path.Child("limits")
	switch n := len(rule.Limits); {
	case n == 0:
		errs = append(errs, field.Required(limits, "a rule without limits limits nothing"))
	case n > maxRateLimits:
		errs = append(errs, field.TooMany(limits, n, maxRateLimits))
	}
	for i, l := range rule.Limits {
		path := limits.Index(i)
		if l.Requests < 1 || l.Requests > maxRateLimitRequests {
			errs = append(errs, field.Invalid(path.Child("requests"), l.Requests, "must be between 1 and 1000000000"))
		}
		if d, err := time.ParseDuration(string(l.Per)); err != nil || d < time.Millisecond || d > 24*time.Hour {
			errs = append(errs, field.Invalid(path.Child("per"), string(l.Per), "must be a duration from 1ms to 24h, as 1s, 1m or 1h30m"))
		}
		if l.Burst != nil && (*l.Burst < 1 || *l.Burst > maxRateLimitRequests) {
			errs = append(errs, field.Invalid(path.Child("burst"), *l.Burst, "must be between 1 and 1000000000"))
		}
	}
	if c := rule.Cost; c != nil {
		path := path.Child("cost")
		if c.RequestHeader != nil && c.ResponseHeader != nil {
			errs = append(errs, field.Forbidden(path.Child("responseHeader"), "a cost comes from the request or from the response, not from both"))
		}
		if c.RequestHeader != nil {
			errs = append(errs, checkHeaderName(*c.RequestHeader, path.Child("requestHeader"))...)
		}
		if c.ResponseHeader != nil {
			errs = append(errs, checkHeaderName(*c.ResponseHeader, path.Child("responseHeader"))...)
		}
		if c.Default != nil && (*c.Default < 1 || *c.Default > maxRateLimitRequests) {
			errs = append(errs, field.Invalid(path.Child("default"), *c.Default, "must be between 1 and 1000000000"))
		}
	}
	return errs
}

func checkRateLimitKey(k policyv1alpha1.RateLimitKey, path *field.Path) field.ErrorList {
	errs := notSupported(path.Child("type"), string(k.Type), string(policyv1alpha1.KeyIdentity), string(policyv1alpha1.KeyServiceAccount),
		string(policyv1alpha1.KeyNamespace), string(policyv1alpha1.KeyHeader), string(policyv1alpha1.KeyPath), string(policyv1alpha1.KeyMethod),
		string(policyv1alpha1.KeyHost), string(policyv1alpha1.KeyQueryParam), string(policyv1alpha1.KeySourceIP), string(policyv1alpha1.KeyJWTClaim))
	name := ""
	if k.Name != nil {
		name = *k.Name
	}
	switch k.Type {
	case policyv1alpha1.KeyHeader:
		errs = append(errs, checkHeaderName(name, path.Child("name"))...)
	case policyv1alpha1.KeyQueryParam, policyv1alpha1.KeyJWTClaim:
		errs = append(errs, checkNotEmpty(name, path.Child("name"))...)
	default:
		if name != "" {
			errs = append(errs, field.Forbidden(path.Child("name"), "only Header, QueryParam and JWTClaim have a name"))
		}
	}
	return errs
}

// checkWildcard takes a value that may have "*" at one end.
func checkWildcard(s string, path *field.Path) field.ErrorList {
	if s == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	if strings.Count(s, "*") > 1 || strings.Contains(strings.Trim(s, "*"), "*") {
		return field.ErrorList{field.Invalid(path, s, `must be exact, or have one "*" at its beginning or end`)}
	}
	return nil
}
