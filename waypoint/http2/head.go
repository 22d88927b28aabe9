package http2

import (
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/http2/hpack"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// The pseudo-header fields of a request (RFC 9113, 8.3.1; RFC 8441, 4).
type pseudo struct {
	method, scheme, authority, path, protocol string
	hasAuthority, hasScheme, hasPath          bool
}

// take notes one of them and reports whether it may stand there.
func (p *pseudo) take(f *hpack.Field) bool {
	switch f.Name {
	case ":method":
		if p.method != "" || !validMethod(f.Value) {
			return false
		}
		p.method = f.Value
	case ":scheme":
		if p.hasScheme {
			return false
		}
		p.scheme, p.hasScheme = f.Value, true
	case ":authority":
		if p.hasAuthority {
			return false
		}
		p.authority, p.hasAuthority = f.Value, true
	case ":path":
		if p.hasPath {
			return false
		}
		p.path, p.hasPath = f.Value, true
	case ":protocol":
		if p.protocol != "" || !message.ValidName(strings.ToLower(f.Value)) {
			return false
		}
		p.protocol = strings.ToLower(f.Value)
	default:
		return false
	}
	return true
}

// validMethod reports whether m is a token of bearable length (RFC 9110, 9.1).
func validMethod(m string) bool {
	switch m {
	case "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT":
		return true
	}
	return len(m) <= maxMethod && message.ValidName(strings.ToLower(m))
}

// regular is what the fields of a head say that are not passed on as fields.
type regular struct {
	host         string
	hosts        int
	length       int64 // of content-length, -1 without one
	expect       string
	cookies      int
	malformation string
}

// take judges a regular field and reports whether it belongs into a Header.
func (q *regular) take(f *hpack.Field) bool {
	switch f.Name {
	case "content-length":
		n, ok := parseLength(f.Value)
		if !ok || q.length >= 0 {
			q.malformation = "invalid or repeated content-length"
		}
		q.length = n
	case "host":
		q.host = f.Value
		q.hosts++
	case "expect":
		q.expect = f.Value
	case "te":
		if f.Value != "trailers" {
			q.malformation = "te other than trailers"
		}
		return true
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "http2-settings":
		q.malformation = "field of HTTP/1.1's connections"
	case "cookie":
		q.cookies++
		return true
	default:
		return true
	}
	return false
}

// parseLength reads a content-length: digits, and nothing else (RFC 9110, 8.6).
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > maxLengthDigits {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// parseFields splits fields into pseudo-header fields, which take gets, and regular
// ones; those that belong there are appended to header.
func parseFields(fields []hpack.Field, header message.Header, take func(*hpack.Field) bool) (message.Header, regular, error) {
	q := regular{length: -1}
	begun := false
	for i := range fields {
		f := &fields[i]
		switch {
		case !f.Valid:
			return nil, q, message.Malformed("invalid name or value of a field")
		case f.Name[0] == ':':
			if begun || !take(f) {
				return nil, q, message.Malformed("misplaced, repeated, invalid or unknown pseudo-header field")
			}
			continue
		}
		begun = true
		if q.take(f) {
			header = append(header, message.Field{Name: f.Name, Value: f.Value})
		}
		if q.malformation != "" {
			return nil, q, message.Malformed("%s", q.malformation)
		}
	}
	return header, q, nil
}

// parse makes the head of a request of its fields. An error that is no *refusal means
// that the request is malformed (RFC 9113, 8.1.1).
func (x *serverExchange) parse(fields []hpack.Field, end bool) error {
	header := message.Header(x.fields[:0])
	if len(fields) > len(x.fields) {
		header = make(message.Header, 0, len(fields))
	}
	var p pseudo
	header, q, err := parseFields(fields, header, p.take)
	if err != nil {
		return err
	}
	if q.cookies > 1 {
		header = joinCookies(header)
	}
	r := &x.request
	r.Method, r.Protocol, r.Header, r.Length = p.method, p.protocol, header, q.length
	switch {
	case p.method == "":
		return message.Malformed("no :method")
	case p.protocol != "" && p.method != "CONNECT":
		return message.Malformed(":protocol without CONNECT")
	case p.method == "CONNECT":
		x.tunnel = true
		if q.length >= 0 {
			return message.Malformed("CONNECT with content-length")
		}
		r.Length = -1
		if p.protocol == "" {
			return x.connect(&p, end)
		}
		// What was a GET in HTTP/1.1 (RFC 8441, 5) is one for routes and policies.
		r.Method = "GET"
	case end && q.length > 0:
		return message.Malformed("content-length without content")
	case end:
		r.Length = 0
	}
	if p.scheme == "" || p.path == "" {
		return message.Malformed("no :scheme or :path")
	}
	switch {
	case q.hosts > 1:
		return message.Malformed("several hosts")
	case q.hosts == 1 && !p.hasAuthority:
		p.authority = q.host
	case q.hosts == 1:
		// Compared as they are meant (8.3.1); what is not valid is refused below.
		if h, err := message.NormalizeAuthority(q.host); err == nil {
			q.host = h
		}
		if a, err := message.NormalizeAuthority(p.authority); err != nil || a != q.host {
			return message.Malformed("host other than :authority")
		}
	}
	if !x.tunnel {
		x.recvLen = r.Length
	}
	if q.expect != "" {
		if !strings.EqualFold(q.expect, "100-continue") {
			return &refusal{message.ProtocolError{Status: 417, Reason: "unknown expectation"}}
		}
		r.ExpectContinue = !end
	}
	return x.normalize(&p)
}

// refusal wraps the error of a request that HTTP/2 allows and that is refused by its
// status all the same.
type refusal struct{ message.ProtocolError }

func refuse(err error) error {
	if p, ok := err.(*message.ProtocolError); ok {
		return &refusal{*p}
	}
	return err
}

// connect takes a CONNECT without :protocol, which has nothing but :authority (RFC
// 9113, 8.5).
func (x *serverExchange) connect(p *pseudo, end bool) error {
	if p.hasScheme || p.hasPath || p.authority == "" {
		return message.Malformed("CONNECT must have :authority, and neither :scheme nor :path")
	}
	var err error
	x.request.Authority, err = message.NormalizeAuthority(p.authority)
	return refuse(err)
}

// normalize brings the target into its normal form.
func (x *serverExchange) normalize(p *pseudo) error {
	r := &x.request
	switch {
	case strings.EqualFold(p.scheme, "http"):
		r.Scheme = "http"
	case strings.EqualFold(p.scheme, "https"):
		r.Scheme = "https"
	default:
		return refuse(message.Malformed("scheme other than http and https"))
	}
	var err error
	if r.Authority, err = message.NormalizeAuthority(p.authority); err != nil {
		return refuse(err)
	}
	if p.path == "*" && r.Method == "OPTIONS" {
		r.Path = "*"
		return nil
	}
	r.Path, r.Query, r.HasQuery, err = message.ParseTarget(p.path)
	return refuse(err)
}

// joinCookies makes one field of several (RFC 9113, 8.2.3).
func joinCookies(header message.Header) message.Header {
	var all strings.Builder
	kept, at := header[:0], -1
	for _, f := range header {
		if f.Name != "cookie" {
			kept = append(kept, f)
			continue
		}
		if at < 0 {
			at = len(kept)
			kept = append(kept, f)
		} else {
			all.WriteString("; ")
		}
		all.WriteString(f.Value)
	}
	kept[at].Value = all.String()
	return kept
}

// parseResponse makes the head of a response of its fields; its header goes to header
// or to new memory.
func parseResponse(fields []hpack.Field, header message.Header) (message.Response, error) {
	status := ""
	header, q, err := parseFields(fields, header, func(f *hpack.Field) bool {
		if f.Name != ":status" || status != "" || len(f.Value) != 3 {
			return false
		}
		status = f.Value
		return true
	})
	if err != nil {
		return message.Response{}, err
	}
	n, err := strconv.ParseUint(status, 10, 16)
	if err != nil || n < 100 || n > 599 || n == 101 {
		return message.Response{}, message.Malformed("no or invalid :status")
	}
	return message.Response{Status: int(n), Header: header, Length: q.length}, nil
}

// parseTrailer makes a trailer section of fields. What says how a message is framed or
// where it goes is left out (RFC 9110, 6.5.1).
func parseTrailer(fields []hpack.Field) (message.Header, error) {
	header, _, err := parseFields(fields, make(message.Header, 0, len(fields)), func(*hpack.Field) bool { return false })
	return header, err
}

// checkFields returns what fields take at most, and an error for those that cannot be
// sent.
func checkFields(h message.Header) (octets int, err error) {
	for i := range h {
		if !message.ValidName(h[i].Name) || !message.ValidValue(h[i].Value) {
			return 0, errBadField
		}
		octets += len(h[i].Name) + len(h[i].Value) + 32
	}
	if octets > maxSentHead {
		return 0, errHeadTooLarge
	}
	return octets, nil
}

// beginHead begins HEADERS, for which room is made, and returns where; mu is held.
func (c *conn) beginHead(octets int) int {
	c.out.reserve(frameHeaderLen + octets)
	start := len(c.out.b)
	c.out.b = append(c.out.b, make([]byte, frameHeaderLen)...)
	c.out.b = c.enc.Begin(c.out.b)
	return start
}

// field appends one field; mu is held.
func (c *conn) field(name, value string) { c.out.b = c.enc.Append(c.out.b, name, value) }

// regularField appends a field of a Header, unless it has no place there; mu is held.
func (c *conn) regularField(f *message.Field) {
	if !message.Reserved(f.Name) && (f.Name != "te" || f.Value == "trailers") {
		c.field(f.Name, f.Value)
	}
}

// appendFields appends the fields of a Header; mu is held.
func (c *conn) appendFields(h message.Header) {
	for i := range h {
		c.regularField(&h[i])
	}
}

// endHead ends what beginHead began, in several frames when the peer takes no larger
// ones; mu is held.
func (c *conn) endHead(s *stream, start int, end bool) {
	o := &c.out
	s.lastAt = o.taken + int64(start)
	flags := uint8(0)
	if end {
		flags = flagEndStream
	}
	n := len(o.b) - start - frameHeaderLen
	if n <= c.peerFrame {
		putFrameHeader(o.b[start:], n, frameHeaders, flags|flagEndHeaders, s.id)
		return
	}
	block := append([]byte(nil), o.b[start+frameHeaderLen:]...)
	o.b = o.b[:start]
	kind := frameHeaders
	for len(block) > 0 {
		n := min(len(block), c.peerFrame)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		o.b = append(appendFrameHeader(o.b, n, kind, flags, s.id), block[:n]...)
		block, kind, flags = block[n:], frameContinuation, 0
	}
}
