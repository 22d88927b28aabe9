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

func compileMatch(m *api.Match, rules []Rule) (match, error) {
	if m.GetRule() >= uint32(len(rules)) {
		return match{}, fmt.Errorf("leads to rule %d of %d", m.GetRule(), len(rules))
	}
	if len(m.GetHeaders()) > maxConditions || len(m.GetQuery()) > maxConditions {
		return match{}, fmt.Errorf("more than %d conditions", maxConditions)
	}
	out := match{method: m.GetMethod(), serverNames: m.GetServerNames()}
	if hasUnknown(m) {
		out.fault = "a condition that this waypoint does not know"
	}
	if err := out.compilePath(m.GetPath()); err != nil {
		return match{}, err
	}
	for _, name := range out.serverNames {
		if bare := strings.TrimPrefix(name, "*."); bare == "" || strings.Contains(bare, "*") || strings.ToLower(name) != name {
			return match{}, fmt.Errorf("%q is no server name in lower case", name)
		}
	}
	var err error
	if out.headers, err = out.compileConditions(m.GetHeaders()); err != nil {
		return match{}, fmt.Errorf("header: %w", err)
	}
	for _, c := range out.headers {
		if strings.ToLower(c.name) != c.name {
			return match{}, fmt.Errorf("header %s is not in lower case", c.name)
		}
	}
	if out.query, err = out.compileConditions(m.GetQuery()); err != nil {
		return match{}, fmt.Errorf("query: %w", err)
	}
	out.plain = out.kind != pathRegex && out.method == "" &&
		len(out.headers)+len(out.query)+len(out.serverNames) == 0
	if _, ok := (Decision{match: &out}).Prefix(); !ok && rules[m.GetRule()].needsPrefix && out.fault == "" {
		out.fault = "a prefix is replaced, and the match has none"
	}
	return out, nil
}

func (m *match) compilePath(p *api.PathMatch) (err error) {
	switch kind := p.GetKind().(type) {
	case nil:
		if p != nil && m.fault == "" {
			m.fault = "a condition on the path that this waypoint does not know"
		}
	case *api.PathMatch_Exact:
		m.kind = pathExact
		m.path, err = normalPath(kind.Exact)
	case *api.PathMatch_Prefix:
		if kind.Prefix != "" {
			m.path, err = normalPath(kind.Prefix)
			m.path = strings.TrimSuffix(m.path, "/")
		}
	case *api.PathMatch_Regex:
		m.kind = pathRegex
		m.regex, err = compileRegex(kind.Regex)
	}
	return err
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

func (m *match) compileConditions(fields []*api.FieldMatch) ([]condition, error) {
	var out []condition
	for _, f := range fields {
		if f.GetName() == "" {
			return nil, errors.New("condition without a name")
		}
		if slices.ContainsFunc(out, func(c condition) bool { return c.name == f.GetName() }) {
			continue
		}
		c := condition{name: f.GetName()}
		switch kind := f.GetKind().(type) {
		case *api.FieldMatch_Exact:
			c.exact = kind.Exact
		case *api.FieldMatch_Regex:
			var err error
			if c.regex, err = compileRegex(kind.Regex); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
		default:
			// As if it held: a route answers 500 rather than leave the request to another.
			if m.fault == "" {
				m.fault = fmt.Sprintf("a condition on %s that this waypoint does not know", c.name)
			}
			continue
		}
		out = append(out, c)
	}
	return out, nil
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
