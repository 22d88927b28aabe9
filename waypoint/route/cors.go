package route

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// CORS tells browsers which origins' scripts may ask (WHATWG Fetch, 3.2). It decides
// alone: what the application answers about it is taken out.
type CORS struct {
	// anyOrigin is "*".
	anyOrigin   bool
	origins     []origin
	patterns    []*regexp.Regexp
	credentials bool
	methods     names
	headers     names
	expose      names
	maxAge      string
	// forwards tells that preflights of other origins are the application's.
	forwards bool
}

// origin is a pattern of origins.
type origin struct {
	scheme, host string
	// suffix tells that host is what follows a wildcard.
	suffix bool
	port   uint16
}

// names of methods or fields.
type names struct {
	any bool
	// joined is how they stand in a response.
	joined string
}

// defaultMaxAge is what the Gateway API says a filter without one has.
const defaultMaxAge = 5 * time.Second

func compileCORS(c *api.Cors) (*CORS, error) {
	out := &CORS{
		credentials: c.GetAllowCredentials(),
		forwards:    c.GetForwardUnmatched(),
		maxAge:      strconv.FormatInt(int64(defaultMaxAge/time.Second), 10),
	}
	for _, o := range c.GetAllowOrigins() {
		if o == "*" {
			out.anyOrigin = true
			continue
		}
		compiled, ok := parseOrigin(strings.ToLower(o))
		if !ok {
			return nil, fmt.Errorf("%q is no origin", o)
		}
		out.origins = append(out.origins, compiled)
	}
	for _, expr := range c.GetAllowOriginRegexes() {
		compiled, err := compileRegex(expr)
		if err != nil {
			return nil, fmt.Errorf("origin: %w", err)
		}
		out.patterns = append(out.patterns, compiled)
	}
	for _, list := range []struct {
		to    *names
		names []string
	}{{&out.methods, c.GetAllowMethods()}, {&out.headers, c.GetAllowHeaders()}, {&out.expose, c.GetExposeHeaders()}} {
		for _, n := range list.names {
			if !message.ValidName(strings.ToLower(n)) {
				return nil, fmt.Errorf("%q is no name", n)
			}
		}
		list.to.any = slices.Contains(list.names, "*")
		list.to.joined = strings.Join(list.names, ", ")
	}
	if c.GetMaxAge() != nil {
		age, err := duration(c.GetMaxAge())
		if err != nil {
			return nil, fmt.Errorf("max age: %w", err)
		}
		out.maxAge = strconv.FormatInt(int64(age/time.Second), 10)
	}
	return out, nil
}

// parseOrigin parses an origin, or a pattern whose host begins with "*".
func parseOrigin(s string) (origin, bool) {
	var out origin
	var rest string
	var ok bool
	if out.scheme, rest, ok = strings.Cut(s, "://"); !ok {
		return origin{}, false
	}
	out.host = hostOf(rest)
	out.port = wellKnown[out.scheme]
	if out.host != rest {
		port, err := strconv.ParseUint(rest[len(out.host)+1:], 10, 16)
		if err != nil || port == 0 {
			return origin{}, false
		}
		out.port = uint16(port)
	}
	out.host, out.suffix = strings.CutPrefix(out.host, "*")
	if out.host == "" && !out.suffix || strings.ContainsAny(out.host, "*/?#@, \t\\") {
		return origin{}, false
	}
	return out, out.port != 0
}

// fits reports whether o is a pattern of asked. A wildcard stands for at least one
// character, with any number of labels.
func (o *origin) fits(asked origin) bool {
	if o.scheme != asked.scheme || o.port != asked.port {
		return false
	}
	if o.suffix {
		return len(asked.host) > len(o.host) && strings.HasSuffix(asked.host, o.host)
	}
	return asked.host == o.host
}

// Allows reports whether scripts of an origin, as its field says, may ask.
func (c *CORS) Allows(asked string) bool {
	if c.anyOrigin {
		return true
	}
	if slices.ContainsFunc(c.patterns, func(p *regexp.Regexp) bool { return p.MatchString(asked) }) {
		return true
	}
	o, ok := parseOrigin(asked)
	if !ok || o.suffix {
		return false
	}
	return slices.ContainsFunc(c.origins, func(p origin) bool { return p.fits(o) })
}

const (
	fieldOrigin         = "origin"
	fieldVary           = "vary"
	fieldRequestMethod  = "access-control-request-method"
	fieldRequestHeaders = "access-control-request-headers"

	allowOrigin      = "access-control-allow-origin"
	allowCredentials = "access-control-allow-credentials"
	allowMethods     = "access-control-allow-methods"
	allowHeaders     = "access-control-allow-headers"
	exposeHeaders    = "access-control-expose-headers"
	maxAge           = "access-control-max-age"
)

// Preflight returns the answer to a browser that asks before it sends, nil when r is
// no such question, or one that the application answers. Where anything is allowed it allows what was asked, since "*"
// means itself when there are credentials.
func (c *CORS) Preflight(r *message.Request) *message.Response {
	if r.Method != "OPTIONS" {
		return nil
	}
	asked, hasOrigin := r.Header.Lookup(fieldOrigin)
	method, hasMethod := r.Header.Lookup(fieldRequestMethod)
	if !hasOrigin || !hasMethod {
		return nil
	}
	vary := message.Field{
		Name:  fieldVary,
		Value: fieldOrigin + ", " + fieldRequestMethod + ", " + fieldRequestHeaders,
	}
	if !c.Allows(asked) {
		if c.forwards {
			return nil
		}
		return &message.Response{Status: 403, Header: message.Header{vary}}
	}
	h := make(message.Header, 0, 8)
	c.addOrigin(&h, asked)
	switch {
	case c.methods.any:
		h.Add(allowMethods, method)
	case c.methods.joined != "":
		h.Add(allowMethods, c.methods.joined)
	}
	switch headers, asks := r.Header.Lookup(fieldRequestHeaders); {
	case c.headers.any:
		if asks {
			h.Add(allowHeaders, headers)
		}
	case c.headers.joined != "":
		h.Add(allowHeaders, c.headers.joined)
	}
	if c.expose.joined != "" && !c.expose.any {
		h.Add(exposeHeaders, c.expose.joined)
	}
	h.Add(maxAge, c.maxAge)
	return &message.Response{Status: 200, Header: append(h, vary)}
}

func (c *CORS) addOrigin(h *message.Header, asked string) {
	h.Add(allowOrigin, asked)
	if c.credentials {
		h.Add(allowCredentials, "true")
	}
}

// Apply changes the response to a request whose origin field was asked, "" without
// one.
func (c *CORS) Apply(asked string, r *message.Response) {
	if c.forwards && asked != "" && !c.Allows(asked) {
		return // the application decides about it alone
	}
	r.Header = slices.DeleteFunc(r.Header, func(f message.Field) bool {
		return f.Name == allowOrigin || f.Name == allowCredentials || f.Name == exposeHeaders
	})
	// Caches must know that it depends, even where it was not asked for.
	if vary, found := r.Header.Lookup(fieldVary); !found || !listsOrigin(vary) {
		r.Header.Add(fieldVary, fieldOrigin)
	}
	if asked == "" || !c.Allows(asked) {
		return
	}
	fields := len(r.Header)
	c.addOrigin(&r.Header, asked)
	switch {
	case c.expose.any && c.credentials:
		// "*" means itself then.
		if list := fieldNames(r.Header[:fields]); list != "" {
			r.Header.Add(exposeHeaders, list)
		}
	case c.expose.any:
		r.Header.Add(exposeHeaders, "*")
	case c.expose.joined != "":
		r.Header.Add(exposeHeaders, c.expose.joined)
	}
}

// listsOrigin reports whether a vary field has origin, or "*".
func listsOrigin(vary string) bool {
	for name := range strings.SplitSeq(vary, ",") {
		if name = strings.Trim(name, " \t"); name == "*" || strings.EqualFold(name, fieldOrigin) {
			return true
		}
	}
	return false
}

// fieldNames lists each name once. Scripts never see set-cookie (Fetch, 2.2.6).
func fieldNames(h message.Header) string {
	var list []string
	for i := range h {
		if n := h[i].Name; n != "set-cookie" && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return strings.Join(list, ", ")
}
