package hpack

import (
	"errors"
	"sync"
)

// ErrDecode says that a block cannot be read: the connection is then lost, since the
// dynamic table is (COMPRESSION_ERROR; RFC 9113, 4.3).
var ErrDecode = errors.New("header block is not valid HPACK")

// ErrTooLarge says that a block has more than the Decoder's limits. It was read all
// the same, and the next one can be.
var ErrTooLarge = errors.New("header block is too large")

// Decoder decompresses the header blocks of one direction of a connection, in their
// order. One goroutine may use it. It holds no memory but its dynamic table, and
// that only once the peer uses it.
type Decoder struct {
	// MaxListSize bounds a block's fields in octets, counted as RFC 9113, 6.5.2, does;
	// MaxFields bounds their number. Both must be set.
	MaxListSize, MaxFields int

	table table
}

// span says where a field's texts are: in the static table, or in scratch.text.
type span struct {
	static      uint8 // the entry that has the name; 0: it is in text, at nameAt
	staticValue bool  // that entry has the value, too
	valid       bool
	nameAt      int
	valueAt     int
	end         int
}

// scratch is what the decoding of one block needs.
type scratch struct {
	text  []byte
	spans []span
}

// maxKeptScratch is the capacity in octets up to which a scratch is used again: far
// more than nearly all heads need.
const maxKeptScratch = 8 << 10

var scratches = sync.Pool{New: func() any { return &scratch{text: make([]byte, 0, 1<<10), spans: make([]span, 0, 32)} }}

func (s *scratch) release() {
	if cap(s.text) <= maxKeptScratch {
		scratches.Put(s)
	}
}

// Decode appends the fields of block to dst and returns it. It returns dst as it was
// with ErrTooLarge and ErrDecode.
func (d *Decoder) Decode(block []byte, dst []Field) ([]Field, error) {
	s := scratches.Get().(*scratch)
	s.text, s.spans = s.text[:0], s.spans[:0]
	defer s.release()
	var (
		ok       bool
		size     int
		tooLarge bool
		begun    bool // a field was read
	)
	for len(block) > 0 {
		if block[0]&0xe0 == 0x20 {
			// A size update, which only stands in front of the fields (RFC 7541, 4.2).
			var n int
			n, block, ok = readInteger(block, 5)
			if !ok || begun || n > TableSize {
				return dst, ErrDecode
			}
			d.table.resize(n)
			continue
		}
		begun = true
		at := len(s.text)
		var f span
		f, block, ok = d.field(s, block, tooLarge)
		if !ok {
			return dst, ErrDecode
		}
		if tooLarge {
			s.text = s.text[:at]
			continue
		}
		size += f.size()
		if size > d.MaxListSize || len(s.spans) == d.MaxFields {
			tooLarge = true
			continue
		}
		s.spans = append(s.spans, f)
	}
	if tooLarge {
		return dst, ErrTooLarge
	}
	text := string(s.text)
	for i := range s.spans {
		f := &s.spans[i]
		field := Field{Valid: f.valid}
		if f.static == 0 {
			field.Name = text[f.nameAt:f.valueAt]
		} else {
			field.Name = staticTable[f.static].name
		}
		if f.staticValue {
			field.Value = staticTable[f.static].value
		} else {
			field.Value = text[f.valueAt:f.end]
		}
		dst = append(dst, field)
	}
	return dst, nil
}

func (f *span) size() int {
	n := f.end - f.nameAt + entryOverhead
	if f.static != 0 {
		n += len(staticTable[f.static].name)
	}
	if f.staticValue {
		n += len(staticTable[f.static].value)
	}
	return n
}

// field reads one field; its texts go to s.text. With skip nothing is copied of what
// is only referred to, so that a small block cannot cost much.
func (d *Decoder) field(s *scratch, block []byte, skip bool) (f span, rest []byte, ok bool) {
	first := block[0]
	f.nameAt = len(s.text)
	if first&0x80 != 0 {
		index, rest, ok := readInteger(block, 7)
		if !ok || index == 0 {
			return f, nil, false
		}
		if index < len(staticTable) {
			f.valueAt, f.end = f.nameAt, f.nameAt
			f.static, f.staticValue, f.valid = uint8(index), true, true
			return f, rest, true
		}
		e, ok := d.table.at(index - len(staticTable))
		if !ok {
			return f, nil, false
		}
		if !skip {
			s.text = append(s.text, d.table.text(e)...)
		}
		f.valueAt, f.end, f.valid = f.nameAt+int(e.nameLen), len(s.text), e.validName && e.validValue
		return f, rest, true
	}

	prefix, insert := uint8(4), false
	if first&0x40 != 0 {
		prefix, insert = 6, true
	}
	index, rest, ok := readInteger(block, prefix)
	if !ok {
		return f, nil, false
	}
	validName := true
	switch {
	case index == 0:
		if s.text, rest, ok = readString(s.text, rest); !ok {
			return f, nil, false
		}
		validName = ValidName(s.text[f.nameAt:])
	case index < len(staticTable):
		f.static = uint8(index)
	default:
		e, ok := d.table.at(index - len(staticTable))
		if !ok {
			return f, nil, false
		}
		validName = e.validName
		if !skip || insert {
			s.text = append(s.text, d.table.text(e)[:e.nameLen]...)
		}
	}
	f.valueAt = len(s.text)
	if s.text, rest, ok = readString(s.text, rest); !ok {
		return f, nil, false
	}
	f.end = len(s.text)
	validValue := ValidValue(s.text[f.valueAt:])
	f.valid = validName && validValue
	switch {
	case !insert:
	case f.static != 0:
		insertField(&d.table, staticTable[f.static].name, s.text[f.valueAt:], true, validValue)
	default:
		insertField(&d.table, s.text[f.nameAt:f.valueAt], s.text[f.valueAt:], validName, validValue)
	}
	return f, rest, true
}

// readInteger reads an integer with a prefix of n bits (RFC 7541, 5.1). It reports
// false when it does not end in b or is too large.
func readInteger(b []byte, n uint8) (v int, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	limit := 1<<n - 1
	v = int(b[0]) & limit
	b = b[1:]
	if v < limit {
		return v, b, true
	}
	for shift := 0; len(b) > 0; shift += 7 {
		c := b[0]
		b = b[1:]
		v += int(c&0x7f) << shift
		if v > maxInteger || shift > 28 {
			return 0, nil, false
		}
		if c&0x80 == 0 {
			return v, b, true
		}
	}
	return 0, nil, false
}

// readString appends a string (RFC 7541, 5.2) to dst.
func readString(dst, b []byte) (_, rest []byte, ok bool) {
	if len(b) == 0 {
		return dst, nil, false
	}
	compressed := b[0]&0x80 != 0
	n, b, ok := readInteger(b, 7)
	if !ok || n > len(b) {
		return dst, nil, false
	}
	if compressed {
		dst, ok = appendHuffman(dst, b[:n])
	} else {
		dst = append(dst, b[:n]...)
	}
	return dst, b[n:], ok
}
