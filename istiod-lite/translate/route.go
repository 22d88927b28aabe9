package translate

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"google.golang.org/protobuf/types/known/durationpb"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// rankedMatch is a match and what its place among the others is decided by.
type rankedMatch struct {
	match *apiwaypoint.Match
	// path is how exact the path is: see pathRank.
	path, length    int
	method          bool
	headers, params int
	created         metav1.Time
	route           source.Name
	rule, index     int // in the route
}

// compareMatches orders matches as the Gateway API says: the more exact path, then
// the longer prefix, then a method, then the more headers, then the more
// parameters; then the older route, the one first by name, and the order in it. Where
// the API leaves regular expressions open, they come after prefixes but for the one
// that fits all paths, as Istio has it.
func compareMatches(a, b rankedMatch) int {
	return cmp.Or(
		cmp.Compare(b.path, a.path), cmp.Compare(b.length, a.length), compareBools(b.method, a.method),
		cmp.Compare(b.headers, a.headers), cmp.Compare(b.params, a.params),
		a.created.Compare(b.created.Time), compareNames(a.route, b.route),
		cmp.Compare(a.rule, b.rule), cmp.Compare(a.index, b.index),
	)
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Ranks of paths.
const (
	rankAll = iota
	rankRegex
	rankPrefix
	rankExact
)

func (m *rankedMatch) setPath(p *apiwaypoint.PathMatch) {
	m.match.Path = p
	switch kind := p.GetKind().(type) {
	case *apiwaypoint.PathMatch_Exact:
		m.path, m.length = rankExact, len(kind.Exact)
	case *apiwaypoint.PathMatch_Prefix:
		m.path, m.length = rankPrefix, len(kind.Prefix)
		if kind.Prefix == "" {
			m.path, m.match.Path = rankAll, nil
		}
	case *apiwaypoint.PathMatch_Regex:
		m.path, m.length = rankRegex, len(kind.Regex)
	}
}

func exactPath(s string) *apiwaypoint.PathMatch {
	return &apiwaypoint.PathMatch{Kind: &apiwaypoint.PathMatch_Exact{Exact: s}}
}

func prefixPath(s string) *apiwaypoint.PathMatch {
	return &apiwaypoint.PathMatch{Kind: &apiwaypoint.PathMatch_Prefix{Prefix: s}}
}

func regexPath(s string) *apiwaypoint.PathMatch {
	return &apiwaypoint.PathMatch{Kind: &apiwaypoint.PathMatch_Regex{Regex: s}}
}

// routeCompiler makes the rules of one table.
type routeCompiler struct {
	backends *Backends
	// parent is the service whose table it is.
	parent source.Key
	table  *apiwaypoint.RouteTable
	ranked []rankedMatch
	// faults are those of rules that say what cannot be done; one without backends
	// says nothing wrong.
	faults map[*apiwaypoint.Rule]string
}

// route adds the rules and matches of one.
func (c *routeCompiler) route(obj metav1.Object) {
	switch r := obj.(type) {
	case *gatewayv1.HTTPRoute:
		c.http(r)
	case *gatewayv1.GRPCRoute:
		c.grpc(r)
	case *gatewayv1.TLSRoute:
		c.tls(r)
	case *gatewayv1.TCPRoute:
		c.tcp(r)
	}
}

// rule adds a rule of a route and returns it with its index.
func (c *routeCompiler) rule(kind string, route metav1.Object, index int, name *gatewayv1.SectionName) (*apiwaypoint.Rule, uint32) {
	ref := &apiwaypoint.RouteRef{Kind: kind, Namespace: route.GetNamespace(), Name: route.GetName(), Rule: strconv.Itoa(index)}
	if name != nil && *name != "" {
		ref.Rule = string(*name)
	}
	named := ""
	if name != nil {
		named = string(*name)
	}
	r := &apiwaypoint.Rule{Ref: ref, Filters: c.backends.faults(source.Key{Kind: kind, Name: source.Name{Namespace: route.GetNamespace(), Name: route.GetName()}}, named)}
	c.table.Rules = append(c.table.Rules, r)
	return r, uint32(len(c.table.Rules) - 1)
}

// match adds a match that leads to a rule.
func (c *routeCompiler) match(m rankedMatch, to uint32, route metav1.Object, rule, index int) {
	m.match.Rule = to
	m.created, m.route, m.rule, m.index = route.GetCreationTimestamp(), source.Name{Namespace: route.GetNamespace(), Name: route.GetName()}, rule, index
	c.ranked = append(c.ranked, m)
}

func (c *routeCompiler) finish() *apiwaypoint.RouteTable {
	slices.SortStableFunc(c.ranked, compareMatches)
	for _, m := range c.ranked {
		c.table.Matches = append(c.table.Matches, m.match)
	}
	return c.table
}

// spoil notes a reason why a rule cannot do what it says.
func (c *routeCompiler) spoil(r *apiwaypoint.Rule, fault string) {
	if fault == "" {
		return
	}
	r.Fault = join(r.Fault, fault)
	if c.faults == nil {
		c.faults = map[*apiwaypoint.Rule]string{}
	}
	c.faults[r] = join(c.faults[r], fault)
}

// empty notes that a rule has nowhere to send anything.
func empty(r *apiwaypoint.Rule) { r.Fault = join(r.Fault, "it has no backends") }

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

func (c *routeCompiler) http(route *gatewayv1.HTTPRoute) {
	from := Referrer{Kind: "HTTPRoute", Namespace: route.Namespace, Parent: c.parent}
	for i := range route.Spec.Rules {
		spec := &route.Spec.Rules[i]
		rule, index := c.rule(from.Kind, route, i, spec.Name)
		redirects := false
		for j := range spec.Filters {
			redirects = redirects || spec.Filters[j].Type == gatewayv1.HTTPRouteFilterRequestRedirect
			f, fault := c.filter(from, &spec.Filters[j])
			if f != nil {
				rule.Filters = append(rule.Filters, f)
			}
			c.spoil(rule, fault)
		}
		c.spoil(rule, incompatible(spec.Filters))
		for j := range spec.BackendRefs {
			ref := &spec.BackendRefs[j]
			b := c.backend(from, ref.BackendRef)
			for k := range ref.Filters {
				f, fault := c.filter(from, &ref.Filters[k])
				if f != nil {
					b.Filters = append(b.Filters, f)
				}
				if fault != "" && b.Fault == "" {
					b.Service, b.Port, b.Filters, b.Fault = "", 0, nil, fault
					break
				}
			}
			rule.Backends = append(rule.Backends, b)
		}
		if len(rule.Backends) == 0 && !redirects {
			empty(rule)
		}
		c.spoil(rule, c.times(rule, spec))
		c.spoil(rule, affinity(rule, route, i, spec.SessionPersistence))
		matches := spec.Matches
		if len(matches) == 0 {
			matches = []gatewayv1.HTTPRouteMatch{{}}
		}
		for j := range matches {
			m, fault := httpMatch(&matches[j])
			c.spoil(rule, fault)
			c.match(m, index, route, i, j)
		}
	}
}

// httpMatch returns, with a fault, a match that takes all that the one which its
// author wrote could take, and perhaps more: what it takes gets 500.
func httpMatch(m *gatewayv1.HTTPRouteMatch) (rankedMatch, string) {
	out := rankedMatch{match: &apiwaypoint.Match{}}
	var fault string
	if m.Path != nil && m.Path.Value != nil {
		kind, value := gatewayv1.PathMatchPathPrefix, *m.Path.Value
		if m.Path.Type != nil {
			kind = *m.Path.Type
		}
		switch kind {
		case gatewayv1.PathMatchExact:
			if strings.HasPrefix(value, "/") {
				out.setPath(exactPath(value))
			} else {
				fault = fmt.Sprintf("the path %q does not start with a slash", value)
			}
		case gatewayv1.PathMatchPathPrefix:
			if value = strings.TrimRight(value, "/"); value == "" || strings.HasPrefix(value, "/") {
				out.setPath(prefixPath(value))
			} else {
				fault = fmt.Sprintf("the path %q does not start with a slash", value)
			}
		case gatewayv1.PathMatchRegularExpression:
			if fault = badRegex(value); fault == "" {
				out.setPath(regexPath(value))
			}
		default:
			fault = fmt.Sprintf("paths of the type %s are not known", kind)
		}
	}
	if m.Method != nil {
		out.match.Method, out.method = string(*m.Method), true
	}
	for _, h := range m.Headers {
		kind := string(gatewayv1.HeaderMatchExact)
		if h.Type != nil {
			kind = string(*h.Type)
		}
		fm, bad := fieldMatch(strings.ToLower(string(h.Name)), h.Value, kind)
		if fault = cmp.Or(fault, bad); bad == "" && !named(out.match.Headers, fm.Name) {
			out.match.Headers = append(out.match.Headers, fm)
		}
	}
	for _, q := range m.QueryParams {
		kind := string(gatewayv1.QueryParamMatchExact)
		if q.Type != nil {
			kind = string(*q.Type)
		}
		fm, bad := fieldMatch(string(q.Name), q.Value, kind)
		if fault = cmp.Or(fault, bad); bad == "" && !named(out.match.Query, fm.Name) {
			out.match.Query = append(out.match.Query, fm)
		}
	}
	out.headers, out.params = len(out.match.Headers), len(out.match.Query)
	return out, fault
}

// named reports whether there is a match of that name already: of several the
// first counts.
func named(matches []*apiwaypoint.FieldMatch, name string) bool {
	return slices.ContainsFunc(matches, func(m *apiwaypoint.FieldMatch) bool { return m.Name == name })
}

// The types of matches on headers and parameters, which HTTPRoute and GRPCRoute
// call the same.
func fieldMatch(name, value, kind string) (*apiwaypoint.FieldMatch, string) {
	switch kind {
	case "Exact":
		return &apiwaypoint.FieldMatch{Name: name, Kind: &apiwaypoint.FieldMatch_Exact{Exact: value}}, ""
	case "RegularExpression":
		if fault := badRegex(value); fault != "" {
			return nil, fault
		}
		return &apiwaypoint.FieldMatch{Name: name, Kind: &apiwaypoint.FieldMatch_Regex{Regex: value}}, ""
	}
	return nil, fmt.Sprintf("matches of the type %s are not known", kind)
}

func badRegex(s string) string {
	if _, err := regexp.Compile(s); err != nil {
		return fmt.Sprintf("the regular expression %q is not valid", s)
	}
	return ""
}

func (c *routeCompiler) grpc(route *gatewayv1.GRPCRoute) {
	from := Referrer{Kind: "GRPCRoute", Namespace: route.Namespace, Parent: c.parent}
	for i := range route.Spec.Rules {
		spec := &route.Spec.Rules[i]
		rule, index := c.rule(from.Kind, route, i, spec.Name)
		filters := func(list []gatewayv1.GRPCRouteFilter) (out []*apiwaypoint.Filter, fault string) {
			for j := range list {
				g := &list[j]
				f, bad := c.filter(from, &gatewayv1.HTTPRouteFilter{
					Type: gatewayv1.HTTPRouteFilterType(g.Type), RequestHeaderModifier: g.RequestHeaderModifier,
					ResponseHeaderModifier: g.ResponseHeaderModifier, RequestMirror: g.RequestMirror, ExtensionRef: g.ExtensionRef,
				})
				if f != nil {
					out = append(out, f)
				}
				fault = cmp.Or(fault, bad)
			}
			return out, fault
		}
		own, fault := filters(spec.Filters)
		rule.Filters = append(rule.Filters, own...)
		c.spoil(rule, fault)
		for _, ref := range spec.BackendRefs {
			b := c.backend(from, ref.BackendRef)
			if own, fault := filters(ref.Filters); b.Fault == "" {
				if b.Filters = own; fault != "" {
					b.Service, b.Port, b.Filters, b.Fault = "", 0, nil, fault
				}
			}
			rule.Backends = append(rule.Backends, b)
		}
		if len(rule.Backends) == 0 {
			empty(rule)
		}
		c.spoil(rule, affinity(rule, route, i, spec.SessionPersistence))
		matches := spec.Matches
		if len(matches) == 0 {
			matches = []gatewayv1.GRPCRouteMatch{{}}
		}
		for j := range matches {
			m, fault := grpcMatch(&matches[j])
			c.spoil(rule, fault)
			c.match(m, index, route, i, j)
		}
	}
}

// grpcMatch turns a method of gRPC into the path that its calls have:
// /package.Service/Method. More characters of the service go before more of the
// method, and both before more headers, as paths are ordered.
func grpcMatch(m *gatewayv1.GRPCRouteMatch) (rankedMatch, string) {
	out := rankedMatch{match: &apiwaypoint.Match{}}
	var fault string
	if g := m.Method; g != nil {
		kind, service, method := gatewayv1.GRPCMethodMatchExact, "", ""
		if g.Type != nil {
			kind = *g.Type
		}
		if g.Service != nil {
			service = *g.Service
		}
		if g.Method != nil {
			method = *g.Method
		}
		any := func(s string) string { return cmp.Or(s, "[^/]+") }
		switch {
		case service == "" && method == "":
		case kind == gatewayv1.GRPCMethodMatchRegularExpression:
			if fault = cmp.Or(badRegex(service), badRegex(method)); fault == "" {
				out.setPath(regexPath("/(?:" + any(service) + ")/(?:" + any(method) + ")"))
			}
		case kind != gatewayv1.GRPCMethodMatchExact:
			fault = fmt.Sprintf("methods of the type %s are not known", kind)
		case method == "":
			out.setPath(prefixPath("/" + service))
		case service == "":
			out.setPath(regexPath("/[^/]+/" + regexp.QuoteMeta(method)))
		default:
			out.setPath(exactPath("/" + service + "/" + method))
		}
	}
	for _, h := range m.Headers {
		kind := string(gatewayv1.GRPCHeaderMatchExact)
		if h.Type != nil {
			kind = string(*h.Type)
		}
		fm, bad := fieldMatch(strings.ToLower(string(h.Name)), h.Value, kind)
		if fault = cmp.Or(fault, bad); bad == "" && !named(out.match.Headers, fm.Name) {
			out.match.Headers = append(out.match.Headers, fm)
		}
	}
	out.headers = len(out.match.Headers)
	return out, fault
}

func (c *routeCompiler) tcp(route *gatewayv1.TCPRoute) {
	from := Referrer{Kind: "TCPRoute", Namespace: route.Namespace, Parent: c.parent}
	for i, spec := range route.Spec.Rules {
		rule, index := c.rule(from.Kind, route, i, spec.Name)
		c.streamBackends(rule, from, spec.BackendRefs)
		c.match(rankedMatch{match: &apiwaypoint.Match{}}, index, route, i, 0)
	}
}

// tls makes a match of each name, for each has a place of its own: an exact name
// goes before a wildcard, a longer wildcard before a shorter.
func (c *routeCompiler) tls(route *gatewayv1.TLSRoute) {
	from := Referrer{Kind: "TLSRoute", Namespace: route.Namespace, Parent: c.parent}
	for i, spec := range route.Spec.Rules {
		rule, index := c.rule(from.Kind, route, i, spec.Name)
		c.streamBackends(rule, from, spec.BackendRefs)
		if len(route.Spec.Hostnames) == 0 {
			c.match(rankedMatch{match: &apiwaypoint.Match{}}, index, route, i, 0)
		}
		for j, h := range route.Spec.Hostnames {
			m := rankedMatch{match: &apiwaypoint.Match{ServerNames: []string{strings.ToLower(string(h))}}, path: rankExact, length: len(h)}
			if strings.HasPrefix(string(h), "*.") {
				m.path = rankPrefix
			}
			c.match(m, index, route, i, j)
		}
	}
}

func (c *routeCompiler) streamBackends(rule *apiwaypoint.Rule, from Referrer, refs []gatewayv1.BackendRef) {
	for _, ref := range refs {
		rule.Backends = append(rule.Backends, c.backend(from, ref))
	}
	if len(refs) == 0 {
		empty(rule)
	}
}

func (c *routeCompiler) backend(from Referrer, ref gatewayv1.BackendRef) *apiwaypoint.Backend {
	b := c.target(from, ref.BackendObjectReference)
	b.Weight = 1
	if ref.Weight != nil {
		b.Weight = uint32(max(*ref.Weight, 0))
	}
	return b
}

func (c *routeCompiler) target(from Referrer, ref gatewayv1.BackendObjectReference) *apiwaypoint.Backend {
	service, port, fault := c.backends.Resolve(from, ref)
	b := &apiwaypoint.Backend{Service: service, Port: port}
	if fault != nil {
		b.Fault = fault.Message
	}
	return b
}

// incompatible names filters that exclude each other.
func incompatible(filters []gatewayv1.HTTPRouteFilter) string {
	count := map[gatewayv1.HTTPRouteFilterType]int{}
	for _, f := range filters {
		count[f.Type]++
	}
	if count[gatewayv1.HTTPRouteFilterRequestRedirect] > 0 && count[gatewayv1.HTTPRouteFilterURLRewrite] > 0 {
		return "a redirect and a rewrite exclude each other"
	}
	for _, once := range []gatewayv1.HTTPRouteFilterType{gatewayv1.HTTPRouteFilterRequestRedirect, gatewayv1.HTTPRouteFilterURLRewrite, gatewayv1.HTTPRouteFilterCORS} {
		if count[once] > 1 {
			return fmt.Sprintf("the filter %s stands there more than once", once)
		}
	}
	return ""
}

func (c *routeCompiler) times(rule *apiwaypoint.Rule, spec *gatewayv1.HTTPRouteRule) string {
	var fault string
	if t := spec.Timeouts; t != nil {
		request, bad := duration(t.Request)
		backend, worse := duration(t.BackendRequest)
		fault = cmp.Or(bad, worse)
		if request != nil || backend != nil {
			rule.Timeouts = &apiwaypoint.Timeouts{Request: request, Backend: backend}
		}
	}
	if r := spec.Retry; r != nil {
		backoff, bad := duration(r.Backoff)
		fault = cmp.Or(fault, bad)
		rule.Retry = &apiwaypoint.Retry{Attempts: 1, Backoff: backoff}
		if r.Attempts != nil {
			rule.Retry.Attempts = uint32(max(*r.Attempts, 0))
		}
		for _, code := range r.Codes {
			rule.Retry.Codes = append(rule.Retry.Codes, uint32(max(int(code), 0)))
		}
	}
	return fault
}

func duration(d *gatewayv1.Duration) (*durationpb.Duration, string) {
	if d == nil {
		return nil, ""
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil || v < 0 {
		return nil, fmt.Sprintf("the duration %q is not valid", string(*d))
	}
	return durationpb.New(v), ""
}

func affinity(rule *apiwaypoint.Rule, route metav1.Object, index int, p *gatewayv1.SessionPersistence) string {
	if p == nil {
		return ""
	}
	var fault string
	rule.SessionAffinity, fault = sessionAffinity(fmt.Sprintf("tulle-%s-%s-%d", route.GetNamespace(), route.GetName(), index), p)
	return fault
}

// sessionAffinity is called name where its author gave it no name.
func sessionAffinity(name string, p *gatewayv1.SessionPersistence) (*apiwaypoint.SessionAffinity, string) {
	if p.SessionName != nil && *p.SessionName != "" {
		name = *p.SessionName
	}
	absolute, fault := duration(p.AbsoluteTimeout)
	a := &apiwaypoint.SessionAffinity{Kind: &apiwaypoint.SessionAffinity_Cookie{Cookie: name}, AbsoluteTimeout: absolute}
	if p.Type != nil {
		switch *p.Type {
		case gatewayv1.CookieBasedSessionPersistence:
		case gatewayv1.HeaderBasedSessionPersistence:
			a.Kind = &apiwaypoint.SessionAffinity_Header{Header: strings.ToLower(name)}
		default:
			fault = cmp.Or(fault, fmt.Sprintf("session persistence of the type %s is not known", *p.Type))
		}
	}
	if p.CookieConfig != nil && p.CookieConfig.LifetimeType != nil {
		a.Permanent = *p.CookieConfig.LifetimeType == gatewayv1.PermanentCookieLifetimeType
	}
	return a, fault
}
