package h3

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/quic-go/quic-go/quicvarint"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// These tests are inside the package: the parsers have no other door, and a
// peer that breaks the rules cannot be built from quic-go's own HTTP/3.

func frame(typ uint64, payload string) []byte {
	b := quicvarint.Append(nil, typ)
	b = quicvarint.Append(b, uint64(len(payload)))
	return append(b, payload...)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestDeframer(t *testing.T) {
	long := make([]byte, dataHeaderBytes)
	putDataHeader(long, 3)
	for name, tc := range map[string]struct {
		in   []byte
		want string
		code code // of the error; 0 for none
	}{
		"nothing":             {},
		"frames":              {in: join(frame(frameData, "ab"), frame(frameData, ""), frame(frameData, "c")), want: "abc"},
		"length of four":      {in: join(long, []byte("xyz"), frame(frameData, "!")), want: "xyz!"},
		"unknown frames":      {in: join(frame(0x21, "grease"), frame(frameData, "ab"), frame(0x4000, ""), frame(frameData, "c")), want: "abc"},
		"fields":              {in: join(frame(frameData, "ab"), frame(frameHeaders, "")), want: "ab", code: codeFrameUnexpected},
		"settings":            {in: frame(frameSettings, ""), code: codeFrameUnexpected},
		"frame of HTTP/2":     {in: frame(0x6, "ping"), code: codeFrameUnexpected},
		"cut in the payload":  {in: frame(frameData, "ab")[:3], want: "a", code: codeFrameError},
		"cut in the header":   {in: []byte{frameData}, code: codeFrameError},
		"too much of nothing": {in: join(quicvarint.Append([]byte{0x21}, maxIgnoredBytes)), code: codeExcessiveLoad},
	} {
		for step := 1; step <= len(tc.in)+1; step++ {
			var d deframer
			var got []byte
			var err error
			for rest := bytes.Clone(tc.in); len(rest) > 0 && err == nil; {
				b := rest[:min(step, len(rest))]
				rest = rest[len(b):]
				var n int
				n, err = d.strip(b)
				got = append(got, b[:n]...)
			}
			if err == nil {
				err = d.end()
			}
			if string(got) != tc.want || codeOf(err) != tc.code {
				t.Errorf("%s in steps of %d: %q, %v; want %q, code %#x", name, step, got, err, tc.want, tc.code)
			}
		}
	}
}

func codeOf(err error) code {
	if pe, ok := errors.AsType[*protocolError](err); ok {
		return pe.code
	}
	return 0
}

func FuzzDeframer(f *testing.F) {
	f.Add(join(frame(frameData, "ab"), frame(0x21, "grease"), frame(frameData, "c")), uint8(3))
	f.Add(frame(frameHeaders, ""), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		whole := bytes.Clone(in)
		var one, many deframer
		n, wholeErr := one.strip(whole)
		var got []byte
		var err error
		for rest := bytes.Clone(in); len(rest) > 0 && err == nil; {
			b := rest[:min(int(step)+1, len(rest))]
			rest = rest[len(b):]
			var m int
			m, err = many.strip(b)
			got = append(got, b[:m]...)
		}
		if !bytes.Equal(got, whole[:n]) || codeOf(err) != codeOf(wholeErr) {
			t.Errorf("at once %q, %v; in steps %q, %v", whole[:n], wholeErr, got, err)
		}
	})
}

func TestFieldSectionComesFirst(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []byte
		want string
		code code
	}{
		"at once":          {in: frame(frameHeaders, "block"), want: "block"},
		"behind greasing":  {in: join(frame(0x21, "grease"), frame(frameHeaders, "block")), want: "block"},
		"nothing":          {code: codeRequestIncomplete},
		"only greasing":    {in: frame(0x21, "grease"), code: codeRequestIncomplete},
		"header cut":       {in: []byte{frameHeaders}, code: codeRequestIncomplete},
		"payload cut":      {in: frame(frameHeaders, "block")[:4], code: codeFrameError},
		"payload missing":  {in: frame(frameHeaders, "block")[:2], code: codeFrameError},
		"greasing cut":     {in: frame(0x21, "grease")[:4], code: codeFrameError},
		"too long":         {in: frame(frameHeaders, "a block that is too long"), code: codeExcessiveLoad},
		"data":             {in: frame(frameData, "x"), code: codeFrameUnexpected},
		"endless greasing": {in: quicvarint.Append([]byte{0x21}, 1<<60), code: codeExcessiveLoad},
	} {
		block, err := readFieldSection(bytes.NewReader(tc.in), 16)
		if string(block) != tc.want || codeOf(err) != tc.code {
			t.Errorf("%s: %q, %v; want %q, code %#x", name, block, err, tc.want, tc.code)
		}
	}
}

func TestControlStream(t *testing.T) {
	settingsFrame := appendSettings(nil, 1000)
	for name, tc := range map[string]struct {
		in         []byte
		fromServer bool
		code       code // 0: it ends with the stream
		goAway     uint64
	}{
		"settings":             {in: settingsFrame},
		"goaway":               {in: join(settingsFrame, appendGoAway(nil, 8)), fromServer: true, goAway: 8},
		"greasing":             {in: join(settingsFrame, frame(0x21, "grease"), appendGoAway(nil, 4)), goAway: 4},
		"max push id":          {in: join(settingsFrame, frame(frameMaxPushID, "\x01"))},
		"server's max push id": {in: join(settingsFrame, frame(frameMaxPushID, "\x01")), fromServer: true, code: codeFrameUnexpected},
		"no settings":          {in: appendGoAway(nil, 8), code: codeMissingSettings},
		"settings twice":       {in: join(settingsFrame, settingsFrame), code: codeFrameUnexpected},
		"data":                 {in: join(settingsFrame, frame(frameData, "x")), code: codeFrameUnexpected},
		"fields":               {in: join(settingsFrame, frame(frameHeaders, "x")), code: codeFrameUnexpected},
		"setting twice":        {in: frame(frameSettings, "\x06\x01\x06\x01"), code: codeSettings},
		"setting of HTTP/2":    {in: frame(frameSettings, "\x02\x01"), code: codeSettings},
		"setting cut":          {in: frame(frameSettings, "\x06"), code: codeFrameError},
		"huge settings":        {in: quicvarint.Append([]byte{frameSettings}, 1<<40), code: codeExcessiveLoad},
		"goaway too long":      {in: join(settingsFrame, frame(frameGoAway, "\x08\x08")), code: codeFrameError},
		"goaway empty":         {in: join(settingsFrame, frame(frameGoAway, "")), code: codeFrameError},
		"huge greasing":        {in: join(settingsFrame, quicvarint.Append([]byte{0x21}, 1<<40)), code: codeExcessiveLoad},
	} {
		var goAway uint64
		err := readControl(bytes.NewReader(tc.in), tc.fromServer, func(id uint64) error {
			goAway = id
			return nil
		})
		if codeOf(err) != tc.code || goAway != tc.goAway {
			t.Errorf("%s: %v, GOAWAY %d; want code %#x, GOAWAY %d", name, err, goAway, tc.code, tc.goAway)
		}
		if tc.code == 0 && !errors.Is(noEOF(err), io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v, want the end of the stream", name, err)
		}
	}
}

func TestControlStreamIsBounded(t *testing.T) {
	endless := io.MultiReader(bytes.NewReader(appendSettings(nil, 1)), repeat(frame(0x21, "grease")))
	err := readControl(endless, true, func(uint64) error { return nil })
	if codeOf(err) != codeExcessiveLoad {
		t.Errorf("endless control stream: %v", err)
	}
}

type repeat []byte

func (r repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(r) <= len(p) {
		n += copy(p[n:], r)
	}
	if n == 0 {
		return copy(p, r[:1]), nil
	}
	return n, nil
}

func TestQPACKEncoderStream(t *testing.T) {
	if err := readQPACKEncoder(bytes.NewReader([]byte{0x20, 0x20})); err != io.EOF {
		t.Errorf("capacity of nothing: %v", err)
	}
	if err := readQPACKEncoder(bytes.NewReader([]byte{0x3f, 0x01})); codeOf(err) != codeQPACKEncoderStream {
		t.Errorf("capacity of something: %v", err)
	}
}

func FuzzControlStream(f *testing.F) {
	f.Add(join(appendSettings(nil, 1000), appendGoAway(nil, 8)), true)
	f.Add(frame(frameSettings, "\x06\x01\x06\x01"), false)
	f.Fuzz(func(t *testing.T, in []byte, fromServer bool) {
		err := readControl(bytes.NewReader(in), fromServer, func(uint64) error { return nil })
		if err == nil {
			t.Error("a control stream ended well")
		}
	})
}

func FuzzRequest(f *testing.F) {
	block := func(b []byte, err error) []byte {
		b, _ = readFieldSection(bytes.NewReader(b), maxRequestFieldsBytes)
		return b
	}
	f.Add(block(appendRequest(nil, hbone.Request{Authority: "10.0.0.7:80", Baggage: "a=b", Forwarded: "for=x", Traceparent: "00", ForwardedNetwork: "w"})))
	f.Add(block(appendResponse(nil, 200, "a=b")))
	f.Fuzz(func(t *testing.T, in []byte) {
		method, r, err := parseRequest(in)
		if err != nil || method != "CONNECT" {
			return
		}
		// What was understood can be said again, and means the same.
		frame, err := appendRequest(nil, r)
		if err != nil {
			return // joined lists may exceed the limit
		}
		if _, again, err := parseRequest(block(frame, nil)); err != nil || again != r {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

func FuzzResponse(f *testing.F) {
	b, _ := appendResponse(nil, 200, "a=b")
	f.Add(b[2:])
	f.Fuzz(func(t *testing.T, in []byte) {
		resp, err := parseResponse(in)
		if err == nil && (resp.Status < 100 || resp.Status > 999) {
			t.Errorf("status %d", resp.Status)
		}
	})
}
