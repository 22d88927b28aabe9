package h3

import (
	"github.com/quic-go/quic-go/quicvarint"
)

// Settings (RFC 9114 section 7.2.4.1).
const settingMaxFieldSectionSize = 0x6

// appendSettings appends our SETTINGS frame. QPACK's dynamic table stays at its
// default of nothing: it would tie the streams to each other for a few bytes
// per request.
func appendSettings(b []byte, maxFieldSectionBytes uint64) []byte {
	b = quicvarint.Append(b, frameSettings)
	b = quicvarint.Append(b, uint64(quicvarint.Len(settingMaxFieldSectionSize)+quicvarint.Len(maxFieldSectionBytes)))
	b = quicvarint.Append(b, settingMaxFieldSectionSize)
	return quicvarint.Append(b, maxFieldSectionBytes)
}

// checkSettings checks the payload of a SETTINGS frame. Nothing in it changes
// what we send: our field sections are small, and QPACK's table is not used.
func checkSettings(b []byte) error {
	seen := map[uint64]bool{}
	for len(b) > 0 {
		id, n, err := quicvarint.Parse(b)
		if err != nil {
			return connError(codeFrameError, "SETTINGS frame cut short")
		}
		_, m, err := quicvarint.Parse(b[n:])
		if err != nil {
			return connError(codeFrameError, "SETTINGS frame cut short")
		}
		b = b[n+m:]
		if seen[id] {
			return connError(codeSettings, "setting %#x twice", id)
		}
		seen[id] = true
		if id >= 0x2 && id <= 0x5 {
			return connError(codeSettings, "setting %#x of HTTP/2", id)
		}
	}
	return nil
}

// appendGoAway appends a GOAWAY frame: no request from stream id on was or will be handled.
func appendGoAway(b []byte, id uint64) []byte {
	b = quicvarint.Append(b, frameGoAway)
	b = quicvarint.Append(b, uint64(quicvarint.Len(id)))
	return quicvarint.Append(b, id)
}

// parseGoAway parses the payload of a GOAWAY frame.
func parseGoAway(b []byte) (uint64, error) {
	id, n, err := quicvarint.Parse(b)
	if err != nil || n != len(b) {
		return 0, connError(codeFrameError, "GOAWAY frame of wrong length")
	}
	return id, nil
}
