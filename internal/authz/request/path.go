package request

import "strings"

// The operators of path templates.
const (
	oneSegment  = "{*}"
	anySegments = "{**}"
)

// addPath takes one value of paths or notPaths. It reports false for a template
// that is not valid.
func (p *patterns) addPath(value string, wide bool) bool {
	value = normalTriplets(value)
	if strings.Contains(value, oneSegment) || strings.Contains(value, anySegments) {
		t, ok := parseTemplate(value)
		if ok {
			p.templates = append(p.templates, t)
		}
		return ok
	}
	if wide {
		// No path has a query or a fragment: what is before it was meant at least.
		if i := strings.IndexAny(value, "?#"); i >= 0 {
			p.add(value[:i]+"*", wide)
		}
		if braces := starBraces(value); braces != value {
			p.globs = append(p.globs, strings.Split(braces, "*"))
		}
	}
	p.add(value, wide)
	return true
}

// starBraces puts a star in the place of each {name}, which other proxies know.
func starBraces(value string) string {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(value, "{")
		_, after, closed := strings.Cut(rest, "}")
		if !ok || !closed {
			out.WriteString(value)
			return out.String()
		}
		out.WriteString(before)
		out.WriteByte('*')
		value = after
	}
}

// normalTriplets brings percent-encoding to the normal form that requests are in:
// unreserved characters are decoded, hexadecimal digits are upper case (RFC 3986,
// 6.2.2). What is not a triplet stays as it is and fits no request.
func normalTriplets(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+2 >= len(s) {
			out = append(out, s[i])
			continue
		}
		hi, ok := unhex(s[i+1])
		lo, ok2 := unhex(s[i+2])
		if !ok || !ok2 {
			out = append(out, s[i])
			continue
		}
		if c := hi<<4 | lo; unreserved(c) {
			out = append(out, c)
		} else {
			out = append(out, '%', hex[hi], hex[lo])
		}
		i += 2
	}
	return string(out)
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// template is a path with operators: {*} for one segment that is not empty, {**} for
// any text, which no operator may follow.
type template struct {
	segments []segment
	// rest says that {**} follows the segments, and after what follows it.
	rest  bool
	after string
}

type segment struct {
	text string
	// any is {*}.
	any bool
}

func parseTemplate(value string) (template, bool) {
	var t template
	rest, ok := strings.CutPrefix(value, "/")
	if !ok {
		return t, false
	}
	for more := true; more; {
		var text string
		text, rest, more = strings.Cut(rest, "/")
		switch {
		case text == oneSegment:
			t.segments = append(t.segments, segment{any: true})
		case text == anySegments:
			t.rest = true
			if more {
				t.after = "/" + rest
			}
			return t, !strings.ContainsAny(t.after, "{}*")
		case strings.ContainsAny(text, "{}*"):
			return t, false
		default:
			t.segments = append(t.segments, segment{text: text})
		}
	}
	return t, true
}

func (t *template) match(path string, wide bool) bool {
	i := 0
	for _, s := range t.segments {
		if i >= len(path) || path[i] != '/' {
			return false
		}
		i++
		end := len(path)
		if n := strings.IndexByte(path[i:], '/'); n >= 0 {
			end = i + n
		}
		if s.any {
			if end == i {
				return false
			}
		} else if path[i:end] != s.text {
			return false
		}
		i = end
	}
	tail := path[i:]
	if !t.rest {
		return tail == ""
	}
	if wide && tail == t.after {
		// Envoy's documentation says "zero or more segments", its code wants the slash.
		return true
	}
	if !strings.HasPrefix(tail, "/") {
		return false
	}
	// Istio's documentation says that /foo/{**}/ matches /foo/bar/baz.txt, Envoy's code
	// wants the slash at the end.
	return strings.HasSuffix(tail[1:], t.after) || wide && t.after == "/"
}

func (t *template) String() string {
	var out strings.Builder
	for _, s := range t.segments {
		out.WriteByte('/')
		if s.any {
			out.WriteString(oneSegment)
		} else {
			out.WriteString(s.text)
		}
	}
	if t.rest {
		out.WriteString("/" + anySegments + t.after)
	}
	return out.String()
}
