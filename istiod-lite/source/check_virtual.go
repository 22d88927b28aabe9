package source

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func checkVirtualService(vs *networkingv1.VirtualService) field.ErrorList {
	path, spec := field.NewPath("spec"), &vs.Spec
	var errs field.ErrorList
	if len(spec.Hosts) == 0 {
		errs = append(errs, field.Required(path.Child("hosts"), "a VirtualService names the services that it is for"))
	}
	if n := len(spec.Hosts); n > maxHosts {
		errs = append(errs, field.TooMany(path.Child("hosts"), n, maxHosts))
	}
	for i, h := range spec.Hosts {
		errs = append(errs, checkHost(h, path.Child("hosts").Index(i))...)
	}
	if n := len(spec.Http) + len(spec.Tls) + len(spec.Tcp); n > maxRouteRules {
		errs = append(errs, field.TooMany(path.Child("http"), n, maxRouteRules))
	}
	for i, r := range spec.Http {
		errs = append(errs, checkVirtualHTTP(r, path.Child("http").Index(i))...)
	}
	for i, r := range spec.Tls {
		path := path.Child("tls").Index(i)
		if len(r.GetMatch()) == 0 {
			errs = append(errs, field.Required(path.Child("match"), "a TLS route is chosen by sniHosts"))
		}
		for j, m := range r.GetMatch() {
			path := path.Child("match").Index(j)
			if len(m.GetSniHosts()) == 0 {
				errs = append(errs, field.Required(path.Child("sniHosts"), ""))
			}
			for k, h := range m.GetSniHosts() {
				errs = append(errs, checkHost(h, path.Child("sniHosts").Index(k))...)
			}
		}
		errs = append(errs, checkStreamDestinations(r.GetRoute(), path.Child("route"))...)
	}
	for i, r := range spec.Tcp {
		errs = append(errs, checkStreamDestinations(r.GetRoute(), path.Child("tcp").Index(i).Child("route"))...)
	}
	for i, e := range spec.ExportTo {
		errs = append(errs, checkExport(e, path.Child("exportTo").Index(i))...)
	}
	return errs
}

func checkStreamDestinations(list []*networking.RouteDestination, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(list) == 0 {
		errs = append(errs, field.Required(path, "a route needs a destination"))
	}
	for i, d := range list {
		errs = append(errs, checkDestination(d.GetDestination(), path.Index(i).Child("destination"))...)
		errs = append(errs, checkCount(int64(d.GetWeight()), path.Index(i).Child("weight"))...)
	}
	return errs
}

func checkDestination(d *networking.Destination, path *field.Path) field.ErrorList {
	if d == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := checkHost(d.GetHost(), path.Child("host"))
	if strings.HasPrefix(d.GetHost(), "*") {
		errs = append(errs, field.Invalid(path.Child("host"), d.GetHost(), "a destination is one service"))
	}
	if d.GetPort() != nil {
		errs = append(errs, checkPort(int64(d.GetPort().GetNumber()), path.Child("port", "number"))...)
	}
	return errs
}

func checkVirtualHTTP(r *networking.HTTPRoute, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(r.GetMatch()); n > maxRouteMatches {
		errs = append(errs, field.TooMany(path.Child("match"), n, maxRouteMatches))
	}
	for i, m := range r.GetMatch() {
		errs = append(errs, checkVirtualMatch(m, path.Child("match").Index(i))...)
	}
	errs = append(errs, checkOneOf(path, "a route goes exactly one way", part{"route", len(r.GetRoute()) > 0}, part{"redirect", r.GetRedirect() != nil},
		part{"directResponse", r.GetDirectResponse() != nil}, part{"delegate", r.GetDelegate() != nil})...)
	for i, d := range r.GetRoute() {
		path := path.Child("route").Index(i)
		errs = append(errs, checkDestination(d.GetDestination(), path.Child("destination"))...)
		errs = append(errs, checkCount(int64(d.GetWeight()), path.Child("weight"))...)
		errs = append(errs, checkHeaderOperations(d.GetHeaders(), path.Child("headers"))...)
	}
	errs = append(errs, checkHeaderOperations(r.GetHeaders(), path.Child("headers"))...)
	if x := r.GetRedirect(); x != nil {
		if code := x.GetRedirectCode(); code != 0 && !slices.Contains([]uint32{301, 302, 303, 307, 308}, code) {
			errs = append(errs, field.Invalid(path.Child("redirect", "redirectCode"), code, "must be one of 301, 302, 303, 307, 308"))
		}
		if s := x.GetScheme(); s != "" {
			errs = append(errs, notSupported(path.Child("redirect", "scheme"), s, "http", "https")...)
		}
	}
	if x := r.GetDirectResponse(); x != nil {
		errs = append(errs, checkStatus(int64(x.GetStatus()), path.Child("directResponse", "status"))...)
		if n := len(x.GetBody().GetString_()) + len(x.GetBody().GetBytes()); n > maxDirectBody {
			errs = append(errs, field.TooLong(path.Child("directResponse", "body"), "", maxDirectBody))
		}
	}
	if x := r.GetRewrite().GetUriRegexRewrite(); x != nil {
		errs = append(errs, checkRegex(x.GetMatch(), path.Child("rewrite", "uriRegexRewrite", "match"))...)
	}
	errs = append(errs, checkSpan(r.GetTimeout(), path.Child("timeout"))...)
	if x := r.GetRetries(); x != nil {
		path := path.Child("retries")
		errs = append(errs, checkCount(int64(x.GetAttempts()), path.Child("attempts"))...)
		errs = append(errs, checkSpan(x.GetPerTryTimeout(), path.Child("perTryTimeout"))...)
		errs = append(errs, checkSpan(x.GetBackoff(), path.Child("backoff"))...)
	}
	if f := r.GetFault(); f != nil {
		if d := f.GetDelay(); d != nil {
			path := path.Child("fault", "delay")
			errs = append(errs, checkSpan(d.GetFixedDelay(), path.Child("fixedDelay"))...)
			if d.GetFixedDelay() == nil {
				errs = append(errs, field.Required(path.Child("fixedDelay"), ""))
			}
			errs = append(errs, checkPercent(d.GetPercentage().GetValue(), path.Child("percentage", "value"))...)
		}
		if a := f.GetAbort(); a != nil {
			path := path.Child("fault", "abort")
			switch kind := a.GetErrorType().(type) {
			case *networking.HTTPFaultInjection_Abort_HttpStatus:
				errs = append(errs, checkStatus(int64(kind.HttpStatus), path.Child("httpStatus"))...)
			case *networking.HTTPFaultInjection_Abort_GrpcStatus:
				if _, ok := GRPCStatus(kind.GrpcStatus); !ok {
					errs = append(errs, field.Invalid(path.Child("grpcStatus"), kind.GrpcStatus, "must be a status of gRPC, as UNAVAILABLE or 14"))
				}
			default:
				errs = append(errs, field.Required(path.Child("httpStatus"), "httpStatus or grpcStatus says how the request ends"))
			}
			errs = append(errs, checkPercent(a.GetPercentage().GetValue(), path.Child("percentage", "value"))...)
		}
	}
	if r.GetMirror() != nil {
		errs = append(errs, checkDestination(r.GetMirror(), path.Child("mirror"))...)
	}
	if r.GetMirrorPercentage() != nil {
		errs = append(errs, checkPercent(r.GetMirrorPercentage().GetValue(), path.Child("mirrorPercentage", "value"))...)
	}
	for i, m := range r.GetMirrors() {
		path := path.Child("mirrors").Index(i)
		errs = append(errs, checkDestination(m.GetDestination(), path.Child("destination"))...)
		errs = append(errs, checkPercent(m.GetPercentage().GetValue(), path.Child("percentage", "value"))...)
	}
	if c := r.GetCorsPolicy(); c != nil {
		for i, o := range c.GetAllowOrigins() {
			errs = append(errs, checkStringMatch(o, path.Child("corsPolicy", "allowOrigins").Index(i))...)
		}
		errs = append(errs, checkSpan(c.GetMaxAge(), path.Child("corsPolicy", "maxAge"))...)
	}
	return errs
}

func checkVirtualMatch(m *networking.HTTPMatchRequest, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, part := range []struct {
		name  string
		match *networking.StringMatch
	}{{"uri", m.GetUri()}, {"scheme", m.GetScheme()}, {"method", m.GetMethod()}, {"authority", m.GetAuthority()}} {
		if part.match != nil {
			errs = append(errs, checkStringMatch(part.match, path.Child(part.name))...)
		}
	}
	for _, part := range []struct {
		name    string
		matches map[string]*networking.StringMatch
	}{{"headers", m.GetHeaders()}, {"withoutHeaders", m.GetWithoutHeaders()}, {"queryParams", m.GetQueryParams()}} {
		for _, name := range slices.Sorted(maps.Keys(part.matches)) {
			at := path.Child(part.name).Key(name)
			if part.name != "queryParams" {
				errs = append(errs, checkHeaderName(strings.TrimPrefix(name, ":"), at)...)
			}
			if regex := part.matches[name].GetRegex(); regex != "" {
				errs = append(errs, checkRegex(regex, at.Child("regex"))...)
			}
		}
	}
	if m.GetPort() != 0 {
		errs = append(errs, checkPort(int64(m.GetPort()), path.Child("port"))...)
	}
	return errs
}

func checkStringMatch(m *networking.StringMatch, path *field.Path) field.ErrorList {
	switch kind := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return nil
	case *networking.StringMatch_Prefix:
		return checkNotEmpty(kind.Prefix, path.Child("prefix"))
	case *networking.StringMatch_Regex:
		return append(checkNotEmpty(kind.Regex, path.Child("regex")), checkRegex(kind.Regex, path.Child("regex"))...)
	}
	return field.ErrorList{field.Required(path, "one of exact, prefix and regex")}
}

func checkHeaderOperations(h *networking.Headers, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, side := range []struct {
		name string
		ops  *networking.Headers_HeaderOperations
	}{{"request", h.GetRequest()}, {"response", h.GetResponse()}} {
		for _, part := range []struct {
			name   string
			fields map[string]string
		}{{"set", side.ops.GetSet()}, {"add", side.ops.GetAdd()}} {
			for _, name := range slices.Sorted(maps.Keys(part.fields)) {
				errs = append(errs, checkHeaderName(strings.TrimPrefix(name, ":"), path.Child(side.name, part.name).Key(name))...)
			}
		}
		for i, name := range side.ops.GetRemove() {
			errs = append(errs, checkHeaderName(name, path.Child(side.name, "remove").Index(i))...)
		}
	}
	return errs
}

func checkStatus(code int64, path *field.Path) field.ErrorList {
	if code < 200 || code > 599 {
		return field.ErrorList{field.Invalid(path, code, "must be between 200 and 599")}
	}
	return nil
}

var grpcStatuses = []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

// GRPCStatus reads a status of gRPC by its name or number.
func GRPCStatus(text string) (uint32, bool) {
	for i, name := range grpcStatuses {
		if strings.EqualFold(text, name) || text == strconv.Itoa(i) {
			return uint32(i), true
		}
	}
	return 0, false
}
