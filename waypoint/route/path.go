package route

import (
	"errors"
	"fmt"
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
}

type changeKind uint8

const (
	keepPath changeKind = iota
	replaceFull
	replacePrefix
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
	if c.kind == replaceFull {
		return c.to
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

// joined puts what follows a prefix behind another, wherever their segments end. What
// were parts of segments may have become dot segments.
func joined(prefix, rest string) string {
	if path, err := message.NormalizePath(prefix + rest); err == nil {
		return path
	}
	return "/" + rest
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
