package message

import "strings"

// What an octet of a path is.
const (
	pathPlain   = iota // it stands for itself
	pathDot            // it may begin a dot segment
	pathPercent        // it begins a triplet
	pathRefused
)

var pathClass = func() (t [256]byte) {
	for c := range t {
		switch {
		case c <= ' ' || c >= 0x7f, c == '\\', c == '#', c == '?':
			t[c] = pathRefused
		case c == '.':
			t[c] = pathDot
		case c == '%':
			t[c] = pathPercent
		}
	}
	return t
}()

// unreserved are the characters that mean the same with and without percent-encoding
// (RFC 3986, 2.3).
var unreserved = func() (t [256]bool) {
	for c := range t {
		t[c] = alphanumeric(byte(c)) || strings.IndexByte("-._~", byte(c)) >= 0
	}
	return t
}()

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// NormalizePath returns the normal form of a request's path, which routes and
// policies match and applications get. Triplets of unreserved characters are decoded,
// the digits of the others written in upper case, and dot segments removed (RFC 3986,
// 6.2.2), at the root those that would leave it, too. Repeated slashes, %2F and %5C
// stay, because applications use them; see Folded.
//
// Refused with a *ProtocolError is what does not begin with a slash, and what parsers
// disagree about: controls, spaces, octets beyond ASCII, "\", "#", "?", "%" without
// two digits, and %00. A path in normal form is returned itself, without allocation.
func NormalizePath(path string) (string, error) {
	if path == "" || path[0] != '/' {
		return "", Malformed("the path does not begin with a slash")
	}
	normal := true
	for i := 0; i < len(path); i++ {
		switch pathClass[path[i]] {
		case pathDot:
			if path[i-1] == '/' && dots(segment(path[i:]), false) > 0 {
				normal = false
			}
		case pathPercent:
			if i+2 >= len(path) {
				return "", Malformed("incomplete percent-encoding in the path")
			}
			high, low := unhex(path[i+1]), unhex(path[i+2])
			if high > 15 || low > 15 {
				return "", Malformed("invalid percent-encoding in the path")
			}
			c := high<<4 | low
			if c == 0 {
				return "", Malformed("NUL in the path")
			}
			if unreserved[c] || path[i+1] >= 'a' || path[i+2] >= 'a' {
				normal = false
			}
			i += 2
		case pathRefused:
			return "", Malformed("invalid character in the path")
		}
	}
	if normal {
		return path, nil
	}
	b := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c != '%' {
			b = append(b, c)
			continue
		}
		high, low := unhex(path[i+1]), unhex(path[i+2])
		if c = high<<4 | low; unreserved[c] {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[high], upperHex[low])
		}
		i += 2
	}
	return string(removeDots(b, false)), nil
}

// Folded returns what a careless application may make of a path in normal form: %2F,
// %5C and "\" read as slashes, repeated slashes as one, and dot segments removed
// again, those with parameters ("..;x") too. Other parameters are kept.
//
// A policy judges both forms: one that denies fits if either does, one that allows
// only if both do. In most cases they are the same string, and nothing is allocated.
// Anything that does not begin with a slash ("*", "") is returned itself.
func Folded(path string) string {
	if path == "" || path[0] != '/' {
		return path
	}
	same := true
	for i := 0; i < len(path) && same; i++ {
		switch path[i] {
		case '/':
			rest := path[i+1:]
			same = rest == "" || rest[0] != '/' && (rest[0] != '.' || dots(segment(rest), true) == 0)
		case '%', '\\':
			same = slashAt(path[i:]) == 0
		}
	}
	if same {
		return path
	}
	b := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if n := slashAt(path[i:]); n > 0 {
			c = '/'
			i += n - 1
		}
		if c == '/' && len(b) > 0 && b[len(b)-1] == '/' {
			continue
		}
		b = append(b, c)
	}
	return string(removeDots(b, true))
}

// ParseTarget takes the target of a request apart, in the form that has a path and a
// query (origin-form, RFC 9112, 3.2.1; :path of HTTP/2). The path is put in normal
// form; the query is what follows the first "?", as sent, and refused where it has
// controls, spaces, octets beyond ASCII, or "#".
func ParseTarget(target string) (path, query string, hasQuery bool, err error) {
	path, query, hasQuery = strings.Cut(target, "?")
	for i := 0; i < len(query); i++ {
		if c := query[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return "", "", false, Malformed("invalid character in the query")
		}
	}
	if path, err = NormalizePath(path); err != nil {
		return "", "", false, err
	}
	return path, query, hasQuery, nil
}

// slashAt returns how many octets at the start of s a careless application reads as
// one slash, 0 for none.
func slashAt(s string) int {
	switch {
	case s[0] == '/' || s[0] == '\\':
		return 1
	case s[0] != '%' || len(s) < 3:
		return 0
	case s[1] == '2' && s[2]|0x20 == 'f', s[1] == '5' && s[2]|0x20 == 'c':
		return 3
	}
	return 0
}

// segment returns s up to its first slash.
func segment(s string) string {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i]
	}
	return s
}

// dots returns 1 for the segment ".", 2 for "..", 0 for others; with parameters also
// for those that have a parameter.
func dots[T string | []byte](segment T, parameters bool) int {
	n := 0
	for n < len(segment) && segment[n] == '.' {
		n++
	}
	if n > 2 || n < len(segment) && !(parameters && segment[n] == ';') {
		return 0
	}
	return n
}

// removeDots removes the dot segments of a path that begins with a slash (RFC 3986,
// 5.2.4), in place.
func removeDots(b []byte, parameters bool) []byte {
	w := 0
	for r := 0; r < len(b); {
		end := r + 1
		for end < len(b) && b[end] != '/' {
			end++
		}
		n := dots(b[r+1:end], parameters)
		if n == 2 {
			for w > 0 {
				w--
				if b[w] == '/' {
					break
				}
			}
		}
		switch {
		case n == 0:
			w += copy(b[w:], b[r:end])
		case end == len(b):
			b[w] = '/'
			w++
		}
		r = end
	}
	return b[:w]
}

const upperHex = "0123456789ABCDEF"

// unhex returns the value of a hexadecimal digit, 255 for anything else.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
