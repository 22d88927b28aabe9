package state

import "net/netip"

// keyBytes is room on the stack for a key: a network name, a separator, the
// family and 128 bits spelled one per byte. Longer networks only cost an
// allocation.
const keyBytes = 192

// addrKey forms the key of one address. Network names have no control
// characters (internal/workload), so NUL separates.
func addrKey(buf []byte, network string, a netip.Addr) []byte {
	buf = append(buf, network...)
	if a.Is4() {
		b := a.As4()
		buf = append(buf, 0, 4)
		return append(buf, b[:]...)
	}
	b := a.As16()
	buf = append(buf, 0, 6)
	return append(buf, b[:]...)
}

// rangeKey forms the key of a prefix with one byte per bit, so that the longest
// key that is a prefix of an address's full key is its longest matching prefix.
func rangeKey(buf []byte, network string, p netip.Prefix) []byte {
	buf = append(buf, network...)
	if p.Addr().Is4() {
		b := p.Addr().As4()
		return appendBits(append(buf, 0, 4), b[:], p.Bits())
	}
	b := p.Addr().As16()
	return appendBits(append(buf, 0, 6), b[:], p.Bits())
}

func appendBits(buf, b []byte, bits int) []byte {
	for i := range bits {
		buf = append(buf, b[i/8]>>(7-i%8)&1)
	}
	return buf
}
