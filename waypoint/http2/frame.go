package http2

import "encoding/binary"

// preface is what a client's connection begins with (RFC 9113, 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frameHeaderLen is the length of every frame's header (RFC 9113, 4.1).
const frameHeaderLen = 9

// frameType is a type of frames (RFC 9113, 6).
type frameType uint8

const (
	frameData         frameType = 0x0
	frameHeaders      frameType = 0x1
	framePriority     frameType = 0x2
	frameRSTStream    frameType = 0x3
	frameSettings     frameType = 0x4
	framePushPromise  frameType = 0x5
	framePing         frameType = 0x6
	frameGoAway       frameType = 0x7
	frameWindowUpdate frameType = 0x8
	frameContinuation frameType = 0x9
)

// The flags of frames; a bit means what the type says.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// setting is a parameter of SETTINGS (RFC 9113, 6.5.2; RFC 8441, 3).
type setting uint16

const (
	settingHeaderTableSize   setting = 0x1
	settingEnablePush        setting = 0x2
	settingMaxStreams        setting = 0x3
	settingInitialWindowSize setting = 0x4
	settingMaxFrameSize      setting = 0x5
	settingMaxHeaderListSize setting = 0x6
	settingConnectProtocol   setting = 0x8
)

// frameHeader is a frame's header.
type frameHeader struct {
	length   int
	kind     frameType
	flags    uint8
	streamID uint32
}

func (h frameHeader) has(flag uint8) bool { return h.flags&flag != 0 }

func parseFrameHeader(b []byte) frameHeader {
	_ = b[8]
	return frameHeader{
		length:   int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:     frameType(b[3]),
		flags:    b[4],
		streamID: streamIn(b[5:]),
	}
}

// streamIn returns the stream's number that b begins with.
func streamIn(b []byte) uint32 { return binary.BigEndian.Uint32(b) & (1<<31 - 1) }

// putFrameHeader writes a frame's header to the first nine octets of b.
func putFrameHeader(b []byte, length int, kind frameType, flags uint8, streamID uint32) {
	_ = b[8]
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
	b[3], b[4] = byte(kind), flags
	binary.BigEndian.PutUint32(b[5:], streamID)
}

// appendFrameHeader appends a frame's header to b.
func appendFrameHeader(b []byte, length int, kind frameType, flags uint8, streamID uint32) []byte {
	var h [frameHeaderLen]byte
	putFrameHeader(h[:], length, kind, flags, streamID)
	return append(b, h[:]...)
}

// appendUint32Frame appends a frame whose payload is one number.
func appendUint32Frame(b []byte, kind frameType, streamID, v uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHeader(b, 4, kind, 0, streamID), v)
}

func appendSetting(b []byte, id setting, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, uint16(id)), v)
}

// What PING frames of ours say, so that their acknowledgements are told apart.
var (
	aliveMark = [8]byte{'a', 'l', 'i', 'v', 'e', '?'}
	drainMark = [8]byte{'d', 'r', 'a', 'i', 'n'}
	overMark  = [8]byte{'o', 'v', 'e', 'r'}
)
