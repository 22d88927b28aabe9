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
	// maxEntries is how many entries fit into a table.
	maxEntries = TableSize / entryOverhead
	// encoderSlots is how many pairs and names an Encoder finds again; where two share a
	// slot, the younger one is found. A power of two.
	encoderSlots = 2 * maxEntries
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
	inserted, evicted uint32 // how many ever were; entry number n is entries[n % maxEntries]
	t                 *encoderTable
}

type encoderTable struct {
	entries [maxEntries]encoderEntry
	pairs   [encoderSlots]uint32 // by mix: the number of an entry, counted from 1
	names   [encoderSlots]uint32 // by the name's hash: the same
	seen    [encoderSlots]uint32 // by mix: other bits of what was last seen there
}

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
	var pair uint64
	if secret(name) {
		// Nobody may learn from the lengths of blocks whether a guess was right (7.1.3).
		return appendLiteral(dst, 0x10, 4, index, name, value)
	}
	if e.t == nil {
		e.t = &encoderTable{}
	}
	pair = mix(hn, hash(value))
	if n, ok := e.live(e.t.pairs[pair%encoderSlots]); ok {
		if f := &e.t.entries[n%maxEntries]; f.name == name && f.value == value {
			return appendInteger(dst, 0x80, 7, e.index(n))
		}
	}
	nameOf := ""
	if static == 0 {
		if n, ok := e.live(e.t.names[hn%encoderSlots]); ok && e.t.entries[n%maxEntries].name == name {
			index, nameOf = e.index(n), e.t.entries[n%maxEntries].name
		}
	} else {
		nameOf = staticTable[static].name
	}
	mark := uint32(pair>>32) | 1
	if seen := &e.t.seen[pair%encoderSlots]; *seen != mark || len(name)+len(value)+entryOverhead > TableSize-e.shrunk {
		*seen = mark
		return appendLiteral(dst, 0, 4, index, name, value)
	}
	dst = appendLiteral(dst, 0x40, 6, index, name, value)
	if nameOf == "" {
		nameOf = strings.Clone(name)
	}
	e.insert(encoderEntry{nameOf, strings.Clone(value)}, pair, hn)
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

func (e *Encoder) insert(f encoderEntry, pair, hn uint64) {
	e.evict(f.size())
	n := e.inserted
	e.inserted++
	e.size += f.size()
	e.t.entries[n%maxEntries] = f
	e.t.pairs[pair%encoderSlots] = n + 1
	e.t.names[hn%encoderSlots] = n + 1
}

// evict makes room for an entry of that size.
func (e *Encoder) evict(size int) {
	for e.evicted != e.inserted && e.size+size > TableSize-e.shrunk {
		f := &e.t.entries[e.evicted%maxEntries]
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
