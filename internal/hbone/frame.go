package hbone

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// frameHeaderLen is the length of every frame's header (RFC 9113 section 4.1).
const frameHeaderLen = 9

// frameHeader is a frame's header. DATA, nearly all of the traffic, is parsed here
// and handed on as it arrives; http2.Framer, which wants whole frames in memory of
// its own, parses the rest.
type frameHeader struct {
	length   int
	kind     http2.FrameType
	flags    http2.Flags
	streamID uint32
}

func parseFrameHeader(b []byte) frameHeader {
	return frameHeader{
		length:   int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:     http2.FrameType(b[3]),
		flags:    http2.Flags(b[4]),
		streamID: binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1),
	}
}

func (h frameHeader) has(f http2.Flags) bool { return h.flags.Has(f) }

// putFrameHeader writes a frame's header to the first nine octets of b.
func putFrameHeader(b []byte, length int, kind http2.FrameType, flags http2.Flags, streamID uint32) {
	_ = b[8]
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
	b[3], b[4] = byte(kind), byte(flags)
	binary.BigEndian.PutUint32(b[5:], streamID)
}
