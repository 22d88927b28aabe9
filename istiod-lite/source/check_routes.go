package source

import (
	"regexp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// checkGateway takes all that its API server would take, as far as a waypoint
// is concerned.
func checkGateway(gw *gatewayv1.Gateway) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if gw.Spec.GatewayClassName == "" {
		errs = append(errs, field.Required(spec.Child("gatewayClassName"), ""))
	}
	listeners := spec.Child("listeners")
	if len(gw.Spec.Listeners) == 0 {
		errs = append(errs, field.Required(listeners, "a Gateway needs a listener; a waypoint has {name: mesh, port: 15008, protocol: HBONE}"))
	}
	names := map[gatewayv1.SectionName]bool{}
	for i, l := range gw.Spec.Listeners {
		path := listeners.Index(i)
		switch {
		case l.Name == "":
			errs = append(errs, field.Required(path.Child("name"), ""))
		case names[l.Name]:
			errs = append(errs, field.Duplicate(path.Child("name"), l.Name))
		}
		names[l.Name] = true
		errs = append(errs, checkPort(int64(l.Port), path.Child("port"))...)
		if l.AllowedRoutes == nil || l.AllowedRoutes.Namespaces == nil || l.AllowedRoutes.Namespaces.From == nil {
			continue
		}
		from := path.Child("allowedRoutes", "namespaces", "from")
		errs = append(errs, notSupported(from, string(*l.AllowedRoutes.Namespaces.From), string(gatewayv1.NamespacesFromSame),
			string(gatewayv1.NamespacesFromAll), string(gatewayv1.NamespacesFromSelector), string(gatewayv1.NamespacesFromNone))...)
	}
	return errs
}

// checkParents refuses references of which nothing would come without a word.
func checkParents(refs []gatewayv1.ParentReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(refs) > maxParents {
		errs = append(errs, field.TooMany(path, len(refs), maxParents))
	}
	for i, ref := range refs {
		path := path.Index(i)
		if ref.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), ""))
		}
		if ref.Port != nil {
			errs = append(errs, checkPort(int64(*ref.Port), path.Child("port"))...)
		}
		// The defaults are a Gateway's; who writes "kind: Service" alone means one.
		if ref.Kind != nil && *ref.Kind == "Service" && ref.Group == nil {
			errs = append(errs, field.Required(path.Child("group"), `a Service is in group "", and without one it is gateway.networking.k8s.io`))
		}
	}
	return errs
}

func checkBackend(b *gatewayv1.BackendRef, path *field.Path) field.ErrorList {
	errs := checkBackendObject(&b.BackendObjectReference, path)
	if b.Weight != nil && (*b.Weight < 0 || *b.Weight > maxWeight) {
		errs = append(errs, field.Invalid(path.Child("weight"), *b.Weight, "must be between 0 and 1000000"))
	}
	return errs
}

func checkBackendObject(b *gatewayv1.BackendObjectReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if b.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	if b.Port == nil {
		errs = append(errs, field.Required(path.Child("port"), "a backend needs a port"))
	} else {
		errs = append(errs, checkPort(int64(*b.Port), path.Child("port"))...)
	}
	return errs
}

func checkHTTPRoute(r *gatewayv1.HTTPRoute) field.ErrorList {
	spec := field.NewPath("spec")
	errs := checkParents(r.Spec.ParentRefs, spec.Child("parentRefs"))
	rules := spec.Child("rules")
	if len(r.Spec.Rules) > maxRouteRules {
		errs = append(errs, field.TooMany(rules, len(r.Spec.Rules), maxRouteRules))
	}
	for i := range r.Spec.Rules {
		rule, path := &r.Spec.Rules[i], rules.Index(i)
		if len(rule.Matches) > maxRouteMatches {
			errs = append(errs, field.TooMany(path.Child("matches"), len(rule.Matches), maxRouteMatches))
		}
		for j := range rule.Matches {
			errs = append(errs, checkHTTPMatch(&rule.Matches[j], path.Child("matches").Index(j))...)
		}
		errs = append(errs, checkHTTPFilters(rule.Filters, path.Child("filters"))...)
		for j := range rule.BackendRefs {
			path := path.Child("backendRefs").Index(j)
			errs = append(errs, checkBackend(&rule.BackendRefs[j].BackendRef, path)...)
			errs = append(errs, checkHTTPFilters(rule.BackendRefs[j].Filters, path.Child("filters"))...)
		}
		if t := rule.Timeouts; t != nil {
			errs = append(errs, checkDuration(t.Request, path.Child("timeouts", "request"))...)
			errs = append(errs, checkDuration(t.BackendRequest, path.Child("timeouts", "backendRequest"))...)
		}
		if rule.Retry != nil {
			errs = append(errs, checkDuration(rule.Retry.Backoff, path.Child("retry", "backoff"))...)
		}
	}
	return errs
}

func checkHTTPMatch(m *gatewayv1.HTTPRouteMatch, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.Path != nil {
		kind, value := gatewayv1.PathMatchPathPrefix, "/"
		if m.Path.Type != nil {
			kind = *m.Path.Type
		}
		if m.Path.Value != nil {
			value = *m.Path.Value
		}
		errs = append(errs, notSupported(path.Child("path", "type"), string(kind), string(gatewayv1.PathMatchExact),
			string(gatewayv1.PathMatchPathPrefix), string(gatewayv1.PathMatchRegularExpression))...)
		at := path.Child("path", "value")
		if kind == gatewayv1.PathMatchRegularExpression {
			errs = append(errs, checkRegex(value, at)...)
		} else if !strings.HasPrefix(value, "/") {
			errs = append(errs, field.Invalid(at, value, "must start with /"))
		}
	}
	for i, h := range m.Headers {
		regex := h.Type != nil && *h.Type == gatewayv1.HeaderMatchRegularExpression
		errs = append(errs, checkFieldMatch(string(h.Name), h.Value, regex, true, path.Child("headers").Index(i))...)
	}
	for i, q := range m.QueryParams {
		regex := q.Type != nil && *q.Type == gatewayv1.QueryParamMatchRegularExpression
		errs = append(errs, checkFieldMatch(string(q.Name), q.Value, regex, false, path.Child("queryParams").Index(i))...)
	}
	return errs
}

func checkFieldMatch(name, value string, regex, header bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if header {
		errs = append(errs, checkHeaderName(name, path.Child("name"))...)
	} else if name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	if regex {
		errs = append(errs, checkRegex(value, path.Child("value"))...)
	}
	return errs
}

func checkHeaderName(name string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsHTTPHeaderName(name) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	return errs
}

func checkRegex(value string, path *field.Path) field.ErrorList {
	if _, err := regexp.Compile(value); err != nil {
		return field.ErrorList{field.Invalid(path, value, err.Error())}
	}
	return nil
}

// checkDuration takes GEP-2257's form, which time.ParseDuration reads too.
func checkDuration(d *gatewayv1.Duration, path *field.Path) field.ErrorList {
	if d == nil {
		return nil
	}
	if v, err := time.ParseDuration(string(*d)); err != nil || v < 0 || v > maxRouteDuration {
		return field.ErrorList{field.Invalid(path, string(*d), "must be a duration as 500ms, 10s or 1m30s")}
	}
	return nil
}

// checkHTTPFilters refuses a filter without the part that its type names: it
// would have no effect.
func checkHTTPFilters(filters []gatewayv1.HTTPRouteFilter, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range filters {
		f, path := &filters[i], path.Index(i)
		part, name := any(nil), ""
		switch f.Type {
		case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
			part, name = present(f.RequestHeaderModifier), "requestHeaderModifier"
		case gatewayv1.HTTPRouteFilterResponseHeaderModifier:
			part, name = present(f.ResponseHeaderModifier), "responseHeaderModifier"
		case gatewayv1.HTTPRouteFilterRequestRedirect:
			part, name = present(f.RequestRedirect), "requestRedirect"
		case gatewayv1.HTTPRouteFilterURLRewrite:
			part, name = present(f.URLRewrite), "urlRewrite"
		case gatewayv1.HTTPRouteFilterRequestMirror:
			part, name = present(f.RequestMirror), "requestMirror"
			if f.RequestMirror != nil {
				errs = append(errs, checkBackendObject(&f.RequestMirror.BackendRef, path.Child(name, "backendRef"))...)
			}
		case gatewayv1.HTTPRouteFilterCORS:
			part, name = present(f.CORS), "cors"
		case gatewayv1.HTTPRouteFilterExternalAuth:
			part, name = present(f.ExternalAuth), "externalAuth"
			if f.ExternalAuth != nil {
				errs = append(errs, checkBackendObject(&f.ExternalAuth.BackendRef, path.Child(name, "backendRef"))...)
			}
		default:
			errs = append(errs, field.NotSupported(path.Child("type"), string(f.Type), []string{
				"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror", "CORS", "ExternalAuth"}))
			continue
		}
		if part == nil {
			errs = append(errs, field.Required(path.Child(name), "is what the filter's type names"))
		}
	}
	return errs
}

// present is nil for a nil pointer, whatever its type.
func present[T any](p *T) any {
	if p == nil {
		return nil
	}
	return p
}

func checkGRPCRoute(r *gatewayv1.GRPCRoute) field.ErrorList {
	spec := field.NewPath("spec")
	errs := checkParents(r.Spec.ParentRefs, spec.Child("parentRefs"))
	rules := spec.Child("rules")
	if len(r.Spec.Rules) > maxRouteRules {
		errs = append(errs, field.TooMany(rules, len(r.Spec.Rules), maxRouteRules))
	}
	for i := range r.Spec.Rules {
		rule, path := &r.Spec.Rules[i], rules.Index(i)
		if len(rule.Matches) > maxRouteMatches {
			errs = append(errs, field.TooMany(path.Child("matches"), len(rule.Matches), maxRouteMatches))
		}
		for j, m := range rule.Matches {
			path := path.Child("matches").Index(j)
			if m.Method != nil && m.Method.Type != nil && *m.Method.Type == gatewayv1.GRPCMethodMatchRegularExpression {
				for _, part := range []struct {
					name  string
					value *string
				}{{"service", m.Method.Service}, {"method", m.Method.Method}} {
					if part.value != nil {
						errs = append(errs, checkRegex(*part.value, path.Child("method", part.name))...)
					}
				}
			}
			for k, h := range m.Headers {
				regex := h.Type != nil && *h.Type == gatewayv1.GRPCHeaderMatchRegularExpression
				errs = append(errs, checkFieldMatch(string(h.Name), h.Value, regex, true, path.Child("headers").Index(k))...)
			}
		}
		for j := range rule.BackendRefs {
			errs = append(errs, checkBackend(&rule.BackendRefs[j].BackendRef, path.Child("backendRefs").Index(j))...)
		}
	}
	return errs
}

func checkTCPRoute(r *gatewayv1.TCPRoute) field.ErrorList {
	spec := field.NewPath("spec")
	errs := checkParents(r.Spec.ParentRefs, spec.Child("parentRefs"))
	for i := range r.Spec.Rules {
		errs = append(errs, checkStreamBackends(r.Spec.Rules[i].BackendRefs, spec.Child("rules").Index(i).Child("backendRefs"))...)
	}
	return errs
}

func checkTLSRoute(r *gatewayv1.TLSRoute) field.ErrorList {
	spec := field.NewPath("spec")
	errs := checkParents(r.Spec.ParentRefs, spec.Child("parentRefs"))
	if len(r.Spec.Hostnames) > maxRouteMatches {
		errs = append(errs, field.TooMany(spec.Child("hostnames"), len(r.Spec.Hostnames), maxRouteMatches))
	}
	for i, h := range r.Spec.Hostnames {
		errs = append(errs, checkHostname(string(h), spec.Child("hostnames").Index(i))...)
	}
	for i := range r.Spec.Rules {
		errs = append(errs, checkStreamBackends(r.Spec.Rules[i].BackendRefs, spec.Child("rules").Index(i).Child("backendRefs"))...)
	}
	return errs
}

func checkStreamBackends(backends []gatewayv1.BackendRef, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range backends {
		errs = append(errs, checkBackend(&backends[i], path.Index(i))...)
	}
	return errs
}

func checkReferenceGrant(g *gatewayv1.ReferenceGrant) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if len(g.Spec.From) == 0 {
		errs = append(errs, field.Required(spec.Child("from"), "a grant says who may refer"))
	}
	for i, f := range g.Spec.From {
		path := spec.Child("from").Index(i)
		if f.Kind == "" {
			errs = append(errs, field.Required(path.Child("kind"), ""))
		}
		if f.Namespace == "" {
			errs = append(errs, field.Required(path.Child("namespace"), ""))
		}
	}
	if len(g.Spec.To) == 0 {
		errs = append(errs, field.Required(spec.Child("to"), "a grant says to what may be referred"))
	}
	for i, to := range g.Spec.To {
		if to.Kind == "" {
			errs = append(errs, field.Required(spec.Child("to").Index(i).Child("kind"), ""))
		}
	}
	return errs
}
