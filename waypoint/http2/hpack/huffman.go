package hpack

// huffmanLengths are the lengths in bits of the codes of all octets (RFC 7541,
// appendix B). The code is canonical: codes of one length are consecutive numbers in
// the order of their octets, so that the lengths tell all of it. The end-of-string
// symbol follows the last one, with 30 bits, all set.
var huffmanLengths = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

// huffmanStep says what the next eight bits of the input mean.
type huffmanStep struct {
	next  uint8 // another table that looks at the eight bits after these; 0: none
	octet byte
	bits  uint8 // how many of the eight bits belong to octet; 0 and no next: an error
}

// huffmanTables decode up to eight bits a step; the first one is where a code begins.
var huffmanTables = buildHuffman()

func buildHuffman() [][256]huffmanStep {
	tables := make([][256]huffmanStep, 1)
	code, length := uint32(0), uint8(0)
	for l := uint8(1); l <= 30; l++ {
		for octet := range 256 {
			if huffmanLengths[octet] != l {
				continue
			}
			code <<= l - length
			length = l
			table, left := 0, l
			for ; left > 8; left -= 8 {
				prefix := byte(code >> (left - 8))
				if tables[table][prefix].next == 0 {
					tables[table][prefix].next = uint8(len(tables))
					tables = append(tables, [256]huffmanStep{})
				}
				table = int(tables[table][prefix].next)
			}
			first := byte(code << (8 - left))
			for i := range 1 << (8 - left) {
				tables[table][int(first)+i] = huffmanStep{octet: byte(octet), bits: left}
			}
			code++
		}
	}
	return tables
}

// appendHuffman appends what src stands for. It reports false when src holds the
// end-of-string symbol, or ends with anything but fewer than eight bits of it (RFC
// 7541, 5.2).
func appendHuffman(dst, src []byte) ([]byte, bool) {
	var window uint64 // the low bits were read and not used
	var bits uint
	table := &huffmanTables[0]
	inside := false // eight bits or more of a code were used
	for _, b := range src {
		window = window<<8 | uint64(b)
		bits += 8
		for bits >= 8 {
			s := table[byte(window>>(bits-8))]
			switch {
			case s.next != 0:
				table, inside = &huffmanTables[s.next], true
				bits -= 8
				continue
			case s.bits == 0:
				return dst, false
			}
			dst = append(dst, s.octet)
			bits -= uint(s.bits)
			table, inside = &huffmanTables[0], false
		}
	}
	for bits > 0 {
		s := table[byte(window<<(8-bits))]
		if s.next != 0 || s.bits == 0 || uint(s.bits) > bits {
			break
		}
		dst = append(dst, s.octet)
		bits -= uint(s.bits)
		table, inside = &huffmanTables[0], false
	}
	ones := uint64(1)<<bits - 1
	return dst, !inside && window&ones == ones
}
