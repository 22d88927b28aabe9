package accesslog

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Line is one line being written, as text or as JSON. Begin comes first, then the
// fields, then End; Buf is then the line. Its owner may keep Buf for the next one.
type Line struct {
	// JSON writes an object.
	JSON bool
	// Buf is what was written so far.
	Buf []byte
	sep byte
}

// Begin writes what stands before the fields.
func (l *Line) Begin(now time.Time, level, message string) {
	if l.JSON {
		l.Buf = append(l.Buf, `{"level":"`...)
		l.Buf = append(l.Buf, level...)
		l.Buf = append(l.Buf, `","time":"`...)
		l.Buf = now.UTC().AppendFormat(l.Buf, time.RFC3339Nano)
		l.Buf = append(l.Buf, `","scope":"access","message":"`...)
		l.Buf = append(l.Buf, message...)
		l.Buf = append(l.Buf, '"')
		return
	}
	l.Buf = now.UTC().AppendFormat(l.Buf, time.RFC3339Nano)
	l.Buf = append(l.Buf, '\t')
	l.Buf = append(l.Buf, level...)
	l.Buf = append(l.Buf, "\taccess\t"...)
	l.Buf = append(l.Buf, message...)
	l.sep = '\t'
}

// End ends the line.
func (l *Line) End() {
	if l.JSON {
		l.Buf = append(l.Buf, '}')
	}
	l.Buf = append(l.Buf, '\n')
}

func (l *Line) key(key string) {
	if l.JSON {
		l.Buf = append(l.Buf, ',', '"')
		l.Buf = append(l.Buf, key...)
		l.Buf = append(l.Buf, '"', ':')
		return
	}
	l.Buf = append(l.Buf, l.sep)
	l.sep = ' '
	l.Buf = append(l.Buf, key...)
	l.Buf = append(l.Buf, '=')
}

// Text writes a string in quotes, whatever is in it: a name from the wire must
// not forge a field or a line. An empty one is left out.
func (l *Line) Text(key, value string) {
	if value == "" {
		return
	}
	l.key(key)
	if l.JSON {
		l.Buf = AppendJSON(l.Buf, value)
	} else {
		l.Buf = appendQuote(l.Buf, value)
	}
}

// appendQuote is strconv.AppendQuote, quicker for what needs no escapes, as nearly all
// does.
func appendQuote(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return strconv.AppendQuote(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// Identity writes an identity; the zero one is left out.
func (l *Line) Identity(key string, id spiffeid.ID) {
	if !id.IsZero() {
		l.Text(key, id.String())
	}
}

// Addr writes an address; one that is not valid is left out.
func (l *Line) Addr(key string, a netip.AddrPort) {
	if !a.IsValid() {
		return
	}
	l.key(key)
	if l.JSON {
		l.Buf = append(l.Buf, '"')
		l.Buf = a.AppendTo(l.Buf)
		l.Buf = append(l.Buf, '"')
		return
	}
	l.Buf = a.AppendTo(l.Buf)
}

// authority writes an address bare and anything else in quotes.
func (l *Line) authority(key, value string) {
	if a, err := netip.ParseAddrPort(value); err == nil {
		l.Addr(key, a)
		return
	}
	l.Text(key, value)
}

// Number writes a number.
func (l *Line) Number(key string, n uint64) {
	l.key(key)
	l.Buf = strconv.AppendUint(l.Buf, n, 10)
}

// Millis writes a duration in whole milliseconds.
func (l *Line) Millis(key string, d time.Duration) {
	l.key(key)
	l.Buf = append(l.Buf, '"')
	l.Buf = strconv.AppendInt(l.Buf, d.Milliseconds(), 10)
	l.Buf = append(l.Buf, `ms"`...)
}

// Fields writes fields that another Line of the same form has written: what stands
// between its Begin and its End.
func (l *Line) Fields(rendered []byte) {
	if len(rendered) == 0 {
		return
	}
	if !l.JSON {
		l.Buf = append(l.Buf, l.sep)
		l.sep = ' '
	}
	l.Buf = append(l.Buf, rendered...)
}

// Render returns the fields that f writes, for Fields.
func Render(json bool, f func(*Line)) []byte {
	l := Line{JSON: json}
	f(&l)
	if !json && len(l.Buf) > 0 {
		return l.Buf[1:] // the separator
	}
	return l.Buf
}

const hexDigits = "0123456789abcdef"

// AppendJSON writes a JSON string (RFC 8259 section 7).
func AppendJSON(buf []byte, s string) []byte {
	buf = append(buf, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			buf = append(buf, '\\', c)
		case c < 0x20 || c == 0x7f:
			buf = append(buf, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			buf = append(buf, c)
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			buf = utf8.AppendRune(buf, r) // an invalid byte becomes U+FFFD
			i += size
			continue
		}
		i++
	}
	return append(buf, '"')
}
