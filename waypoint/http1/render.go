package http1

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

var (
	errHeadTooLarge = errors.New("the head to send is larger than 64 KiB")
	errHeadInvalid  = errors.New("the head to send has invalid characters")
	errStatus       = errors.New("the status to send is not one of a final response")
)

// statusLines are the first lines of responses, without the status and the CRLF for
// what has no name.
var statusLines = func() (t [600]string) {
	names := map[int]string{
		100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
		200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
		205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
		300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
		305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
		400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
		405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
		409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
		414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
		421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked", 424: "Failed Dependency",
		425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
		431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
		500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
		504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
		507: "Insufficient Storage", 508: "Loop Detected", 511: "Network Authentication Required",
	}
	for status := 100; status < len(t); status++ {
		t[status] = "HTTP/1.1 " + strconv.Itoa(status) + " " + names[status] + "\r\n"
	}
	return t
}()

// frameSlack is room for the lines of a head that no Header has: the first, host,
// date, content-length or transfer-encoding, connection, upgrade, expect.
const frameSlack = 256

// sizeOf is how many octets h takes at most.
func sizeOf(h message.Header) int {
	n := 0
	for i := range h {
		n += len(h[i].Name) + len(h[i].Value) + len(": \r\n")
	}
	return n
}

// lines adds the lines of a head to memory that is large enough, and counts them, so
// that close can find out whether a value has brought others along.
type lines struct {
	b     []byte
	from  int // where the head begins
	count int
	te    bool // a field te was written
	bad   bool // a name is not one
}

func (l *lines) line(parts ...string) {
	for _, p := range parts {
		l.b = append(l.b, p...)
	}
	l.b = append(l.b, "\r\n"...)
	l.count++
}

func (l *lines) length(n int64) {
	l.b = append(l.b, "content-length: "...)
	l.b = strconv.AppendInt(l.b, n, 10)
	l.b = append(l.b, "\r\n"...)
	l.count++
}

// fields adds h, without what frames a message. It reports whether there was a date.
func (l *lines) fields(h message.Header) (dated bool) {
	for i := range h {
		name, value := h[i].Name, h[i].Value
		if message.Reserved(name) {
			continue
		}
		switch name {
		case "date":
			dated = true
		case "te":
			if value != "trailers" {
				continue
			}
			l.te = true
		}
		if !message.ValidName(name) {
			l.bad = true
		}
		l.b = append(l.b, name...)
		l.b = append(l.b, ": "...)
		l.b = append(l.b, value...)
		l.b = append(l.b, "\r\n"...)
		l.count++
	}
	return dated
}

// close ends the head. It returns an error unless the head has exactly the lines that
// were added: no value brought a carriage return, line feed or NUL along.
func (l *lines) close() error {
	l.b = append(l.b, "\r\n"...)
	head := l.b[l.from:]
	if l.bad || bytes.Count(head, []byte{'\n'}) != l.count+1 || bytes.Count(head, []byte{'\r'}) != l.count+1 ||
		bytes.IndexByte(head, 0) >= 0 {
		return errHeadInvalid
	}
	return nil
}

// begin reserves memory for a head with h and n octets besides, and for some content
// if it is small.
func (o *output) begin(h message.Header, n int, content int64) (lines, error) {
	n += sizeOf(h) + frameSlack
	if n > classSize[classLarge]-o.n {
		return lines{}, errHeadTooLarge
	}
	if small := int64(classSize[classMedium] - n - o.n); content > 0 && content <= small {
		n += int(content)
	}
	b := o.reserve(n)
	return lines{b: b[:o.n], from: o.n}, nil
}

// end takes over what l has added.
func (o *output) end(l *lines) error {
	err := l.close()
	if len(l.b) > len(o.buf.b) {
		panic("http1: frameSlack is too small")
	}
	if err != nil {
		if o.n == 0 {
			o.emptied()
		}
		return err
	}
	o.n = len(l.b)
	return nil
}

// trailers adds the end of a chunked content.
func (o *output) trailers(h message.Header) error {
	if o.failed != nil {
		return o.failed
	}
	if len(h) == 0 {
		if o.room() < len(lastChunk) && o.reserve(len(lastChunk)) == nil {
			if err := o.flush(); err != nil {
				return err
			}
			o.reserve(len(lastChunk))
		}
		o.put(lastChunk)
		return nil
	}
	if o.n+sizeOf(h)+frameSlack > classSize[classLarge] {
		if err := o.flush(); err != nil {
			return err
		}
	}
	l, err := o.begin(h, 0, 0)
	if err != nil {
		return err
	}
	l.line("0")
	l.fields(h)
	return o.end(&l)
}

var lastChunk = []byte("0\r\n\r\n")

// validTarget reports whether s can stand in a request line.
func validTarget(s string) bool {
	return s != "" && strings.IndexByte(s, ' ') < 0
}
