package translate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
)

// virtualServices returns those that decide on what comes to a service through a
// waypoint of a namespace: of the waypoint's namespace and the service's, of the host
// that names the service most exactly. The first, which is the oldest, decides.
func (x *traffic) virtualServices(waypoint, service, hostname string) []*networkingv1.VirtualService {
	seen := func(vs *networkingv1.VirtualService) bool {
		return visible(vs.Spec.GetExportTo(), vs.Namespace, waypoint)
	}
	list, host := x.virtuals[waypoint].find(hostname, seen)
	if service != waypoint {
		other, otherHost := x.virtuals[service].find(hostname, seen)
		switch {
		case len(otherHost) == 0 || moreExact(host, otherHost):
		case moreExact(otherHost, host):
			list = other
		default:
			list = slices.Concat(list, other)
			slices.SortFunc(list, compareAge)
		}
	}
	return list
}

// moreExact reports whether a names fewer hosts than b; empty names all.
func moreExact(a, b string) bool {
	wildA, wildB := a == "" || a[0] == '*', b == "" || b[0] == '*'
	if wildA != wildB {
		return wildB
	}
	return wildA && len(a) > len(b)
}

// virtualCompiler makes the tables of one port of a VirtualService.
type virtualCompiler struct {
	backends *Backends
	vs       *networkingv1.VirtualService
	port     servicePort
	client   string
	table    *apiwaypoint.RouteTable
}

// virtualTables returns the tables of a port by a VirtualService: one for all
// clients, and one for each namespace of clients that a match names. There is none
// when the VirtualService says nothing of what the port speaks.
func virtualTables(vs *networkingv1.VirtualService, port servicePort, speaks apiwaypoint.Protocol, backends *Backends) []*apiwaypoint.RouteTable {
	clients := map[string]bool{"": true}
	for _, r := range vs.Spec.GetHttp() {
		for _, m := range r.GetMatch() {
			clients[m.GetSourceNamespace()] = true
		}
	}
	for _, r := range vs.Spec.GetTls() {
		for _, m := range r.GetMatch() {
			clients[m.GetSourceNamespace()] = true
		}
	}
	for _, r := range vs.Spec.GetTcp() {
		for _, m := range r.GetMatch() {
			clients[m.GetSourceNamespace()] = true
		}
	}
	var out []*apiwaypoint.RouteTable
	for _, client := range slices.Sorted(maps.Keys(clients)) {
		c := &virtualCompiler{backends: backends, vs: vs, port: port, client: client, table: &apiwaypoint.RouteTable{ClientNamespace: client}}
		var said bool
		switch speaks {
		case apiwaypoint.Protocol_HTTP1, apiwaypoint.Protocol_HTTP2, apiwaypoint.Protocol_GRPC:
			said = len(vs.Spec.GetHttp()) > 0
			for i, r := range vs.Spec.GetHttp() {
				c.http(i, r)
			}
		case apiwaypoint.Protocol_TLS:
			said = len(vs.Spec.GetTls()) > 0
			for i, r := range vs.Spec.GetTls() {
				c.tls(i, r)
			}
			if !said {
				said = c.tcpRoutes()
			}
		default:
			said = c.tcpRoutes()
		}
		if said {
			out = append(out, c.table)
		}
	}
	return out
}

func (c *virtualCompiler) tcpRoutes() bool {
	for i, r := range c.vs.Spec.GetTcp() {
		c.tcp(i, r)
	}
	return len(c.vs.Spec.GetTcp()) > 0
}

// fits reports whether a match can hold at this port, for these clients, in the mesh.
// One by what waypoints do not know of a client never holds.
func (c *virtualCompiler) fits(port uint32, labels map[string]string, gateways []string, namespace string) bool {
	return (port == 0 || port == c.port.number) && len(labels) == 0 && inMesh(gateways) && (namespace == "" || namespace == c.client)
}

func (c *virtualCompiler) rule(name string) (*apiwaypoint.Rule, uint32) {
	r := &apiwaypoint.Rule{Ref: &apiwaypoint.RouteRef{Kind: "VirtualService", Namespace: c.vs.Namespace, Name: c.vs.Name, Rule: name}}
	c.table.Rules = append(c.table.Rules, r)
	return r, uint32(len(c.table.Rules) - 1)
}

func (c *virtualCompiler) match(m *apiwaypoint.Match, rule uint32) {
	m.Rule = rule
	c.table.Matches = append(c.table.Matches, m)
}

func (c *virtualCompiler) http(index int, r *networking.HTTPRoute) {
	name := cmp.Or(r.GetName(), strconv.Itoa(index))
	// A rewrite of a prefix puts something in the place of what the match takes, and of
	// all that is matched otherwise.
	made := map[bool]uint32{}
	ruleFor := func(prefix bool) uint32 {
		if at, ok := made[prefix]; ok {
			return at
		}
		rule, at := c.rule(name)
		c.fill(rule, r, prefix)
		made[prefix] = at
		if !rewrites(r) {
			made[!prefix] = at
		}
		return at
	}
	if len(r.GetMatch()) == 0 {
		m := &apiwaypoint.Match{}
		if rewrites(r) {
			m.Path = textPath("/")
		}
		c.match(m, ruleFor(true))
	}
	for _, spec := range r.GetMatch() {
		if !c.fits(spec.GetPort(), spec.GetSourceLabels(), spec.GetGateways(), spec.GetSourceNamespace()) {
			continue
		}
		m, fault := virtualMatch(spec)
		if m.Path == nil && rewrites(r) {
			m.Path = textPath("/")
		}
		_, prefix := m.Path.GetKind().(*apiwaypoint.PathMatch_TextPrefix)
		at := ruleFor(prefix)
		if fault != "" {
			c.table.Rules[at].Fault = join(c.table.Rules[at].Fault, fault)
		}
		c.match(m, at)
	}
}

// rewrites reports whether what becomes of the path depends on what was matched.
func rewrites(r *networking.HTTPRoute) bool {
	return r.GetRewrite().GetUri() != "" || r.GetRedirect().GetPrefixRewrite() != ""
}

func textPath(s string) *apiwaypoint.PathMatch {
	return &apiwaypoint.PathMatch{Kind: &apiwaypoint.PathMatch_TextPrefix{TextPrefix: s}}
}

// virtualMatch returns, with a fault, a match that takes all that the one which its
// author wrote could take, and perhaps more.
func virtualMatch(m *networking.HTTPMatchRequest) (*apiwaypoint.Match, string) {
	out := &apiwaypoint.Match{}
	var fault string
	if uri := m.GetUri(); uri != nil {
		switch kind := uri.GetMatchType().(type) {
		case *networking.StringMatch_Exact:
			out.Path = exactPath(kind.Exact)
		case *networking.StringMatch_Prefix:
			out.Path = textPath(kind.Prefix)
		case *networking.StringMatch_Regex:
			if fault = badRegex(kind.Regex); fault == "" {
				out.Path = regexPath(kind.Regex)
			}
		}
		if _, regex := out.Path.GetKind().(*apiwaypoint.PathMatch_Regex); out.Path != nil && !regex {
			out.Path.IgnoreCase = m.GetIgnoreUriCase()
			if s := out.Path.GetExact() + out.Path.GetTextPrefix(); !strings.HasPrefix(s, "/") {
				out.Path, fault = nil, fmt.Sprintf("the uri %q does not start with a slash", s)
			}
		}
	}
	field := func(list *[]*apiwaypoint.FieldMatch, name string, s *networking.StringMatch, invert bool) {
		fm, bad := stringMatch(name, s)
		if fault = cmp.Or(fault, bad); bad == "" {
			fm.Invert = invert
			*list = append(*list, fm)
		}
	}
	if method := m.GetMethod(); method != nil {
		if exact, ok := method.GetMatchType().(*networking.StringMatch_Exact); ok {
			out.Method = exact.Exact
		} else {
			field(&out.Headers, ":method", method, false)
		}
	}
	if m.GetScheme() != nil {
		field(&out.Headers, ":scheme", m.GetScheme(), false)
	}
	if m.GetAuthority() != nil {
		field(&out.Headers, ":authority", m.GetAuthority(), false)
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetHeaders())) {
		field(&out.Headers, strings.ToLower(name), m.GetHeaders()[name], false)
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetWithoutHeaders())) {
		field(&out.Headers, strings.ToLower(name), m.GetWithoutHeaders()[name], true)
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetQueryParams())) {
		field(&out.Query, name, m.GetQueryParams()[name], false)
	}
	return out, fault
}

// stringMatch without a kind holds when the field is there.
func stringMatch(name string, s *networking.StringMatch) (*apiwaypoint.FieldMatch, string) {
	switch kind := s.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return &apiwaypoint.FieldMatch{Name: name, Kind: &apiwaypoint.FieldMatch_Exact{Exact: kind.Exact}}, ""
	case *networking.StringMatch_Prefix:
		return &apiwaypoint.FieldMatch{Name: name, Kind: &apiwaypoint.FieldMatch_Prefix{Prefix: kind.Prefix}}, ""
	case *networking.StringMatch_Regex:
		if fault := badRegex(kind.Regex); fault != "" {
			return nil, fault
		}
		if kind.Regex != "" {
			return &apiwaypoint.FieldMatch{Name: name, Kind: &apiwaypoint.FieldMatch_Regex{Regex: kind.Regex}}, ""
		}
	}
	return &apiwaypoint.FieldMatch{Name: name, Kind: &apiwaypoint.FieldMatch_Present{Present: true}}, ""
}

// fill sets what becomes of the requests that a route takes. prefix says that they
// were matched by one.
func (c *virtualCompiler) fill(rule *apiwaypoint.Rule, r *networking.HTTPRoute, prefix bool) {
	spoil := func(format string, args ...any) { rule.Fault = join(rule.Fault, fmt.Sprintf(format, args...)) }
	path := func(uri string) *apiwaypoint.PathChange {
		if prefix {
			return &apiwaypoint.PathChange{Kind: &apiwaypoint.PathChange_Prefix{Prefix: uri}}
		}
		return &apiwaypoint.PathChange{Kind: &apiwaypoint.PathChange_Full{Full: uri}}
	}
	if f := r.GetFault(); f != nil {
		fault, bad := virtualFault(f, rule.Ref)
		if bad != "" {
			spoil("%s", bad)
		} else if fault != nil {
			rule.Filters = append(rule.Filters, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Fault{Fault: fault}})
		}
	}
	if p := r.GetCorsPolicy(); p != nil {
		f, bad := virtualCors(p)
		if bad != "" {
			spoil("%s", bad)
		} else {
			rule.Filters = append(rule.Filters, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Cors{Cors: f}})
		}
	}
	rule.Filters = append(rule.Filters, virtualHeaders(r.GetHeaders())...)
	if w := r.GetRewrite(); w != nil {
		out := &apiwaypoint.Rewrite{Hostname: strings.ToLower(w.GetAuthority())}
		switch regex := w.GetUriRegexRewrite(); {
		case regex != nil && w.GetUri() != "":
			spoil("rewrite.uri and rewrite.uriRegexRewrite exclude each other")
		case regex != nil:
			if bad := badRegex(regex.GetMatch()); bad != "" {
				spoil("%s", bad)
			}
			out.Path = &apiwaypoint.PathChange{Kind: &apiwaypoint.PathChange_Regex{Regex: &apiwaypoint.RegexChange{Match: regex.GetMatch(), Substitution: regex.GetRewrite()}}}
		case w.GetUri() != "":
			out.Path = path(w.GetUri())
		}
		rule.Filters = append(rule.Filters, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Rewrite{Rewrite: out}})
	}
	for _, m := range virtualMirrors(r) {
		if m.share.of == 0 {
			continue // of none
		}
		b := c.destination(m.to, 1)
		if b.Fault == "" {
			rule.Filters = append(rule.Filters, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Mirror{Mirror: &apiwaypoint.Mirror{Backend: b, Numerator: m.share.hits, Denominator: m.share.of}}})
		}
	}
	if x := r.GetRedirect(); x != nil {
		out := &apiwaypoint.Redirect{Scheme: strings.ToLower(x.GetScheme()), Hostname: strings.ToLower(x.GetAuthority()), Port: x.GetPort(), Status: cmp.Or(x.GetRedirectCode(), 301)}
		if host, port, ok := strings.Cut(out.Hostname, ":"); ok {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || strings.Contains(port, ":") {
				spoil("redirect.authority %q is no host with a port", x.GetAuthority())
			}
			out.Hostname = host
			if out.Port == 0 {
				out.Port = uint32(n)
			}
		}
		if out.Hostname != "" && out.Port == 0 && out.Scheme == "" {
			out.Port = 80 // another host does not keep the port; requests come as http
		}
		switch {
		case x.GetUri() != "" && strings.Contains(x.GetUri(), "?"):
			spoil("redirect.uri %q has a query: the request's stays", x.GetUri())
		case x.GetUri() != "":
			out.Path = &apiwaypoint.PathChange{Kind: &apiwaypoint.PathChange_Full{Full: x.GetUri()}}
		case x.GetPrefixRewrite() != "":
			out.Path = path(x.GetPrefixRewrite())
		}
		switch out.Status {
		case 301, 302, 303, 307, 308:
		default:
			spoil("%d is no status of a redirect", out.Status)
		}
		rule.Filters = append(rule.Filters, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Redirect{Redirect: out}})
	}
	if x := r.GetDirectResponse(); x != nil {
		out := &apiwaypoint.DirectResponse{Status: x.GetStatus(), Body: x.GetBody().GetBytes()}
		if s := x.GetBody().GetString_(); s != "" {
			out.Body = []byte(s)
		}
		if out.Status < 200 || out.Status > 599 {
			spoil("directResponse.status %d is none", out.Status)
		}
		rule.Filters = append(rule.Filters, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_DirectResponse{DirectResponse: out}})
	}
	if r.GetDelegate() != nil {
		spoil("delegate: waypoints follow none")
	}
	for _, d := range r.GetRoute() {
		weight := uint32(max(d.GetWeight(), 0))
		if len(r.GetRoute()) == 1 {
			weight = 1
		}
		b := c.destination(d.GetDestination(), weight)
		if b.Fault == "" {
			b.Filters = virtualHeaders(d.GetHeaders())
		}
		rule.Backends = append(rule.Backends, b)
	}
	if len(rule.Backends) == 0 && r.GetRedirect() == nil && r.GetDirectResponse() == nil && r.GetDelegate() == nil {
		empty(rule)
	}
	if d := r.GetTimeout(); d != nil && d.AsDuration() > 0 {
		rule.Timeouts = &apiwaypoint.Timeouts{Request: d}
	}
	if x := r.GetRetries(); x != nil {
		rule.Retry = virtualRetry(x)
	}
}

// destination is a backend of a VirtualService, which needs no ReferenceGrant.
func (c *virtualCompiler) destination(d *networking.Destination, weight uint32) *apiwaypoint.Backend {
	out := &apiwaypoint.Backend{Weight: weight}
	host := c.backends.options.fqdn(d.GetHost(), c.vs.Namespace)
	key, service, ok := c.backends.hostOf(host, c.vs.Namespace)
	if !ok {
		out.Fault = fmt.Sprintf("no service has the host %s", cmp.Or(host, `""`))
		return out
	}
	var ports []servicePort
	switch obj := c.backends.objects.Object(key).(type) {
	case *corev1.Service:
		if obj.Spec.Type == corev1.ServiceTypeExternalName {
			out.Fault = fmt.Sprintf("%s stands for a foreign name and has no endpoints", key)
			return out
		}
		ports = kubernetesPorts(obj)
	case *networkingv1.ServiceEntry:
		if !carried(obj) {
			out.Fault = fmt.Sprintf("%s has wildcard hosts or the resolution NONE: it says not where to go", key)
			return out
		}
		ports = entryPorts(obj)
	default:
		out.Fault = fmt.Sprintf("%s does not exist", key)
		return out
	}
	// Without a port it is the only one, else that on which the request came.
	port := c.port.number
	switch {
	case d.GetPort() != nil:
		port = d.GetPort().GetNumber()
	case len(ports) == 1:
		port = ports[0].number
	}
	if !slices.ContainsFunc(ports, func(p servicePort) bool { return p.number == port }) {
		out.Fault = fmt.Sprintf("%s has no TCP port %d", key, port)
		return out
	}
	out.Service, out.Port, out.Subset = service, port, d.GetSubset()
	return out
}

func (c *virtualCompiler) streams(rule *apiwaypoint.Rule, list []*networking.RouteDestination) {
	for _, d := range list {
		weight := uint32(max(d.GetWeight(), 0))
		if len(list) == 1 {
			weight = 1
		}
		rule.Backends = append(rule.Backends, c.destination(d.GetDestination(), weight))
	}
	if len(list) == 0 {
		empty(rule)
	}
}

func (c *virtualCompiler) tls(index int, r *networking.TLSRoute) {
	rule, at := c.rule("tls-" + strconv.Itoa(index))
	c.streams(rule, r.GetRoute())
	for _, m := range r.GetMatch() {
		if !c.fits(m.GetPort(), m.GetSourceLabels(), m.GetGateways(), m.GetSourceNamespace()) || len(m.GetDestinationSubnets()) > 0 {
			continue
		}
		match := &apiwaypoint.Match{}
		for _, h := range m.GetSniHosts() {
			if h != "*" {
				match.ServerNames = append(match.ServerNames, strings.ToLower(h))
			}
		}
		if slices.Contains(m.GetSniHosts(), "*") {
			match.ServerNames = nil
		}
		c.match(match, at)
	}
}

func (c *virtualCompiler) tcp(index int, r *networking.TCPRoute) {
	rule, at := c.rule("tcp-" + strconv.Itoa(index))
	c.streams(rule, r.GetRoute())
	if len(r.GetMatch()) == 0 {
		c.match(&apiwaypoint.Match{}, at)
	}
	for _, m := range r.GetMatch() {
		if c.fits(m.GetPort(), m.GetSourceLabels(), m.GetGateways(), m.GetSourceNamespace()) && len(m.GetDestinationSubnets()) == 0 && m.GetSourceSubnet() == "" {
			c.match(&apiwaypoint.Match{}, at)
		}
	}
}
