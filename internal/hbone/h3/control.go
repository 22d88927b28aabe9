package h3

import (
	"errors"
	"io"

	"github.com/quic-go/quic-go"
)

// Types of unidirectional streams (RFC 9114 section 6.2, RFC 9204 section 4.2).
const (
	uniControl      = 0x0
	uniPush         = 0x1
	uniQPACKEncoder = 0x2
	uniQPACKDecoder = 0x3
)

// serveUni handles one unidirectional stream of the peer and returns the error
// that ends the connection, if any.
func (c *conn) serveUni(s *quic.ReceiveStream) error {
	typ, err := readVarint(s)
	if err != nil {
		// A stream may end before its type (RFC 9114 section 6.2).
		return nil
	}
	switch typ {
	case uniControl, uniQPACKEncoder, uniQPACKDecoder:
		if !c.firstUni(typ) {
			return connError(codeStreamCreation, "second stream of type %#x", typ)
		}
	}
	switch typ {
	case uniControl:
		err = readControl(s, c.fromServer, c.onGoAway)
	case uniQPACKEncoder:
		err = readQPACKEncoder(s)
	case uniQPACKDecoder:
		// Acknowledgements of a dynamic table that is never used mean nothing.
		_, err = io.Copy(io.Discard, s)
		if err == nil {
			err = io.EOF
		}
	case uniPush:
		if c.fromServer {
			return connError(codeID, "push was not allowed")
		}
		return connError(codeStreamCreation, "push stream of a client")
	default:
		s.CancelRead(quic.StreamErrorCode(codeStreamCreation))
		return nil
	}
	// These streams must stay open as long as the connection (RFC 9114 section 6.2.1).
	if _, reset := errors.AsType[*quic.StreamError](err); reset || errors.Is(noEOF(err), io.ErrUnexpectedEOF) {
		return connError(codeClosedCriticalStream, "stream of type %#x closed", typ)
	}
	return err
}

func (c *conn) firstUni(typ uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seenUni[typ] {
		return false
	}
	c.seenUni[typ] = true
	return true
}

// readControl reads a control stream to its end, which is an error in any case.
func readControl(r io.Reader, fromServer bool, onGoAway func(uint64) error) error {
	// One byte beyond the limit tells it from a stream that ended.
	limited := &io.LimitedReader{R: r, N: maxControlBytes + 1}
	err := readControlFrames(limited, fromServer, onGoAway)
	if limited.N == 0 {
		return connError(codeExcessiveLoad, "more than %d bytes on the control stream", maxControlBytes)
	}
	return err
}

func readControlFrames(r io.Reader, fromServer bool, onGoAway func(uint64) error) error {
	for first := true; ; first = false {
		typ, length, err := readFrameHeader(r)
		if err != nil {
			return err
		}
		if first != (typ == frameSettings) {
			if first {
				return connError(codeMissingSettings, "control stream begins with frame of type %#x", typ)
			}
			return connError(codeFrameUnexpected, "second SETTINGS frame")
		}
		switch {
		case typ == frameSettings || typ == frameGoAway:
			if length > maxSettingsBytes {
				return connError(codeExcessiveLoad, "control frame of %d bytes, limit %d", length, maxSettingsBytes)
			}
			payload := make([]byte, length)
			if _, err := io.ReadFull(r, payload); err != nil {
				return noEOF(err)
			}
			if err := handleControl(typ, payload, onGoAway); err != nil {
				return err
			}
			continue
		case typ == frameMaxPushID && !fromServer, typ == frameCancelPush:
			// Nothing is ever pushed.
		case knownFrame(typ):
			return connError(codeFrameUnexpected, "frame of type %#x on the control stream", typ)
		}
		if length > maxControlBytes {
			return connError(codeExcessiveLoad, "control frame of %d bytes, limit %d", length, maxControlBytes)
		}
		if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
			return noEOF(err)
		}
	}
}

func handleControl(typ uint64, payload []byte, onGoAway func(uint64) error) error {
	if typ == frameGoAway {
		id, err := parseGoAway(payload)
		if err != nil {
			return err
		}
		return onGoAway(id)
	}
	return checkSettings(payload)
}

// readQPACKEncoder reads the peer's QPACK encoder stream to its end. Our
// dynamic table has no room, so that setting its capacity to nothing is the
// only instruction that it can obey (RFC 9204 section 4.3.1).
func readQPACKEncoder(r io.Reader) error {
	const setCapacityZero = 0x20
	var b [64]byte
	for {
		n, err := r.Read(b[:])
		for _, instruction := range b[:n] {
			if instruction != setCapacityZero {
				return connError(codeQPACKEncoderStream, "instruction %#x for a table of no capacity", instruction)
			}
		}
		if err != nil {
			return err
		}
	}
}
