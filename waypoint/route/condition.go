package route

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// condition is one on a header field or a query parameter.
type condition struct {
	name string
	kind conditionKind
	// exact is the value, or its prefix.
	exact string
	regex *regexp.Regexp
	// invert tells that it holds when the rest does not.
	invert bool
}

type conditionKind uint8

const (
	isExact conditionKind = iota
	isRegex
	isPrefix
	isPresent
)

// The names of conditions on what is no field.
const (
	nameAuthority = ":authority"
	nameScheme    = ":scheme"
	nameMethod    = ":method"
)

// conditions must all hold.
type conditions []condition

func (c *condition) String() string {
	not := ""
	if c.invert {
		not = "not "
	}
	switch c.kind {
	case isRegex:
		return fmt.Sprintf("%s%s ~ %s", not, c.name, regexText(c.regex))
	case isPrefix:
		return fmt.Sprintf("%s%s begins with %s", not, c.name, c.exact)
	case isPresent:
		return fmt.Sprintf("%s%s is there", not, c.name)
	}
	return fmt.Sprintf("%s%s = %s", not, c.name, c.exact)
}

// fits reports whether a value is what is asked for.
func (c *condition) fits(value string) bool {
	switch c.kind {
	case isRegex:
		return c.regex.MatchString(value)
	case isPrefix:
		return strings.HasPrefix(value, c.exact)
	case isPresent:
		return true
	}
	return value == c.exact
}

// inRequest reports whether all hold.
func (cs conditions) inRequest(r *message.Request) bool {
	for i := range cs {
		if !cs[i].inRequest(r) {
			return false
		}
	}
	return true
}

// inRequest reports whether the condition on a field, or on what has a name like one,
// holds.
func (c *condition) inRequest(r *message.Request) bool {
	if c.name[0] != ':' {
		return c.inHeader(r.Header) != c.invert
	}
	value, found := pseudo(r, c.name)
	return (found && c.fits(value)) != c.invert
}

// pseudo returns what is no field, and has a name like one.
func pseudo(r *message.Request, name string) (string, bool) {
	switch name {
	case nameAuthority:
		return r.Authority, r.Authority != ""
	case nameScheme:
		return r.Scheme, true
	case nameMethod:
		return r.Method, true
	}
	return "", false
}

// inHeader reports whether the values of the field, joined by commas, fit.
func (c *condition) inHeader(h message.Header) bool {
	first, more := -1, false
	for i := range h {
		if h[i].Name != c.name {
			continue
		}
		if first >= 0 {
			more = true
			break
		}
		first = i
	}
	switch {
	case first < 0:
		return false
	case !more || c.kind == isPresent:
		return c.fits(h[first].Value)
	case c.kind != isExact:
		joined, _ := h.Lookup(c.name)
		return c.fits(joined)
	}
	rest := c.exact
	for i := first; i < len(h); i++ {
		if h[i].Name != c.name {
			continue
		}
		if i > first {
			var comma bool
			if rest, comma = strings.CutPrefix(rest, ","); !comma {
				return false
			}
		}
		var fits bool
		if rest, fits = strings.CutPrefix(rest, h[i].Value); !fits {
			return false
		}
	}
	return rest == ""
}

// appendField appends the values of the field, joined by commas, to b.
func appendField(b []byte, h message.Header, name string) []byte {
	found := false
	for i := range h {
		if h[i].Name != name {
			continue
		}
		if found {
			b = append(b, ',')
		}
		b, found = append(b, h[i].Value...), true
	}
	return b
}

// inQuery reports whether the first parameter of that name, decoded, fits.
func (c *condition) inQuery(query string) bool {
	return c.hasParameter(query) != c.invert
}

func (c *condition) hasParameter(query string) bool {
	raw, found := firstParameter(query, c.name)
	switch {
	case !found || c.kind == isPresent:
		return found
	case c.kind == isExact:
		return decodesTo(raw, c.exact)
	}
	if escaped(raw) {
		raw = string(appendDecoded(nil, raw))
	}
	return c.fits(raw)
}

// firstParameter returns the value, as sent, of the first parameter of that name. A
// parameter without "=" has an empty value (WHATWG URL, 5.1).
func firstParameter(query, name string) (raw string, found bool) {
	for query != "" {
		var pair string
		if end := strings.IndexByte(query, '&'); end >= 0 {
			pair, query = query[:end], query[end+1:]
		} else {
			pair, query = query, ""
		}
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		if decodesTo(key, name) {
			return value, true
		}
	}
	return "", false
}

// escaped reports whether raw is not what it stands for.
func escaped(raw string) bool {
	return strings.IndexByte(raw, '%') >= 0 || strings.IndexByte(raw, '+') >= 0
}

// decodesTo reports whether raw stands for want: "+" for a space, "%" and two digits
// for an octet; a "%" that no two digits follow stands for itself.
func decodesTo(raw, want string) bool {
	if len(raw) < len(want) {
		return false
	}
	if !escaped(raw) {
		return raw == want
	}
	n := 0
	for i := 0; i < len(raw); n++ {
		var c byte
		c, i = decodeAt(raw, i)
		if n >= len(want) || want[n] != c {
			return false
		}
	}
	return n == len(want)
}

func appendDecoded(b []byte, raw string) []byte {
	for i := 0; i < len(raw); {
		var c byte
		c, i = decodeAt(raw, i)
		b = append(b, c)
	}
	return b
}

// decodeAt returns the octet that raw stands for at i, and where the next begins.
func decodeAt(raw string, i int) (byte, int) {
	switch c := raw[i]; {
	case c == '+':
		return ' ', i + 1
	case c == '%' && i+2 < len(raw):
		high, ok1 := hexDigit(raw[i+1])
		low, ok2 := hexDigit(raw[i+2])
		if ok1 && ok2 {
			return high<<4 | low, i + 3
		}
		fallthrough
	default:
		return c, i + 1
	}
}

func hexDigit(c byte) (byte, bool) {
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
