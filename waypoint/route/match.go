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
)

// match leads what fits it to a rule.
type match struct {
	kind pathKind
	// plain tells that nothing but the path is asked, and that not by regex.
	plain bool
	// path is the exact one, or the prefix without a slash at its end.
	path    string
	regex   *regexp.Regexp
	method  string
	headers []condition
	query   []condition
	// serverNames of which a connection must have one.
	serverNames []string
	// fault is why what fits gets 500, whatever the rule.
	fault string
}

// compileMatch leaves out conditions that cannot be, as if they held, and makes the
// match faulty instead: what it may be about gets 500, rather than go on to a match
// that its author did not mean. So one bad route spoils nobody else's.
func compileMatch(m *api.Match, needsPrefix bool) match {
	out := match{method: m.GetMethod()}
	if unknownIn(m, m.GetPath()) {
		out.spoil("a condition that this waypoint does not know")
	}
	out.compilePath(m.GetPath())
	out.headers = out.compileConditions("header", m.GetHeaders(), strings.ToLower)
	out.query = out.compileConditions("query", m.GetQuery(), func(name string) string { return name })
	for _, name := range m.GetServerNames() {
		name = strings.ToLower(name)
		if bare := strings.TrimPrefix(name, "*."); bare == "" || strings.Contains(bare, "*") {
			out.spoil(fmt.Sprintf("%q is no server name", name))
			continue
		}
		out.serverNames = append(out.serverNames, name)
	}
	out.plain = out.kind != pathRegex && out.method == "" &&
		len(out.headers)+len(out.query)+len(out.serverNames) == 0
	if _, ok := (Decision{match: &out}).Prefix(); !ok && needsPrefix {
		out.spoil("a prefix is replaced, and the match has none")
	}
	return out
}

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

// compileConditions compiles those on header fields or parameters. Of several on one
// name the first counts.
func (m *match) compileConditions(of string, fields []*api.FieldMatch, nameOf func(string) string) []condition {
	if len(fields) > maxConditions {
		m.spoil(fmt.Sprintf("%d conditions on one %s, of %d that are allowed", len(fields), of, maxConditions))
		fields = fields[:maxConditions]
	}
	var out []condition
	seen := map[string]bool{}
	for _, f := range fields {
		c := condition{name: nameOf(f.GetName())}
		if seen[c.name] {
			continue
		}
		seen[c.name] = true
		var err error
		switch kind := f.GetKind().(type) {
		case *api.FieldMatch_Exact:
			c.exact = kind.Exact
		case *api.FieldMatch_Regex:
			c.regex, err = compileRegex(kind.Regex)
		default:
			err = errors.New("a condition that this waypoint does not know")
		}
		switch {
		case err != nil:
		case c.name == "":
			err = errors.New("a condition without a name")
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
	for i := range m.headers {
		if !m.headers[i].inHeader(r.Header) {
			return false
		}
	}
	for i := range m.query {
		if !m.query[i].inQuery(r.Query) {
			return false
		}
	}
	return m.regex == nil || m.regex.MatchString(r.Path)
}

// under reports whether path lies under the prefix of whole segments.
func under(path, prefix string) bool {
	return strings.HasPrefix(path, prefix) &&
		(len(path) == len(prefix) || prefix == "" || path[len(prefix)] == '/')
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
