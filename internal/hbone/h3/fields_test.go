package h3

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/quic-go/qpack"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

func section(fields ...string) []byte {
	var b bytes.Buffer
	enc := qpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func TestRequestFields(t *testing.T) {
	connect := []string{":method", "CONNECT", ":authority", "10.0.0.7:80"}
	with := func(more ...string) []byte { return section(append(connect[:4:4], more...)...) }
	want := hbone.Request{Authority: "10.0.0.7:80"}
	listed := want
	listed.Baggage = "a=1,b=2"
	for name, tc := range map[string]struct {
		in     []byte
		method string
		want   hbone.Request
		code   code
	}{
		"plain":                  {in: with(), method: "CONNECT", want: want},
		"unknown field":          {in: with("x-other", "1", "x-other", "2"), method: "CONNECT", want: want},
		"list in two fields":     {in: with("baggage", "a=1", "baggage", "b=2"), method: "CONNECT", want: listed},
		"other method":           {in: section(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"), method: "GET", want: hbone.Request{Authority: "a"}},
		"no method":              {in: section(":authority", "a:1"), code: codeMessage},
		"nothing":                {in: section(), code: codeQPACKDecompression},
		"no authority":           {in: section(":method", "CONNECT"), code: codeMessage},
		"with path":              {in: with(":path", "/"), code: codeMessage},
		"with scheme":            {in: with(":scheme", "https"), code: codeMessage},
		"extended":               {in: with(":protocol", "connect-udp"), code: codeMessage},
		"status":                 {in: with(":status", "200"), code: codeMessage},
		"GET without path":       {in: section(":method", "GET", ":scheme", "https", ":authority", "a"), code: codeMessage},
		"authority twice":        {in: with(":authority", "10.0.0.8:80"), code: codeMessage},
		"pseudo-header late":     {in: section(":method", "CONNECT", "x-other", "1", ":authority", "a:1"), code: codeMessage},
		"traceparent twice":      {in: with("traceparent", "1", "traceparent", "2"), code: codeMessage},
		"forwarded twice":        {in: with("forwarded", "for=a", "forwarded", "for=b"), code: codeMessage},
		"te":                     {in: with("te", "gzip"), code: codeMessage},
		"network twice":          {in: with("x-forwarded-network", "1", "x-forwarded-network", "2"), code: codeMessage},
		"upper case":             {in: with("Baggage", "a=1"), code: codeMessage},
		"line feed":              {in: with("baggage", "a=1\nb: 2"), code: codeMessage},
		"connection-specific":    {in: with("connection", "close"), code: codeMessage},
		"dynamic table":          {in: []byte{0x02, 0x00, 0x80}, code: codeQPACKDecompression},
		"unknown static entry":   {in: []byte{0x00, 0x00, 0xff, 0x50}, code: codeQPACKDecompression},
		"cut":                    {in: with()[:7], code: codeQPACKDecompression},
		"name of the empty kind": {in: with("", "1"), code: codeMessage},
	} {
		method, r, err := parseRequest(tc.in)
		if codeOf(err) != tc.code || err == nil && (method != tc.method || r != tc.want) {
			t.Errorf("%s: %s %+v, %v; want %s %+v, code %#x", name, method, r, err, tc.method, tc.want, tc.code)
		}
	}
}

func TestFieldsCutAnywhereFail(t *testing.T) {
	whole := section(":method", "CONNECT", ":authority", "10.0.0.7:80", "baggage", "a=1")
	for n := range whole {
		if _, r, err := parseRequest(whole[:n]); err == nil && r.Baggage != "" {
			t.Errorf("the first %d bytes of %d passed as %+v", n, len(whole), r)
		}
	}
}

func TestFieldsAreBounded(t *testing.T) {
	// 32 more bytes count per field, so that many small ones do not pass either.
	small := make([]string, 0, 4000)
	for range 2000 {
		small = append(small, "x", "y")
	}
	for name, in := range map[string][]byte{
		"one large":  section(":method", "CONNECT", ":authority", "a:1", "baggage", strings.Repeat("a", maxRequestFieldsBytes)),
		"many small": section(append([]string{":method", "CONNECT", ":authority", "a:1"}, small...)...),
	} {
		if _, _, err := parseRequest(in); !errors.Is(err, errFieldsTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := appendRequest(nil, hbone.Request{Authority: "a:1", Baggage: strings.Repeat("a", maxRequestFieldsBytes)}); err == nil {
		t.Error("a request beyond the limit was encoded")
	}
	if _, err := appendRequest(nil, hbone.Request{Authority: "a:1", Baggage: "a\r\nb: c"}); err == nil {
		t.Error("a line break was encoded")
	}
}

func TestResponseFields(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []byte
		want hbone.Response
		code code
	}{
		"plain":       {in: section(":status", "200"), want: hbone.Response{Status: 200}},
		"baggage":     {in: section(":status", "200", "baggage", "a=b", "date", "x"), want: hbone.Response{Status: 200, Baggage: "a=b"}},
		"no status":   {in: section("date", "x"), code: codeMessage},
		"two":         {in: section(":status", "200", ":status", "200"), code: codeMessage},
		"request's":   {in: section(":status", "200", ":path", "/"), code: codeMessage},
		"not numeric": {in: section(":status", "2x0"), code: codeMessage},
		"signed":      {in: section(":status", "+20"), code: codeMessage},
		"too small":   {in: section(":status", "099"), code: codeMessage},
		"too long":    {in: section(":status", "2000"), code: codeMessage},
	} {
		resp, err := parseResponse(tc.in)
		if codeOf(err) != tc.code || err == nil && resp != tc.want {
			t.Errorf("%s: %+v, %v; want %+v, code %#x", name, resp, err, tc.want, tc.code)
		}
	}
}

func TestCodesSurviveTheWayThereAndBack(t *testing.T) {
	for _, c := range []hbone.ErrCode{
		hbone.CodeNo, hbone.CodeProtocol, hbone.CodeInternal, hbone.CodeFrameSize, hbone.CodeRefusedStream,
		hbone.CodeCancel, hbone.CodeCompression, hbone.CodeConnect, hbone.CodeEnhanceCalm,
	} {
		if got := fromH3(toH3(c)); got != c {
			t.Errorf("%#x became %#x", c, got)
		}
	}
	for _, c := range []hbone.ErrCode{hbone.CodeFlowControl, hbone.CodeStreamClosed, hbone.CodeInadequate} {
		if got := fromH3(toH3(c)); got != hbone.CodeProtocol {
			t.Errorf("%#x became %#x", c, got)
		}
	}
	if got := fromH3(0x12345); got != hbone.CodeNo {
		t.Errorf("unknown code became %#x", got)
	}
}
