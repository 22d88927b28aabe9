package hbone

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The header fields of HBONE, in wire spelling.
const (
	fieldBaggage          = "baggage"
	fieldForwarded        = "forwarded"
	fieldTraceparent      = "traceparent"
	fieldForwardedNetwork = "x-forwarded-network"
)

// ErrHeadersTooLarge is returned by Open for a request, and by Accept for a
// response, whose header fields no peer need accept.
var ErrHeadersTooLarge = errors.New("header fields are too large")

// writeRequest queues HEADERS for a CONNECT: :method and :authority only (RFC 9113
// section 8.5), and the fields of HBONE. mu is held.
func (t *tunnel) writeRequest(id uint32, q Request) error {
	return t.writeHeaders(id, false, func(put func(name, value string)) {
		put(":method", "CONNECT")
		put(":authority", q.Authority)
		putPresent(put, fieldBaggage, q.Baggage)
		putPresent(put, fieldForwarded, q.Forwarded)
		putPresent(put, fieldTraceparent, q.Traceparent)
		putPresent(put, fieldForwardedNetwork, q.ForwardedNetwork)
	})
}

// writeResponse queues HEADERS for an answer; mu is held.
func (t *tunnel) writeResponse(id uint32, p Response, end bool) error {
	return t.writeHeaders(id, end, func(put func(name, value string)) {
		put(":status", strconv.Itoa(p.Status))
		putPresent(put, fieldBaggage, p.Baggage)
	})
}

func putPresent(put func(name, value string), name, value string) {
	if value != "" {
		put(name, value)
	}
}

func (t *tunnel) writeHeaders(id uint32, end bool, fields func(put func(name, value string))) error {
	t.hbuf.Reset()
	fields(func(name, value string) { _ = t.henc.WriteField(hpack.HeaderField{Name: name, Value: value}) })
	err := t.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: t.hbuf.Bytes(), EndHeaders: true, EndStream: end,
	})
	t.queued()
	return err
}

// Validate tells whether r can be sent: the authority is there and no field holds
// what HTTP forbids.
func (r Request) Validate() error {
	if err := ValidateAuthority(r.Authority); err != nil {
		return err
	}
	return validateFields(r.Baggage, r.Forwarded, r.Traceparent, r.ForwardedNetwork)
}

// validateFields checks values and their sum, before compression and so however it comes out.
func validateFields(values ...string) error {
	size := 0
	for _, v := range values {
		if !httpguts.ValidHeaderFieldValue(v) {
			return errors.New("header field value holds control characters")
		}
		size += len(v) + 64
	}
	if size > maxSentHeaders-1024 {
		return ErrHeadersTooLarge
	}
	return nil
}

// ValidateAuthority tells whether a is "host:port" with a port from 1 to 65535, a
// host that is an address (IPv6 in brackets) or a DNS name, and nothing else.
func ValidateAuthority(a string) error {
	if len(a) > maxAuthority {
		return fmt.Errorf("authority of %d octets exceeds %d", len(a), maxAuthority)
	}
	i := strings.LastIndexByte(a, ':')
	if i < 1 {
		return fmt.Errorf("authority %q is not host:port", a)
	}
	host, port := a[:i], a[i+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '+' || port[0] == '0' {
		return fmt.Errorf("authority %q has no valid port", a)
	}
	if !validHost(host) {
		return fmt.Errorf("authority %q has no valid host", a)
	}
	return nil
}

// requestFields are the parts of a header block that a server looks at.
type requestFields struct {
	Request
	method, scheme, path string
	hasScheme, hasPath   bool
	contentLength        int64 // -1: none
}

// errMalformed makes a stream error of type PROTOCOL_ERROR (RFC 9113 section 8.1.1).
var errMalformed = errors.New("malformed header block")

// parseRequest reads the request's fields. The Framer has checked names, values and
// that pseudo-header fields are known, unique and first.
func parseRequest(fields []hpack.HeaderField) (requestFields, error) {
	q := requestFields{contentLength: -1}
	hasAuthority := false
	for _, f := range fields {
		switch f.Name {
		case ":method":
			q.method = f.Value
		case ":authority":
			q.Authority, hasAuthority = f.Value, true
		case ":scheme":
			q.scheme, q.hasScheme = f.Value, true
		case ":path":
			q.path, q.hasPath = f.Value, true
		case ":status", ":protocol":
			// Extended CONNECT (RFC 8441) was not offered.
			return q, fmt.Errorf("%w: %s in a request", errMalformed, f.Name)
		default:
			if err := q.field(f); err != nil {
				return q, err
			}
		}
	}
	if q.method == "" {
		return q, fmt.Errorf("%w: no :method", errMalformed)
	}
	if q.method == "CONNECT" {
		if q.hasScheme || q.hasPath || !hasAuthority || q.Authority == "" {
			return q, fmt.Errorf("%w: CONNECT must have :authority and neither :scheme nor :path", errMalformed)
		}
		return q, nil
	}
	if q.scheme == "" || q.path == "" {
		return q, fmt.Errorf("%w: %s must have :scheme and :path", errMalformed, q.method)
	}
	return q, nil
}

// field takes one regular field. A field that must be single and comes twice makes
// the block malformed: two readers could see two different values.
func (q *requestFields) field(f hpack.HeaderField) error {
	var to *string
	switch f.Name {
	case fieldBaggage:
		to = &q.Baggage
		if *to != "" {
			// Baggage may be split (W3C Baggage section 3.3.1).
			*to += "," + f.Value
			return nil
		}
	case fieldForwarded:
		to = &q.Forwarded
	case fieldTraceparent:
		to = &q.Traceparent
	case fieldForwardedNetwork:
		to = &q.ForwardedNetwork
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 62)
		if err != nil || q.contentLength >= 0 && q.contentLength != int64(n) || f.Value[0] == '+' {
			return fmt.Errorf("%w: content-length %q", errMalformed, f.Value)
		}
		q.contentLength = int64(n)
		return nil
	case "host":
		return nil
	default:
		return connectionField(f)
	}
	if *to != "" {
		return fmt.Errorf("%w: %s twice", errMalformed, f.Name)
	}
	*to = f.Value
	return nil
}

// connectionField refuses the fields that belong to a connection of HTTP/1 (RFC 9113
// section 8.2.2).
func connectionField(f hpack.HeaderField) error {
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return fmt.Errorf("%w: %s", errMalformed, f.Name)
	case "te":
		if f.Value != "trailers" {
			return fmt.Errorf("%w: te other than trailers", errMalformed)
		}
	}
	return nil
}

// parseResponse reads the answer's fields.
func parseResponse(fields []hpack.HeaderField) (Response, error) {
	var p Response
	for _, f := range fields {
		switch {
		case f.Name == ":status":
			n, err := strconv.ParseUint(f.Value, 10, 16)
			if err != nil || len(f.Value) != 3 || n < 100 {
				return p, fmt.Errorf("%w: status %q", errMalformed, f.Value)
			}
			p.Status = int(n)
		case f.IsPseudo():
			return p, fmt.Errorf("%w: %s in a response", errMalformed, f.Name)
		case f.Name == fieldBaggage:
			if p.Baggage != "" {
				p.Baggage += ","
			}
			p.Baggage += f.Value
		default:
			if err := connectionField(f); err != nil {
				return p, err
			}
		}
	}
	if p.Status == 0 {
		return p, fmt.Errorf("%w: no status", errMalformed)
	}
	return p, nil
}
