package hpack_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/http2/hpack"
)

func BenchmarkEncode(b *testing.B) {
	var enc hpack.Encoder
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = enc.Begin(buf[:0])
		for _, p := range typicalHead {
			buf = enc.Append(buf, p.name, p.value)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	var enc hpack.Encoder
	dec := newDecoder()
	fields := make([]hpack.Field, 0, 32)
	var block []byte
	for range 3 {
		block = enc.Begin(nil)
		for _, p := range typicalHead {
			block = enc.Append(block, p.name, p.value)
		}
		fields, _ = dec.Decode(block, fields[:0])
	}
	b.ReportAllocs()
	for b.Loop() {
		fields, _ = dec.Decode(block, fields[:0])
	}
}

// BenchmarkDecodeLiterals is what a client's first head costs.
func BenchmarkDecodeLiterals(b *testing.B) {
	var enc hpack.Encoder
	block := enc.Begin(nil)
	for _, p := range typicalHead {
		block = enc.Append(block, p.name, p.value)
	}
	dec := newDecoder()
	fields := make([]hpack.Field, 0, 32)
	b.ReportAllocs()
	for b.Loop() {
		fields, _ = dec.Decode(block, fields[:0])
	}
}
