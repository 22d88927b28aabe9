package hpack

// table is the dynamic table of a Decoder. Its texts lie behind one another in one
// piece of memory, and move to its front when its end is reached. The zero value is
// an empty table of TableSize that holds no memory.
type table struct {
	shrunk  int // how far the largest size is below TableSize
	size    int
	entries []entry // entries[first:] are there, the oldest first
	first   int
	texts   []byte
	base    int // where texts[0] would be if texts never moved
}

// entry is one field of a table.
type entry struct {
	at         int // where the name begins, the value behind it, if texts never moved
	nameLen    uint16
	valueLen   uint16
	validName  bool
	validValue bool
}

func (e *entry) size() int { return int(e.nameLen) + int(e.valueLen) + entryOverhead }

// at returns the entry with that index; 0 is the newest.
func (t *table) at(index int) (*entry, bool) {
	if index >= len(t.entries)-t.first {
		return nil, false
	}
	return &t.entries[len(t.entries)-1-index], true
}

// text returns name and value. It is good until the next insert.
func (t *table) text(e *entry) []byte {
	at := e.at - t.base
	return t.texts[at : at+int(e.nameLen)+int(e.valueLen)]
}

// resize sets the largest size, of at most TableSize.
func (t *table) resize(size int) {
	t.shrunk = TableSize - size
	t.evict(0)
}

// evict makes room for an entry of that size, as far as there can be.
func (t *table) evict(size int) {
	for t.first < len(t.entries) && t.size+size > TableSize-t.shrunk {
		t.size -= t.entries[t.first].size()
		t.first++
	}
}

// insertField puts a field into t. One that is larger than the table empties it (RFC
// 7541, 4.4). name and value are not in t.
func insertField[T string | []byte](t *table, name T, value []byte, validName, validValue bool) {
	size := len(name) + len(value) + entryOverhead
	t.evict(size)
	if size > TableSize-t.shrunk {
		return
	}
	t.compact(len(name) + len(value))
	e := entry{
		at: t.base + len(t.texts), nameLen: uint16(len(name)), valueLen: uint16(len(value)),
		validName: validName, validValue: validValue,
	}
	t.texts = append(append(t.texts, name...), value...)
	t.entries = append(t.entries, e)
	t.size += size
}

// compact drops what was evicted, when otherwise n octets more would not fit into the
// memory that there is. It does so at most once for every TableSize octets inserted.
func (t *table) compact(n int) {
	if t.first == len(t.entries) {
		t.base += len(t.texts)
		t.entries, t.texts, t.first = t.entries[:0], t.texts[:0], 0
		return
	}
	if len(t.texts)+n > 2*TableSize {
		live := t.entries[t.first].at - t.base
		t.base += live
		t.texts = t.texts[:copy(t.texts, t.texts[live:])]
	}
	if len(t.entries) == cap(t.entries) && t.first > len(t.entries)/2 {
		t.entries = t.entries[:copy(t.entries, t.entries[t.first:])]
		t.first = 0
	}
}
