package h3

import (
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go/quicvarint"
)

// Frame types (RFC 9114 section 7.2).
const (
	frameData        = 0x0
	frameHeaders     = 0x1
	frameCancelPush  = 0x3
	frameSettings    = 0x4
	framePushPromise = 0x5
	frameGoAway      = 0x7
	frameMaxPushID   = 0xd
)

// protocolError is a breach of HTTP/3 by the peer. Most end the connection;
// onStream ones end only the stream that they were seen on.
type protocolError struct {
	code     code
	onStream bool
	text     string
}

func (e *protocolError) Error() string { return "h3: " + e.text }

func connError(c code, format string, args ...any) error {
	return &protocolError{code: c, text: fmt.Sprintf(format, args...)}
}

func streamError(c code, format string, args ...any) error {
	return &protocolError{code: c, onStream: true, text: fmt.Sprintf(format, args...)}
}

// reservedFrame tells the types that HTTP/2 used and HTTP/3 forbids (RFC 9114 section 7.2.8).
func reservedFrame(typ uint64) bool {
	return typ == 0x2 || typ == 0x6 || typ == 0x8 || typ == 0x9
}

// readVarint reads one QUIC integer. It reads byte by byte, for it must take
// nothing beyond; it is used for a handful of frames per stream.
func readVarint(r io.Reader) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return 0, err
	}
	n := 1 << (b[0] >> 6)
	if _, err := io.ReadFull(r, b[1:n]); err != nil {
		return 0, noEOF(err)
	}
	v, _, err := quicvarint.Parse(b[:n])
	return v, err
}

// readFrameHeader returns io.EOF only at the boundary between frames.
func readFrameHeader(r io.Reader) (typ, length uint64, err error) {
	if typ, err = readVarint(r); err != nil {
		return 0, 0, err
	}
	length, err = readVarint(r)
	return typ, length, noEOF(err)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readFieldSection reads up to and including the first HEADERS frame of a
// request stream and returns its payload of at most limit bytes.
func readFieldSection(r io.Reader, limit uint64) ([]byte, error) {
	var ignored uint64
	for {
		typ, length, err := readFrameHeader(r)
		switch {
		case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
			return nil, streamError(codeRequestIncomplete, "stream ended before its fields")
		case err != nil:
			return nil, err
		case typ == frameHeaders:
			if length > limit {
				return nil, streamError(codeExcessiveLoad, "field section of %d bytes, limit %d", length, limit)
			}
			block := make([]byte, length)
			if _, err := io.ReadFull(r, block); err != nil {
				if errors.Is(noEOF(err), io.ErrUnexpectedEOF) {
					return nil, connError(codeFrameError, "HEADERS frame cut short")
				}
				return nil, err
			}
			return block, nil
		case knownFrame(typ):
			return nil, connError(codeFrameUnexpected, "frame of type %#x before the fields", typ)
		}
		ignored += length + 2
		if ignored > maxIgnoredBytes {
			return nil, streamError(codeExcessiveLoad, "more than %d ignored bytes", maxIgnoredBytes)
		}
		if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
			if err == io.EOF {
				return nil, connError(codeFrameError, "frame of type %#x cut short", typ)
			}
			return nil, err
		}
	}
}

// knownFrame tells the types that have a meaning or are forbidden; every other
// one is ignored (RFC 9114 section 9).
func knownFrame(typ uint64) bool {
	switch typ {
	case frameData, frameHeaders, frameCancelPush, frameSettings, framePushPromise, frameGoAway, frameMaxPushID:
		return true
	}
	return reservedFrame(typ)
}

// dataHeaderBytes is the room that appendDataHeader takes: the type and a
// length of always four bytes (RFC 9000 section 16 allows more than the
// shortest form), so that a buffer can be filled behind it before the length is known.
const dataHeaderBytes = 5

func putDataHeader(b []byte, length int) {
	b[0] = frameData
	quicvarint.AppendWithLen(b[1:1], uint64(length), 4)
}

// deframer removes the framing from the body of a CONNECT stream, where only
// DATA frames and frames of unknown types may stand (RFC 9114 section 4.4). The
// zero value expects a frame.
type deframer struct {
	header [16]byte // an incomplete type and length
	have   int
	// left counts the bytes of the current frame's payload still to come.
	left    uint64
	skip    bool
	ignored uint64
}

// strip removes the framing from b in place and returns how many bytes of
// payload stand at the start of b afterwards. It keeps an incomplete frame for
// the next call.
func (d *deframer) strip(b []byte) (int, error) {
	n := 0
	for i := 0; i < len(b); {
		if d.left == 0 {
			d.header[d.have] = b[i]
			d.have++
			i++
			if err := d.begin(); err != nil {
				return n, err
			}
			continue
		}
		m := int(min(d.left, uint64(len(b)-i)))
		if !d.skip {
			n += copy(b[n:], b[i:i+m])
		}
		d.left -= uint64(m)
		i += m
	}
	return n, nil
}

// begin starts a frame when its header is complete.
func (d *deframer) begin() error {
	typeBytes := 1 << (d.header[0] >> 6)
	if d.have <= typeBytes {
		return nil
	}
	lengthBytes := 1 << (d.header[typeBytes] >> 6)
	if d.have < typeBytes+lengthBytes {
		return nil
	}
	// Parse fails only on short input.
	typ, _, _ := quicvarint.Parse(d.header[:typeBytes])
	length, _, _ := quicvarint.Parse(d.header[typeBytes:d.have])
	d.skip = typ != frameData
	if d.skip && knownFrame(typ) {
		return connError(codeFrameUnexpected, "frame of type %#x in a tunnel", typ)
	}
	if d.skip || length == 0 {
		d.ignored += uint64(d.have)
		if d.skip {
			d.ignored += length
		}
		if d.ignored > maxIgnoredBytes {
			return streamError(codeExcessiveLoad, "more than %d ignored bytes", maxIgnoredBytes)
		}
	}
	d.have = 0
	d.left = length
	return nil
}

// end tells whether the stream may end here (RFC 9114 section 7.1).
func (d *deframer) end() error {
	if d.have > 0 || d.left > 0 {
		return connError(codeFrameError, "frame cut short")
	}
	return nil
}
