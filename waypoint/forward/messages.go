package forward

import "encoding/binary"

// messages counts the messages of gRPC in content that passes (gRPC over HTTP/2,
// "Length-Prefixed-Message"): a flag, the length in four bytes, and the message. The
// zero value, and nil, count nothing.
type messages struct {
	wanted bool
	seen   int64
	// left is what is missing of the message, prefix of its n known bytes.
	left   uint32
	prefix [5]byte
	n      int
}

func (m *messages) count(p []byte) {
	if m == nil || !m.wanted {
		return
	}
	for len(p) > 0 {
		if m.left > 0 {
			k := min(uint64(m.left), uint64(len(p)))
			m.left -= uint32(k)
			p = p[k:]
			continue
		}
		k := copy(m.prefix[m.n:], p)
		m.n, p = m.n+k, p[k:]
		if m.n == len(m.prefix) {
			m.n, m.left = 0, binary.BigEndian.Uint32(m.prefix[1:])
			m.seen++
		}
	}
}
