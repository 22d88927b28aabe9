package route

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// pathChange is what a redirect or a rewrite makes of the path.
type pathChange struct {
	kind changeKind
	// to is the whole path, or the new prefix without a slash at its end; text is the
	// new prefix with it.
	to, text string
	// taken is what to, with $ for groups, replaces.
	taken *regexp.Regexp
}

type changeKind uint8

const (
	keepPath changeKind = iota
	replaceFull
	replacePrefix
	replaceTaken
)

func compilePathChange(c *api.PathChange) (out pathChange, err error) {
	switch kind := c.GetKind().(type) {
	case *api.PathChange_Full:
		out.kind = replaceFull
		out.to, err = replacement(kind.Full)
	case *api.PathChange_Prefix:
		out.kind = replacePrefix
		if kind.Prefix != "" {
			out.text, err = replacement(kind.Prefix)
			out.to = strings.TrimSuffix(out.text, "/")
		}
	case *api.PathChange_Regex:
		out.kind = replaceTaken
		out.taken, out.to, err = compileSubstitution(kind.Regex)
	default:
		if c != nil {
			err = errors.New("a change of the path that this waypoint does not know")
		}
	}
	return out, err
}

// replacement returns a path from a filter in normal form. One without a slash at its
// beginning gets it: requests have no other paths.
func replacement(path string) (string, error) {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if strings.Contains(path, "?") {
		return "", fmt.Errorf("path %q has a query", path)
	}
	return normalPath(path)
}

// apply returns the new path. Those of OPTIONS * and CONNECT stay as they are, as do
// those that another filter has taken the prefix away from.
func (c pathChange) apply(d Decision, path string) string {
	if c.kind == keepPath || !strings.HasPrefix(path, "/") {
		return path
	}
	switch c.kind {
	case replaceFull:
		return c.to
	case replaceTaken:
		return joined("", c.taken.ReplaceAllString(path, c.to))
	}
	if _, ok := d.Prefix(); !ok || !d.match.fitsPath(path) {
		return path
	}
	rest := path[len(d.match.path):]
	switch {
	case d.match.kind == pathText:
		return joined(c.text, rest)
	case c.to == "" && rest == "":
		return "/"
	case c.to == "":
		return rest
	}
	return c.to + rest
}

// compileSubstitution returns the expression and what replaces it, in Go's words.
func compileSubstitution(c *api.RegexChange) (*regexp.Regexp, string, error) {
	if n := len(c.GetMatch()); n > maxRegexBytes {
		return nil, "", fmt.Errorf("regular expression of %d bytes", n)
	}
	taken, err := regexp.Compile(c.GetMatch())
	if err != nil {
		return nil, "", err
	}
	var b strings.Builder
	for s := c.GetSubstitution(); s != ""; s = s[1:] {
		switch {
		case s[0] == '$':
			b.WriteString("$$")
		case s[0] != '\\':
			b.WriteByte(s[0])
		case len(s) > 1 && s[1] == '\\':
			b.WriteByte('\\')
			s = s[1:]
		case len(s) > 1 && '0' <= s[1] && s[1] <= '9':
			if int(s[1]-'0') > taken.NumSubexp() {
				return nil, "", fmt.Errorf("substitution %q names group %c, which the expression has not", c.GetSubstitution(), s[1])
			}
			b.WriteString("${" + s[1:2] + "}")
			s = s[1:]
		default:
			return nil, "", fmt.Errorf("substitution %q has a backslash with no digit behind it", c.GetSubstitution())
		}
	}
	return taken, b.String(), nil
}

// joined puts what follows a prefix behind another, wherever their segments end. What
// were parts of segments may have become dot segments.
func joined(prefix, rest string) string {
	if path, err := message.NormalizePath(prefix + rest); err == nil {
		return path
	}
	// Nothing that a request may have: the application gets the root.
	return "/"
}

// Rewrite changes where a request says that it goes.
type Rewrite struct {
	hostname string
	path     pathChange
}

func compileRewrite(w *api.Rewrite) (*Rewrite, error) {
	hostname, err := hostname(w.GetHostname())
	if err != nil {
		return nil, err
	}
	path, err := compilePathChange(w.GetPath())
	return &Rewrite{hostname: hostname, path: path}, err
}

// Apply changes r.
func (w *Rewrite) Apply(d Decision, r *message.Request) {
	if w.hostname != "" {
		r.Authority = w.hostname
	}
	r.Path = w.path.apply(d, r.Path)
}

// hostname returns a host from a filter in normal form; empty is allowed.
func hostname(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	normal, err := message.NormalizeAuthority(name)
	if err != nil {
		return "", fmt.Errorf("%q: %w", name, err)
	}
	if hostOf(normal) != normal {
		return "", fmt.Errorf("%q has a port", name)
	}
	return normal, nil
}
