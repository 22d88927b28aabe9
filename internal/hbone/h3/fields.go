package h3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http/httpguts"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// The header fields that HBONE knows besides the pseudo-header fields.
const (
	fieldBaggage          = "baggage"
	fieldForwarded        = "forwarded"
	fieldTraceparent      = "traceparent"
	fieldForwardedNetwork = "x-forwarded-network"
)

// fieldOverheadBytes is added per field when the size of a section is counted (RFC 9114 section 4.2.2).
const fieldOverheadBytes = 32

// appendRequest appends a HEADERS frame with the CONNECT request. It fails when a value cannot be sent in a field.
func appendRequest(b []byte, r hbone.Request) ([]byte, error) {
	return appendFields(b, maxRequestFieldsBytes, []qpack.HeaderField{
		{Name: ":method", Value: "CONNECT"},
		{Name: ":authority", Value: r.Authority},
		{Name: fieldBaggage, Value: r.Baggage},
		{Name: fieldForwarded, Value: r.Forwarded},
		{Name: fieldTraceparent, Value: r.Traceparent},
		{Name: fieldForwardedNetwork, Value: r.ForwardedNetwork},
	})
}

// appendResponse appends a HEADERS frame with the answer.
func appendResponse(b []byte, status int, baggage string) ([]byte, error) {
	return appendFields(b, maxResponseFieldsBytes, []qpack.HeaderField{
		{Name: ":status", Value: strconv.Itoa(status)},
		{Name: fieldBaggage, Value: baggage},
	})
}

// appendFields leaves out fields without value.
func appendFields(b []byte, limit int, fields []qpack.HeaderField) ([]byte, error) {
	var block bytes.Buffer
	enc := qpack.NewEncoder(&block)
	size := 0
	for _, f := range fields {
		if f.Value == "" {
			continue
		}
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			return nil, fmt.Errorf("h3: value of %s cannot be sent in a header field: %q", f.Name, f.Value)
		}
		size += len(f.Name) + len(f.Value) + fieldOverheadBytes
		if err := enc.WriteField(f); err != nil {
			return nil, err
		}
	}
	if size > limit {
		return nil, fmt.Errorf("h3: header fields of %d bytes, limit %d", size, limit)
	}
	b = quicvarint.Append(b, frameHeaders)
	b = quicvarint.Append(b, uint64(block.Len()))
	return append(b, block.Bytes()...), nil
}

// errFieldsTooLarge says that the decoded field section is over its limit.
var errFieldsTooLarge = errors.New("h3: field section too large")

// fieldSection is a decoded field section: its pseudo-header fields, and those of the others that HBONE knows.
type fieldSection struct {
	pseudo, regular map[string]string
}

// decodeFields decodes a field section of at most limit bytes. A malformed one
// is an error of the stream (RFC 9114 section 4.1.2), one that QPACK cannot
// decode an error of the connection (RFC 9204 section 6).
func decodeFields(block []byte, limit int) (fieldSection, error) {
	s := fieldSection{pseudo: map[string]string{}, regular: map[string]string{}}
	next := qpack.NewDecoder().Decode(block)
	for {
		f, err := next()
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return s, connError(codeQPACKDecompression, "decode field section: %v", err)
		}
		limit -= len(f.Name) + len(f.Value) + fieldOverheadBytes
		if limit < 0 {
			return s, errFieldsTooLarge
		}
		if err := s.add(f); err != nil {
			return s, err
		}
	}
}

func (s *fieldSection) add(f qpack.HeaderField) error {
	if !httpguts.ValidHeaderFieldValue(f.Value) {
		return streamError(codeMessage, "invalid value of field %q", f.Name)
	}
	if name, ok := strings.CutPrefix(f.Name, ":"); ok {
		if len(s.regular) > 0 {
			return streamError(codeMessage, "pseudo-header field %q after other fields", f.Name)
		}
		if _, twice := s.pseudo[name]; twice {
			return streamError(codeMessage, "second pseudo-header field %q", f.Name)
		}
		s.pseudo[name] = f.Value
		return nil
	}
	if !httpguts.ValidHeaderFieldName(f.Name) || strings.ToLower(f.Name) != f.Name {
		return streamError(codeMessage, "invalid field name %q", f.Name)
	}
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return streamError(codeMessage, "connection-specific field %q", f.Name)
	case "te":
		if f.Value != "trailers" {
			return streamError(codeMessage, "te other than trailers")
		}
	case fieldBaggage:
		// It may be split (W3C Baggage section 3.3.1).
		if old := s.regular[f.Name]; old != "" {
			f.Value = old + "," + f.Value
		}
		s.regular[f.Name] = f.Value
	case fieldForwarded, fieldTraceparent, fieldForwardedNetwork:
		// Two readers could see two different values.
		if _, twice := s.regular[f.Name]; twice {
			return streamError(codeMessage, "second field %q", f.Name)
		}
		s.regular[f.Name] = f.Value
	default:
		// Unknown fields have no meaning here; one entry remembers that there was one.
		s.regular[""] = ""
	}
	return nil
}

// parseRequest decodes the field section of a request. Any method passes, so
// that the handler can refuse it with a status.
func parseRequest(block []byte) (method string, r hbone.Request, err error) {
	s, err := decodeFields(block, maxRequestFieldsBytes)
	if err != nil {
		return "", r, err
	}
	method = s.pseudo["method"]
	scheme, hasScheme := s.pseudo["scheme"]
	path, hasPath := s.pseudo["path"]
	known := 0
	for _, name := range []string{"method", "authority", "scheme", "path"} {
		if _, ok := s.pseudo[name]; ok {
			known++
		}
	}
	switch {
	case method == "":
		return "", r, streamError(codeMessage, "request without method")
	case known != len(s.pseudo):
		// :protocol too: extended CONNECT (RFC 9220) was not offered.
		return "", r, streamError(codeMessage, "unknown pseudo-header field in request")
	case method == "CONNECT" && (hasScheme || hasPath):
		return "", r, streamError(codeMessage, "CONNECT with scheme or path")
	case method == "CONNECT" && s.pseudo["authority"] == "":
		return "", r, streamError(codeMessage, "CONNECT without authority")
	case method != "CONNECT" && (scheme == "" || path == ""):
		return "", r, streamError(codeMessage, "%s without scheme or path", method)
	}
	return method, hbone.Request{
		Authority:        s.pseudo["authority"],
		Baggage:          s.regular[fieldBaggage],
		Forwarded:        s.regular[fieldForwarded],
		Traceparent:      s.regular[fieldTraceparent],
		ForwardedNetwork: s.regular[fieldForwardedNetwork],
	}, nil
}

// parseResponse decodes the field section of an answer.
func parseResponse(block []byte) (hbone.Response, error) {
	s, err := decodeFields(block, maxResponseFieldsBytes)
	if err != nil {
		return hbone.Response{}, err
	}
	text, ok := s.pseudo["status"]
	status, err := strconv.ParseUint(text, 10, 16)
	if !ok || len(s.pseudo) != 1 || len(text) != 3 || err != nil || status < 100 {
		return hbone.Response{}, streamError(codeMessage, "answer without valid status")
	}
	return hbone.Response{Status: int(status), Baggage: s.regular[fieldBaggage]}, nil
}
