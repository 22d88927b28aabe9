package request_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
)

// model decides policies the slow and obvious way, straight from the proto, with
// regular expressions in the place of matchers.
type model struct {
	a         *request.Attributes
	path      string
	strict    bool // the policy restricts
	unchecked bool
}

// authorize decides with the whole set, as one of the two forms of the path.
func authorize(policies []*api.Policy, a *request.Attributes, path string) bool {
	allows, allowed := false, false
	for _, p := range policies {
		if p.DryRun {
			continue
		}
		m := model{a: a, path: path, strict: p.Action != api.Action_ALLOW, unchecked: p.Action == api.Action_CUSTOM}
		switch p.Action {
		case api.Action_ALLOW:
			allows = true
			allowed = allowed || m.policy(p)
		case api.Action_DENY, api.Action_CUSTOM: // whom nobody agrees to
			if m.policy(p) {
				return false
			}
		case api.Action_AUDIT:
		default:
			return false
		}
	}
	return allowed || !allows
}

func (m model) policy(p *api.Policy) bool {
	for _, r := range p.Rules {
		if m.rule(r) {
			return true
		}
	}
	return false
}

func (m model) rule(r *api.PolicyRule) bool {
	from, to := len(r.From) == 0, len(r.To) == 0
	for _, s := range r.From {
		from = from || m.source(s)
	}
	for _, o := range r.To {
		to = to || m.operation(o)
	}
	for _, w := range r.When {
		if !m.when(w) {
			return false
		}
	}
	return from && to
}

func (m model) source(s *api.Source) bool {
	if len(s.ProtoReflect().GetUnknown())+len(s.Principals)+len(s.NotPrincipals)+len(s.RequestPrincipals)+len(s.NotRequestPrincipals)+
		len(s.Namespaces)+len(s.NotNamespaces)+len(s.ServiceAccounts)+len(s.NotServiceAccounts)+
		len(s.IpBlocks)+len(s.NotIpBlocks)+len(s.RemoteIpBlocks)+len(s.NotRemoteIpBlocks) == 0 {
		return m.strict
	}
	return m.key("source.principal", s.Principals, s.NotPrincipals) &&
		m.key("request.auth.principal", s.RequestPrincipals, s.NotRequestPrincipals) &&
		m.key("source.namespace", s.Namespaces, s.NotNamespaces) &&
		m.key("source.serviceAccount", s.ServiceAccounts, s.NotServiceAccounts) &&
		m.key("source.ip", s.IpBlocks, s.NotIpBlocks) &&
		m.key("remote.ip", s.RemoteIpBlocks, s.NotRemoteIpBlocks)
}

func (m model) operation(o *api.Operation) bool {
	if len(o.Hosts)+len(o.NotHosts)+len(o.Ports)+len(o.NotPorts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) == 0 {
		return m.strict
	}
	return m.key("host", o.Hosts, o.NotHosts) && m.key("destination.port", o.Ports, o.NotPorts) &&
		m.key("method", o.Methods, o.NotMethods) && m.key("path", o.Paths, o.NotPaths)
}

func (m model) when(w *api.Condition) bool {
	if len(w.Values)+len(w.NotValues) == 0 {
		return m.strict
	}
	return m.key(w.Key, w.Values, w.NotValues)
}

// key decides the two lists of one attribute.
func (m model) key(key string, values, notValues []string) bool {
	if len(values)+len(notValues) == 0 {
		return true
	}
	known, match := m.attribute(key)
	if !known {
		return m.strict
	}
	any := func(list []string, wide bool) bool {
		for _, v := range list {
			// A value that is not understood matches where doubt does.
			if matches, ok := match(v, wide); matches || !ok && wide {
				return true
			}
		}
		return false
	}
	return (len(values) == 0 || any(values, m.strict)) && (len(notValues) == 0 || !any(notValues, !m.strict))
}

type matcher func(value string, wide bool) (matches, understood bool)

func (m model) attribute(key string) (bool, matcher) {
	r := m.a.Request
	id := strings.Split(m.a.Peer.Principal(), "/")
	http := r != nil
	switch key {
	case "source.principal":
		return true, some(m.a.Peer.Principal())
	case "source.namespace":
		return true, some(m.a.Peer.Namespace())
	case "source.serviceAccount":
		return true, func(v string, _ bool) (bool, bool) {
			ns, name, ok := strings.Cut(v, "/")
			if !ok {
				ns, name = "ns", v
			}
			if strings.ContainsAny(v, "*") || name == "" || ns == "" {
				return false, false
			}
			return len(id) == 5 && id[2] == ns && id[4] == name, true
		}
	case "source.ip":
		return true, address(m.a.Source)
	case "remote.ip":
		return m.a.Remote.IsValid(), address(m.a.Remote)
	case "destination.port":
		return true, func(v string, _ bool) (bool, bool) {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 || n > 65535 {
				return false, false
			}
			return n == int(m.a.Destination.Port()), true
		}
	case "method":
		return http, func(v string, wide bool) (bool, bool) {
			if wide {
				return like(v, r.Method, true) || like(v, strings.ToUpper(r.Method), true), v != ""
			}
			return like(v, r.Method, false), v != ""
		}
	case "host":
		return http && r.Authority != "", func(v string, wide bool) (bool, bool) {
			v = strings.ToLower(v)
			if !wide {
				return like(v, r.Authority, false), v != ""
			}
			host, port, ok := strings.Cut(r.Authority, ":")
			forms := []string{r.Authority, host, strings.TrimSuffix(host, ".")}
			if !ok {
				port = strconv.Itoa(int(m.a.Destination.Port()))
				forms = append(forms, forms[2]+":80")
			}
			match := false
			for _, form := range append(forms, forms[2]+":"+port) {
				match = match || like(v, form, true)
			}
			return match, v != ""
		}
	case "path":
		return http && m.path != "", func(v string, wide bool) (bool, bool) { return m.pathLike(v, wide) }
	case "request.auth.principal":
		return http && !m.unchecked, func(v string, wide bool) (bool, bool) {
			if v == "" {
				return false, false
			}
			return m.subject(v, wide), true
		}
	case "request.headers[x-a]":
		return http, func(v string, wide bool) (bool, bool) {
			var lines []string
			for _, f := range r.Fields.(fields) {
				if f[0] == "x-a" {
					lines = append(lines, f[1])
				}
			}
			match := len(lines) > 0 && like(v, strings.Join(lines, ","), wide)
			for _, l := range lines {
				match = match || wide && like(v, l, true)
			}
			return match, v != ""
		}
	case "request.auth.claims[c]":
		return http && !m.unchecked, func(v string, wide bool) (bool, bool) {
			if v == "" {
				return false, false
			}
			c, ok := m.claim("c")
			match := wide && ok && v == "*"
			for _, s := range c.Strings {
				match = match || like(v, s, wide)
			}
			for _, s := range c.Others {
				match = match || wide && like(v, s, true)
			}
			return match, true
		}
	}
	return false, nil
}

func (m model) claim(name string) (request.Claim, bool) {
	if m.a.Request.Token == nil {
		return request.Claim{}, false
	}
	return m.a.Request.Token.Claim([]string{name})
}

func (m model) subject(v string, wide bool) bool {
	iss, _ := m.claim("iss")
	sub, _ := m.claim("sub")
	if len(iss.Strings) == 0 || len(sub.Strings) == 0 {
		return false
	}
	i, s := iss.Strings[0], sub.Strings[0]
	if wide && like(v, i+"/"+s, true) {
		return true
	}
	vi, vs := v, ""
	slash := strings.LastIndex(v, "/")
	if slash >= 0 {
		vi, vs = v[:slash], v[slash+1:]
	}
	switch {
	case v == "*":
		return true
	case strings.HasPrefix(v, "*") && slash < 0:
		return strings.HasSuffix(s, v[1:])
	case strings.HasPrefix(v, "*"):
		return strings.HasSuffix(i, vi[1:]) && s == vs
	case strings.HasSuffix(v, "*") && slash < 0:
		return strings.HasPrefix(i, v[:len(v)-1])
	case strings.HasSuffix(v, "*"):
		return i == vi && strings.HasPrefix(s, vs[:len(vs)-1])
	}
	return i == vi && s == vs
}

func some(have string) matcher {
	return func(v string, wide bool) (bool, bool) { return have != "" && like(v, have, wide), v != "" }
}

func address(have netip.Addr) matcher {
	return func(v string, _ bool) (bool, bool) {
		if !strings.Contains(v, "/") {
			a, err := netip.ParseAddr(v)
			return err == nil && a == have, err == nil
		}
		p, err := netip.ParsePrefix(v)
		return err == nil && p.Contains(have), err == nil
	}
}

// like matches text as AuthorizationPolicy documents it.
func like(value, have string, wide bool) bool {
	q := regexp.QuoteMeta
	var pattern string
	switch {
	case value == "":
		return false
	case value == "*" && wide:
		pattern = ".*"
	case value == "*":
		pattern = ".+"
	case strings.HasPrefix(value, "*"):
		pattern = ".*" + q(value[1:])
	case strings.HasSuffix(value, "*"):
		pattern = q(value[:len(value)-1]) + ".*"
	default:
		pattern = q(value)
	}
	if wide {
		pattern = "(?:" + pattern + "|" + strings.ReplaceAll(q(value), `\*`, ".*") + ")"
	}
	return regexp.MustCompile("^(?s:" + pattern + ")$").MatchString(have)
}

var (
	operators = strings.NewReplacer(`\{\*\*\}`, ".*", `\{\*\}`, "[^/]+")
	variables = regexp.MustCompile(`\{[^}]*\}`)
)

func (m model) pathLike(v string, wide bool) (matches, understood bool) {
	if v == "" {
		return false, false
	}
	if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
		segments := strings.Split(v, "/")
		rest := false
		for i, s := range segments {
			operator := s == "{*}" || s == "{**}"
			if i == 0 && s != "" || !operator && strings.ContainsAny(s, "{}*") || operator && rest {
				return false, false
			}
			rest = rest || s == "{**}"
		}
		pattern := operators.Replace(regexp.QuoteMeta(v))
		match := regexp.MustCompile("^(?s:" + pattern + ")$").MatchString(m.path)
		if before, after, ok := strings.Cut(v, "/{**}"); ok && wide {
			head := operators.Replace(regexp.QuoteMeta(before))
			match = match || regexp.MustCompile("^(?s:"+head+regexp.QuoteMeta(after)+")$").MatchString(m.path) ||
				after == "/" && regexp.MustCompile("^(?s:"+head+"/.*)$").MatchString(m.path)
		}
		return match, true
	}
	if !wide {
		return like(v, m.path, false), true
	}
	match := like(v, m.path, true)
	if i := strings.IndexAny(v, "?#"); i >= 0 {
		match = match || like(v[:i]+"*", m.path, true)
	}
	if variables.MatchString(v) {
		glob := strings.ReplaceAll(regexp.QuoteMeta(variables.ReplaceAllString(v, "*")), `\*`, ".*")
		match = match || regexp.MustCompile("^(?s:"+glob+")$").MatchString(m.path)
	}
	return match, true
}

var (
	genPattern   = rapid.SampledFrom([]string{"*", "a", "b", "a*", "*b", "ab", "a*b", "*a*", "**", "", "A"})
	genText      = rapid.SampledFrom([]string{"a", "b", "ab", "aab", "ba", "*", "x"})
	genPath      = rapid.SampledFrom([]string{"/", "/a", "/a/", "/a/b", "/a//b", "/b/a/c", "/a/b/c/", "*", ""})
	genPathValue = rapid.SampledFrom([]string{
		"*", "/a", "/a*", "*/b", "/a/*/c", "/a/{*}", "/{**}", "/a/{**}/", "/{*}/{**}/c", "/a/{**}/b", "/{*}/a/{*}", "/{*}x", "{*}",
		"/{**}/{*}", "/a?b", "/{id}/b", "/a//b", "",
	})
	genHostValue = rapid.SampledFrom([]string{"a.b", "A.b:80", "a.b:*", "*.b", "*", "*:80", "a.*", ""})
	genHost      = rapid.SampledFrom([]string{"a.b", "a.b:80", "a.b.", "a.b.:80", "c.b", ""})
	genAddrValue = rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.0/31", "10.0.0.0/8", "::1", "0.0.0.0/0", "x", "1.1.1.1/99"})
	genAddr      = rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.9.9.9", "::1", "1.1.1.1"})
	genSubject   = rapid.SampledFrom([]string{"*", "a/b", "*/b", "a/*", "a*", "*b", "*a/b", "a/b*", "a", "a/a/b", "*/*", "a/*b", ""})
)

func list(g *rapid.Generator[string]) func(t *rapid.T, name string) []string {
	return func(t *rapid.T, name string) []string {
		if rapid.IntRange(0, 3).Draw(t, name+"?") > 0 {
			return nil
		}
		return rapid.SliceOfN(g, 1, 3).Draw(t, name)
	}
}

func genPolicy(t *rapid.T) *api.Policy {
	texts, paths, hosts := list(genPattern), list(genPathValue), list(genHostValue)
	addrs, subjects := list(genAddrValue), list(genSubject)
	ports := list(rapid.SampledFrom([]string{"80", "81", "0", "x"}))
	accounts := list(rapid.SampledFrom([]string{"ns/a", "a", "a/a", "*", "a/*", "/a"}))
	methods := list(rapid.SampledFrom([]string{"GET", "P*", "*T", "*", "get", ""}))
	p := &api.Policy{Name: "p", Namespace: "ns"}
	p.DryRun = rapid.IntRange(0, 9).Draw(t, "dry run") == 0
	p.Action = rapid.SampledFrom([]api.Action{0, 0, 1, 1, 2, 3, 7}).Draw(t, "action")
	for range rapid.IntRange(0, 2).Draw(t, "rules") {
		r := &api.PolicyRule{}
		for range rapid.IntRange(0, 2).Draw(t, "from") {
			r.From = append(r.From, &api.Source{
				Principals: texts(t, "principals"), NotPrincipals: texts(t, "notPrincipals"),
				Namespaces: texts(t, "namespaces"), NotNamespaces: texts(t, "notNamespaces"),
				ServiceAccounts: accounts(t, "accounts"), NotServiceAccounts: accounts(t, "notAccounts"),
				IpBlocks: addrs(t, "ips"), NotIpBlocks: addrs(t, "notIps"),
				RemoteIpBlocks: addrs(t, "remote"), NotRemoteIpBlocks: addrs(t, "notRemote"),
				RequestPrincipals: subjects(t, "subjects"), NotRequestPrincipals: subjects(t, "notSubjects"),
			})
		}
		for range rapid.IntRange(0, 2).Draw(t, "to") {
			r.To = append(r.To, &api.Operation{
				Hosts: hosts(t, "hosts"), NotHosts: hosts(t, "notHosts"),
				Ports: ports(t, "ports"), NotPorts: ports(t, "notPorts"),
				Methods: methods(t, "methods"), NotMethods: methods(t, "notMethods"),
				Paths: paths(t, "paths"), NotPaths: paths(t, "notPaths"),
			})
		}
		for range rapid.IntRange(0, 2).Draw(t, "when") {
			key := rapid.SampledFrom([]string{"request.headers[x-a]", "request.auth.claims[c]", "color", "request.headers[te]"}).Draw(t, "key")
			r.When = append(r.When, &api.Condition{Key: key, Values: texts(t, "values"), NotValues: texts(t, "notValues")})
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

func genAttributes(t *rapid.T) *request.Attributes {
	a := &request.Attributes{
		Source:      netip.MustParseAddr(genAddr.Draw(t, "source")),
		Destination: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.9"), rapid.SampledFrom([]uint16{80, 81}).Draw(t, "port")),
	}
	if rapid.Bool().Draw(t, "has remote") {
		a.Remote = netip.MustParseAddr(genAddr.Draw(t, "remote"))
	}
	if rapid.Bool().Draw(t, "has identity") {
		word := rapid.SampledFrom([]string{"a", "b", "ab", "ns"})
		a.Peer, _ = request.NewPeer(spiffeid.RequireFromString(
			"spiffe://a/ns/" + word.Draw(t, "namespace") + "/sa/" + word.Draw(t, "account")))
	}
	if rapid.IntRange(0, 9).Draw(t, "bytes") == 0 {
		return a
	}
	r := &request.Request{
		Method:    rapid.SampledFrom([]string{"GET", "PUT", "get"}).Draw(t, "method"),
		Authority: genHost.Draw(t, "host"), Path: genPath.Draw(t, "path"),
	}
	r.Folded = r.Path
	if rapid.Bool().Draw(t, "folded") {
		r.Folded = genPath.Draw(t, "folded path")
	}
	var header fields
	for range rapid.IntRange(0, 3).Draw(t, "fields") {
		header = append(header, [2]string{rapid.SampledFrom([]string{"x-a", "x-b"}).Draw(t, "name"), rapid.OneOf(genText, rapid.Just("")).Draw(t, "value")})
	}
	r.Fields = header
	if rapid.Bool().Draw(t, "has token") {
		claims := token{}
		for _, name := range []string{"iss", "sub", "c"} {
			if rapid.Bool().Draw(t, "has "+name) {
				claims[name] = request.Claim{
					Strings: rapid.SliceOfN(rapid.OneOf(genText, rapid.Just("a/b")), 1, 2).Draw(t, name),
					Others:  rapid.SliceOfN(genText, 0, 1).Draw(t, name+" others"),
				}
			}
		}
		r.Token = claims
	}
	a.Request = r
	return a
}

func TestDecisionsAgreeWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := genAttributes(t)
		var policies []*api.Policy
		var set request.Policies
		for range rapid.IntRange(0, 3).Draw(t, "policies") {
			p := genPolicy(t)
			p.Name = fmt.Sprint("p", len(policies))
			compiled, err := request.Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			policies, set = append(policies, p), set.With(compiled)
		}
		want := false
		if a.Request == nil {
			want = authorize(policies, a, "")
		} else {
			want = authorize(policies, a, a.Request.Path) && authorize(policies, a, a.Request.Folded)
		}
		permit, seen, err := set.Authorize(a, set.Consult(a))
		if permit.Valid() != want || (err == nil) != want {
			t.Fatalf("permit %v, error %v, the model says %v", permit.Valid(), err, want)
		}
		// The set that concerns the client says the same.
		narrow := set.For(a.Peer)
		permit2, seen2, err2 := narrow.Authorize(a, narrow.Consult(a))
		if permit2 != permit || fmt.Sprint(err2) != fmt.Sprint(err) || !slices.Equal(seen, seen2) {
			t.Fatalf("for the peer: %v, %v, %v; for all: %v, %v, %v", permit2, seen2, err2, permit, seen, err)
		}
		// Explanations follow the same decision.
		for i, v := range set.Verdicts(a) {
			if v.Reason == "" {
				t.Fatalf("verdict %d has no reason: %+v", i, v)
			}
			if (v.Action == request.Deny || v.Action == request.Unknown) && !v.DryRun && v.Matched && err == nil {
				t.Fatalf("verdict %+v of a request that was permitted", v)
			}
		}
	})
}
