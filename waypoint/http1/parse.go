package http1

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

var headEnd = []byte("\r\n\r\n")

// lower maps the characters of tokens (RFC 9110, 5.6.2) to lower case, all other
// octets to 0.
var lower = func() (t [256]byte) {
	for c := byte('0'); c <= '9'; c++ {
		t[c] = c
	}
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = c, c
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = c
	}
	return t
}()

// validValue reports whether b has no controls but tabs. It looks at eight octets at
// a time.
func validValue(b []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for ; len(b) >= 8; b = b[8:] {
		v := binary.LittleEndian.Uint64(b)
		// The high bit of each octet that is below 0x20, or is 0x7f. A borrow can mark an
		// octet too many, above a marked one, never one too few; the loop below decides.
		del := v ^ 0x7f*ones
		if ((v-0x20*ones)&^v|(del-ones)&^del)&highs != 0 && !validOctets(b[:8]) {
			return false
		}
	}
	return validOctets(b)
}

func validOctets(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// search looks for the empty line that ends a section, in text that grows. It looks at
// each octet once, so that who sends them one by one causes no more work than others.
type search struct{ seen int }

// find returns the place after the empty line, 0 while there is none. It tells of a
// bare line feed on the way, with which no end would ever come.
func (s *search) find(b []byte) (end int, bare bool) {
	from := max(0, s.seen-len(headEnd)+1)
	if i := bytes.Index(b[from:], headEnd); i >= 0 {
		return from + i + len(headEnd), false
	}
	for i := s.seen; ; i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			s.seen = len(b)
			return 0, false
		}
		if i += n; i == 0 || b[i-1] != '\r' {
			return 0, true
		}
	}
}

// span is a part of a section, by the places of its first octet and after its last.
type span struct{ from, to uint32 }

func (s span) of(text string) string { return text[s.from:s.to] }

// section is where the fields of a header or trailer section are in its text.
type section struct {
	n      int
	fields [maxFields]struct{ name, value span }
}

// sections are reused: they are too large for the stacks of idle connections.
var sections = sync.Pool{New: func() any { return new(section) }}

func (s *section) field(text string, i int) message.Field {
	f := &s.fields[i]
	return message.Field{Name: f.name.of(text), Value: f.value.of(text)}
}

// scan finds the fields in b, whose lines all end with CRLF, and puts their names in
// lower case, in place.
func (s *section) scan(b []byte) error { return s.scanFrom(b, 0) }

// scanFrom is scan, of b from the place at.
func (s *section) scanFrom(b []byte, at int) error {
	s.n = 0
	for at < len(b) {
		if s.n == maxFields {
			return &message.ProtocolError{Status: 431, Reason: "too many fields"}
		}
		colon := at
		for colon < len(b) {
			c := lower[b[colon]]
			if c == 0 {
				break
			}
			b[colon] = c
			colon++
		}
		// A line that begins with white space (obs-fold) ends here as well, and white
		// space before the colon.
		if colon == at || colon == len(b) || b[colon] != ':' {
			return message.Malformed("invalid name of a field")
		}
		from := colon + 1
		end := bytes.IndexByte(b[from:], '\r')
		if end < 0 {
			return message.Malformed("a field without an end")
		}
		end += from
		if end+1 >= len(b) || b[end+1] != '\n' {
			return message.Malformed("bare carriage return in a field")
		}
		next := end + 2
		for from < end && (b[from] == ' ' || b[from] == '\t') {
			from++
		}
		for end > from && (b[end-1] == ' ' || b[end-1] == '\t') {
			end--
		}
		if !validValue(b[from:end]) {
			return message.Malformed("control character in a field")
		}
		f := &s.fields[s.n]
		f.name = span{uint32(at), uint32(colon)}
		f.value = span{uint32(from), uint32(end)}
		s.n++
		at = next
	}
	return nil
}

// framed is what the fields of a head say about its message and its connection.
type framed struct {
	// length is the content's, -1 without a content-length.
	length  int64
	chunked bool
	// close and keepAlive are options of Connection; options counts others, which name
	// fields.
	close, keepAlive bool
	options          int
	// upgrade tells that Connection has this option, protocol what Upgrade says, in
	// lower case. upgrades counts those fields.
	upgrade  bool
	protocol string
	upgrades int
	host     string
	hosts    int
	// expect tells of "100-continue"; expectOther of anything else.
	expect, expectOther bool
}

// collect puts the fields into h, but for those that frame the message or belong to
// the connection, which it reads. text is what s was scanned in.
func (m *framed) collect(s *section, text string, h message.Header) (message.Header, error) {
	*m = framed{length: -1}
	codings, lengths := 0, 0
	for i := range s.n {
		f := s.field(text, i)
		switch f.Name {
		case "host":
			m.host = f.Value
			m.hosts++
		case "content-length":
			n, ok := parseLength(f.Value)
			if lengths++; !ok || lengths > 1 {
				return nil, message.Malformed("invalid or repeated content-length")
			}
			m.length = n
		case "transfer-encoding":
			if codings++; codings > 1 {
				return nil, message.Malformed("repeated transfer-encoding")
			}
			if !strings.EqualFold(f.Value, "chunked") {
				return nil, &message.ProtocolError{Status: 501, Reason: "a transfer coding other than chunked"}
			}
			m.chunked = true
		case "connection", "proxy-connection":
			if f.Name == "connection" {
				m.connection(f.Value)
			}
		case "upgrade":
			m.protocol = f.Value
			m.upgrades++
		case "expect":
			if strings.EqualFold(f.Value, "100-continue") {
				m.expect = true
			} else {
				m.expectOther = true
			}
		case "keep-alive", "http2-settings":
		case "te":
			if strings.EqualFold(f.Value, "trailers") {
				h = append(h, message.Field{Name: f.Name, Value: "trailers"})
			}
		default:
			h = append(h, f)
		}
	}
	if m.chunked && m.length >= 0 {
		return nil, message.Malformed("both content-length and transfer-encoding")
	}
	if m.options > maxOptions {
		return nil, message.Malformed("too many options of the connection")
	}
	if m.options > 0 {
		h = m.withoutOptions(s, text, h)
	}
	return h, nil
}

// connection reads a Connection field (RFC 9110, 7.6.1).
func (m *framed) connection(value string) {
	for value != "" {
		var option string
		option, value, _ = strings.Cut(value, ",")
		switch option = trim(option); {
		case option == "":
		case strings.EqualFold(option, "close"):
			m.close = true
		case strings.EqualFold(option, "keep-alive"):
			m.keepAlive = true
		case strings.EqualFold(option, "upgrade"):
			m.upgrade = true
		case strings.EqualFold(option, "te"):
			// Judged by its value.
		default:
			m.options++
		}
	}
}

// withoutOptions takes the fields out of h that Connection names.
func (m *framed) withoutOptions(s *section, text string, h message.Header) message.Header {
	for i := range s.n {
		f := s.field(text, i)
		if f.Name != "connection" {
			continue
		}
		for option := range strings.SplitSeq(f.Value, ",") {
			if option = strings.ToLower(trim(option)); option != "te" {
				h.Del(option)
			}
		}
	}
	return h
}

// changesTo returns the one protocol that the sender wants to change to, "" without
// one. HTTP/2 is none: its upgrade lets requests past whoever does not know of it.
func (m *framed) changesTo() string {
	if !m.upgrade || m.upgrades != 1 {
		return ""
	}
	protocol := strings.ToLower(m.protocol)
	for i := range len(protocol) {
		if lower[protocol[i]] == 0 && protocol[i] != '/' {
			return ""
		}
	}
	if protocol == "h2c" || protocol == "h2" || strings.HasPrefix(protocol, "http/") {
		return ""
	}
	return protocol
}

// parseLength reads a content-length: digits, without sign, leading zeros or a list.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > maxLengthDigits || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n := int64(0)
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

func trim(s string) string { return strings.Trim(s, " \t") }

// requestLine is what stands in the first line of a request.
type requestLine struct {
	method, target span
	minor          int // of the version HTTP/1.x
}

// parseRequestLine reads the line at the start of b, and returns the place after it.
func parseRequestLine(b []byte) (l requestLine, next int, err error) {
	end := bytes.IndexByte(b, '\r')
	if end < 0 || end+1 >= len(b) || b[end+1] != '\n' {
		return l, 0, message.Malformed("bare carriage return in the request line")
	}
	space := 0
	for space < end && lower[b[space]] != 0 {
		space++
	}
	if space == 0 || space > maxMethod || space == end || b[space] != ' ' {
		return l, 0, message.Malformed("invalid method")
	}
	// The target is judged by whoever takes it apart; here it only must be one word.
	second := bytes.IndexByte(b[space+1:end], ' ')
	if second < 1 {
		return l, 0, message.Malformed("invalid request line")
	}
	second += space + 1
	switch version := b[second+1 : end]; string(version) {
	case "HTTP/1.1":
		l.minor = 1
	case "HTTP/1.0":
	default:
		if len(version) == len("HTTP/x.y") && string(version[:5]) == "HTTP/" && validVersion(version[5:]) {
			return l, 0, &message.ProtocolError{Status: 505, Reason: "a version other than HTTP/1.1 and 1.0"}
		}
		return l, 0, message.Malformed("invalid version")
	}
	l.method = span{0, uint32(space)}
	l.target = span{uint32(space + 1), uint32(second)}
	return l, end + 2, nil
}

// validVersion reports whether b is a digit, a dot and a digit.
func validVersion(b []byte) bool {
	return b[0] >= '0' && b[0] <= '9' && b[1] == '.' && b[2] >= '0' && b[2] <= '9'
}

// parseStatusLine reads the line at the start of b, and returns the place after it.
// The reason is dropped; the space before it may lack where it is empty.
func parseStatusLine(b []byte) (status, minor, next int, err error) {
	end := bytes.IndexByte(b, '\r')
	if end < 0 || end+1 >= len(b) || b[end+1] != '\n' {
		return 0, 0, 0, message.Malformed("bare carriage return in the status line")
	}
	line := b[:end]
	if len(line) < len("HTTP/1.1 200") || string(line[:7]) != "HTTP/1." || line[7] != '1' && line[7] != '0' || line[8] != ' ' {
		return 0, 0, 0, message.Malformed("invalid status line")
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, 0, 0, message.Malformed("invalid status")
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 || status > 599 || len(line) > 12 && (line[12] != ' ' || !validValue(line[13:])) {
		return 0, 0, 0, message.Malformed("invalid status")
	}
	return status, int(line[7] - '0'), end + 2, nil
}
