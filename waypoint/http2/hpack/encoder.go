package hpack

import (
	"hash/maphash"
	"strconv"
	"strings"
)

// seed makes it impossible to choose names and values whose hashes collide.
var seed = maphash.MakeSeed()

func hash(s string) uint64 { return maphash.String(seed, s) }

// mix makes the hash of a pair of those of its parts.
func mix(name, value uint64) uint64 { return (name ^ value>>29 ^ value<<35) * 0x9e3779b97f4a7c15 }

const (
	// firstEntries is how many entries an Encoder first has memory for; it doubles. More
	// than TableSize/entryOverhead, which is 128, never are.
	firstEntries = 16
	// probes is how many slots a pair may be in.
	probes = 4
	// seenSlots is how many of the fields that it wrote lately an Encoder knows again.
	seenSlots = 128
)

// Encoder compresses the header blocks of one direction of a connection, in their
// order. The zero value is ready, and holds no memory until fields repeat. One
// goroutine may use it.
//
// Strings are written as they are: the Huffman code would save a quarter of their
// octets, for more time on both sides than a local network takes to carry them.
type Encoder struct {
	resized           bool // the largest size is to be told to the peer
	shrunk            int  // how far it is below TableSize
	size              int
	inserted, evicted uint32            // how many entries ever were
	entries           []encoderEntry    // number n is at n modulo their length, a power of two
	pairs             []uint32          // by mix: the number of an entry, counted from 1
	names             []uint32          // by the name's hash: the same
	seen              [seenSlots]uint16 // by mix: other bits of what was last seen there
}

// encoderEntry is a field of the table.
type encoderEntry struct{ name, value string }

func (e *encoderEntry) size() int { return len(e.name) + len(e.value) + entryOverhead }

// SetMaxSize tells what the peer's SETTINGS_HEADER_TABLE_SIZE is. Of several between
// two blocks the smallest counts: only that one must be told to the peer (RFC 7541,
// 4.2), and some decoders take no more than one update.
func (e *Encoder) SetMaxSize(octets uint32) {
	size := int(min(octets, TableSize))
	now := TableSize - e.shrunk
	if size == now || e.resized && size > now {
		return
	}
	e.resized = true
	e.shrunk = TableSize - size
	e.evict(0)
}

// Begin appends to dst what a block begins with.
func (e *Encoder) Begin(dst []byte) []byte {
	if !e.resized {
		return dst
	}
	e.resized = false
	return appendInteger(dst, 0x20, 5, TableSize-e.shrunk)
}

// Append appends a field to dst. Both strings may be kept only as copies.
func (e *Encoder) Append(dst []byte, name, value string) []byte {
	hn := hash(name)
	static := staticName(name, hn)
	if static != 0 {
		for i := static; i < len(staticTable) && staticTable[i].name == name; i++ {
			if staticTable[i].value == value {
				return appendInteger(dst, 0x80, 7, i)
			}
		}
	}
	index := static
	if secret(name) {
		// Nobody may learn from the lengths of blocks whether a guess was right (7.1.3).
		return appendLiteral(dst, 0x10, 4, index, name, value)
	}
	pair := mix(hn, hash(value))
	nameOf := staticTable[static].name
	if len(e.entries) > 0 {
		for i := range uint64(probes) {
			if n, ok := e.live(*slot(e.pairs, pair+i)); ok && *e.entry(n) == (encoderEntry{name, value}) {
				return appendInteger(dst, 0x80, 7, e.index(n))
			}
		}
		if n, ok := e.live(*slot(e.names, hn)); ok && static == 0 && e.entry(n).name == name {
			index, nameOf = e.index(n), e.entry(n).name
		}
	}
	mark := uint16(pair>>48) | 1
	if seen := &e.seen[pair>>32%seenSlots]; *seen != mark || len(name)+len(value)+entryOverhead > TableSize-e.shrunk {
		*seen = mark
		return appendLiteral(dst, 0, 4, index, name, value)
	}
	for n := e.evicted; n != e.inserted; n++ {
		if *e.entry(n) == (encoderEntry{name, value}) { // others have all its slots
			e.find(n)
			return appendInteger(dst, 0x80, 7, e.index(n))
		}
	}
	dst = appendLiteral(dst, 0x40, 6, index, name, value)
	if nameOf == "" {
		nameOf = strings.Clone(name)
	}
	e.insert(encoderEntry{nameOf, strings.Clone(value)})
	return dst
}

// secret tells which fields are never put into a table.
func secret(name string) bool {
	switch name {
	case "authorization", "proxy-authorization", "cookie", "set-cookie":
		return true
	}
	return false
}

// live returns the number of the entry that a slot names, if it is still there.
func (e *Encoder) live(slot uint32) (n uint32, ok bool) {
	n = slot - 1
	return n, slot != 0 && e.inserted-n <= e.inserted-e.evicted
}

// index returns the index of entry number n.
func (e *Encoder) index(n uint32) int { return len(staticTable) + int(e.inserted-1-n) }

func (e *Encoder) entry(n uint32) *encoderEntry { return &e.entries[n&uint32(len(e.entries)-1)] }

// slot returns the place of a hash; there is a power of two of them.
func slot(slots []uint32, h uint64) *uint32 { return &slots[h&uint64(len(slots)-1)] }

func (e *Encoder) insert(f encoderEntry) {
	e.evict(f.size())
	if int(e.inserted-e.evicted) == len(e.entries) {
		e.grow()
	}
	n := e.inserted
	e.inserted++
	e.size += f.size()
	*e.entry(n) = f
	e.find(n)
}

// find makes entry number n be found by pair and by name.
func (e *Encoder) find(n uint32) {
	f := e.entry(n)
	hn := hash(f.name)
	*slot(e.names, hn) = n + 1
	pair := mix(hn, hash(f.value))
	free := slot(e.pairs, pair)
	for i := range uint64(probes) {
		s := slot(e.pairs, pair+i)
		if _, ok := e.live(*s); !ok {
			free = s
			break
		}
	}
	*free = n + 1
}

// grow makes memory for twice as many entries.
func (e *Encoder) grow() {
	old := e.entries
	size := max(firstEntries, 2*len(old))
	e.entries = make([]encoderEntry, size)
	e.pairs, e.names = make([]uint32, 2*size), make([]uint32, 2*size)
	for n := e.evicted; n != e.inserted; n++ {
		*e.entry(n) = old[n&uint32(len(old)-1)]
		e.find(n)
	}
}

// evict makes room for an entry of that size.
func (e *Encoder) evict(size int) {
	for e.evicted != e.inserted && e.size+size > TableSize-e.shrunk {
		f := e.entry(e.evicted)
		e.size -= f.size()
		*f = encoderEntry{}
		e.evicted++
	}
}

// appendLiteral appends a field with its value, of the representation that first
// tells, and its name by index unless that is 0.
func appendLiteral(dst []byte, first byte, prefix uint8, index int, name, value string) []byte {
	dst = appendInteger(dst, first, prefix, index)
	if index == 0 {
		dst = append(appendInteger(dst, 0, 7, len(name)), name...)
	}
	return append(appendInteger(dst, 0, 7, len(value)), value...)
}

// appendInteger appends v with a prefix of n bits below first (RFC 7541, 5.1).
func appendInteger(dst []byte, first byte, n uint8, v int) []byte {
	limit := 1<<n - 1
	if v < limit {
		return append(dst, first|byte(v))
	}
	dst = append(dst, first|byte(limit))
	for v -= limit; v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}

// AppendInt appends a field whose value is a number, which is not put into the table.
func (e *Encoder) AppendInt(dst []byte, name string, v int64) []byte {
	var digits [20]byte
	value := strconv.AppendInt(digits[:0], v, 10)
	index := staticName(name, hash(name))
	dst = appendInteger(dst, 0, 4, index)
	if index == 0 {
		dst = append(appendInteger(dst, 0, 7, len(name)), name...)
	}
	return append(appendInteger(dst, 0, 7, len(value)), value...)
}
