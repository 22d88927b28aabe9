package route

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// pathKind is what a match asks of the path.
type pathKind uint8

const (
	// pathPrefix of whole segments; of the empty one, nothing is asked.
	pathPrefix pathKind = iota
	pathExact
	pathRegex
	// pathText is a prefix wherever its segments end.
	pathText
)

// match leads what fits it to a rule.
type match struct {
	kind pathKind
	// plain tells that nothing but the path is asked, and that not by regex.
	plain bool
	// folded tells that the path is compared without regard to case; path is then in
	// lower case.
	folded bool
	// path is the exact one, or the prefix, of whole segments without a slash at its end.
	path    string
	regex   *regexp.Regexp
	method  string
	headers conditions
	query   conditions
	// serverNames of which a connection must have one.
	serverNames []string
	// ports of which the service's must be one; none fits all. elsewhere tells that it
	// is not, so that nothing fits.
	ports     []uint16
	elsewhere bool
	// fault is why what fits gets 500, whatever the rule.
	fault string
}

// compileMatch leaves out conditions that cannot be, as if they held, and makes the
// match faulty instead: what it may be about gets 500, rather than go on to a match
// that its author did not mean. So one bad route spoils nobody else's.
func compileMatch(m *api.Match, port uint16, needsPrefix bool) match {
	out := match{method: m.GetMethod()}
	if unknownIn(m, m.GetPath()) {
		out.spoil("a condition that this waypoint does not know")
	}
	out.compilePath(m.GetPath())
	out.headers = out.compileConditions("header", m.GetHeaders(), lower)
	out.query = out.compileConditions("query", m.GetQuery(), func(name string) string { return name })
	for _, name := range m.GetServerNames() {
		name = strings.ToLower(name)
		if bare := strings.TrimPrefix(name, "*."); bare == "" || strings.Contains(bare, "*") {
			out.spoil(fmt.Sprintf("%q is no server name", name))
			continue
		}
		out.serverNames = append(out.serverNames, name)
	}
	for _, n := range m.GetPorts() {
		if n == 0 || n > 65535 {
			out.spoil(fmt.Sprintf("port %d is none", n))
			continue
		}
		out.ports = append(out.ports, uint16(n))
	}
	out.elsewhere = len(out.ports) > 0 && !slices.Contains(out.ports, port)
	out.plain = !out.judgesPath() && out.method == "" &&
		len(out.headers)+len(out.query)+len(out.serverNames) == 0
	if _, ok := (Decision{match: &out}).Prefix(); !ok && needsPrefix {
		out.spoil("a prefix is replaced, and the match has none")
	}
	return out
}

func lower(name string) string { return strings.ToLower(name) }

// judgesPath reports whether the path has to be looked at besides where the match
// stands in the tree.
func (m *match) judgesPath() bool { return m.kind == pathRegex || m.kind == pathText || m.folded }

// spoil notes why what fits gets 500; the first reason stays.
func (m *match) spoil(why string) {
	if m.fault == "" {
		m.fault = why
	}
}

func (m *match) compilePath(p *api.PathMatch) {
	var err error
	switch kind := p.GetKind().(type) {
	case nil:
		if p != nil {
			err = errors.New("a condition on the path that this waypoint does not know")
		}
	case *api.PathMatch_Exact:
		if m.path, err = normalPath(kind.Exact); err == nil {
			m.kind = pathExact
		}
	case *api.PathMatch_Prefix:
		if kind.Prefix != "" {
			m.path, err = normalPath(kind.Prefix)
			m.path = strings.TrimSuffix(m.path, "/")
		}
	case *api.PathMatch_Regex:
		if m.regex, err = compileRegex(kind.Regex); err == nil {
			m.kind = pathRegex
		}
	case *api.PathMatch_TextPrefix:
		if kind.TextPrefix != "" {
			if m.path, err = normalPath(kind.TextPrefix); err == nil {
				m.kind = pathText
			}
		}
	default:
		err = errors.New("a condition on the path that this waypoint does not know")
	}
	if p.GetIgnoreCase() && m.kind != pathRegex && m.path != "" {
		m.folded, m.path = true, lower(m.path)
	}
	if err != nil {
		m.spoil(err.Error())
	}
}

// normalPath returns a path as those of requests are written.
func normalPath(path string) (string, error) {
	if len(path) > maxPathBytes {
		return "", fmt.Errorf("path of %d bytes", len(path))
	}
	normal, err := message.NormalizePath(path)
	if err != nil {
		return "", fmt.Errorf("path %q: %w", path, err)
	}
	return normal, nil
}

func compileRegex(expr string) (*regexp.Regexp, error) {
	if len(expr) > maxRegexBytes {
		return nil, fmt.Errorf("regular expression of %d bytes", len(expr))
	}
	// Alone first: "a)(b" would be well-formed between parentheses.
	if _, err := regexp.Compile(expr); err != nil {
		return nil, err
	}
	return regexp.Compile(regexBefore + expr + regexAfter)
}

// A regular expression has to fit the whole value.
const (
	regexBefore = `\A(?:`
	regexAfter  = `)\z`
)

func regexText(re *regexp.Regexp) string {
	return strings.TrimSuffix(strings.TrimPrefix(re.String(), regexBefore), regexAfter)
}

// literalPrefix is what each value that fits begins with.
func literalPrefix(re *regexp.Regexp) string {
	bare, err := regexp.Compile(regexText(re))
	if err != nil {
		return ""
	}
	prefix, _ := bare.LiteralPrefix()
	return prefix
}

// compileConditions compiles those on header fields or parameters.
func (m *match) compileConditions(of string, fields []*api.FieldMatch, nameOf func(string) string) conditions {
	if len(fields) > maxConditions {
		m.spoil(fmt.Sprintf("%d conditions on one %s, of %d that are allowed", len(fields), of, maxConditions))
		fields = fields[:maxConditions]
	}
	var out conditions
	for _, f := range fields {
		c := condition{name: nameOf(f.GetName()), invert: f.GetInvert()}
		var err error
		switch kind := f.GetKind().(type) {
		case *api.FieldMatch_Exact:
			c.exact = kind.Exact
		case *api.FieldMatch_Regex:
			c.kind = isRegex
			c.regex, err = compileRegex(kind.Regex)
		case *api.FieldMatch_Prefix:
			c.kind, c.exact = isPrefix, kind.Prefix
		case *api.FieldMatch_Present:
			c.kind = isPresent
			if !kind.Present {
				c.invert = !c.invert
			}
		default:
			err = errors.New("a condition that this waypoint does not know")
		}
		switch {
		case err != nil:
		case c.name == "":
			err = errors.New("a condition without a name")
		case of == "header" && c.name[0] == ':' && c.name != nameAuthority && c.name != nameScheme && c.name != nameMethod:
			err = errors.New("no part of a request that this waypoint knows")
		case unknownIn(f):
			err = errors.New("more than this waypoint knows")
		}
		if err != nil {
			m.spoil(fmt.Sprintf("%s %s: %v", of, c.name, err))
			continue
		}
		out = append(out, c)
	}
	return out
}

// fitsRest reports whether all conditions hold but those on the path that the tree
// decides.
func (m *match) fitsRest(r *message.Request) bool {
	if m.plain {
		return true
	}
	if m.method != "" && m.method != r.Method || len(m.serverNames) > 0 {
		return false
	}
	if m.judgesPath() && m.kind != pathRegex && !m.fitsPath(r.Path) || !m.headers.inRequest(r) {
		return false
	}
	for i := range m.query {
		if !m.query[i].inQuery(r.Query) {
			return false
		}
	}
	return m.regex == nil || m.regex.MatchString(r.Path)
}

// fitsPath reports whether the path is what is asked for.
func (m *match) fitsPath(path string) bool {
	switch m.kind {
	case pathExact:
		return len(path) == len(m.path) && m.begins(path)
	case pathRegex:
		return m.regex.MatchString(path)
	case pathText:
		return m.begins(path)
	}
	return m.begins(path) && (len(path) == len(m.path) || m.path == "" || path[len(m.path)] == '/')
}

// begins reports whether a path begins with the match's.
func (m *match) begins(path string) bool {
	if !m.folded {
		return strings.HasPrefix(path, m.path)
	}
	if len(path) < len(m.path) {
		return false
	}
	for i := range len(m.path) {
		c := path[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != m.path[i] {
			return false
		}
	}
	return true
}

// connects reports whether anything is asked that a connection has not.
func (m *match) connects() bool {
	return m.kind == pathPrefix && m.path == "" && m.method == "" && len(m.headers)+len(m.query) == 0
}

// servesName reports whether a connection with that server name, in lower case, fits.
func (m *match) servesName(name string) bool {
	return len(m.serverNames) == 0 || slices.ContainsFunc(m.serverNames, func(want string) bool {
		suffix, wild := strings.CutPrefix(want, "*")
		if wild {
			return len(name) > len(suffix) && strings.HasSuffix(name, suffix)
		}
		return name == want
	})
}
