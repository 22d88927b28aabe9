package message

import "slices"

// Field is one line of a header or trailer section (RFC 9110, 5). Name is in lower
// case; Value has no white space around it.
type Field struct{ Name, Value string }

// Header is a section of fields in the order in which they came. The zero value is
// an empty one. All names that its methods take are in lower case.
type Header []Field

// Get returns the value of the first field of that name, "" without one.
func (h Header) Get(name string) string {
	for i := range h {
		if h[i].Name == name {
			return h[i].Value
		}
	}
	return ""
}

// Has reports whether there is a field of that name.
func (h Header) Has(name string) bool {
	for i := range h {
		if h[i].Name == name {
			return true
		}
	}
	return false
}

// Lookup returns the values of all fields of that name, joined by commas in their
// order (RFC 9110, 5.2), and whether there is any. It allocates only when there are
// several.
func (h Header) Lookup(name string) (string, bool) {
	joined, found := "", false
	for i := range h {
		if h[i].Name != name {
			continue
		}
		if !found {
			joined, found = h[i].Value, true
		} else {
			joined += "," + h[i].Value
		}
	}
	return joined, found
}

// Next returns the value of the first field of that name at or after the index from,
// and the index behind it; ok is false without one. Where Lookup joins the values, it
// shows each.
func (h Header) Next(name string, from int) (value string, next int, ok bool) {
	for i := from; i < len(h); i++ {
		if h[i].Name == name {
			return h[i].Value, i + 1, true
		}
	}
	return "", len(h), false
}

// Names calls yield with the name of each field in order, repeated ones as often as
// they are there, until it returns false.
func (h Header) Names(yield func(name string) bool) {
	for i := range h {
		if !yield(h[i].Name) {
			return
		}
	}
}

// Add puts a field at the end.
func (h *Header) Add(name, value string) { *h = append(*h, Field{name, value}) }

// Set puts value in the place of the first field of that name, takes the others
// out, and adds one when there was none.
func (h *Header) Set(name, value string) {
	for i := range *h {
		if (*h)[i].Name == name {
			(*h)[i].Value = value
			rest := (*h)[i+1:]
			rest = slices.DeleteFunc(rest, func(f Field) bool { return f.Name == name })
			*h = (*h)[:i+1+len(rest)]
			return
		}
	}
	h.Add(name, value)
}

// Del takes all fields of that name out.
func (h *Header) Del(name string) {
	if h.Has(name) {
		*h = slices.DeleteFunc(*h, func(f Field) bool { return f.Name == name })
	}
}

// DelAlike takes all fields out whose names differ from name in nothing but underscores in
// the place of dashes: many applications take both for the same.
func (h *Header) DelAlike(name string) {
	for i := range *h {
		if alike((*h)[i].Name, name) {
			*h = slices.DeleteFunc(*h, func(f Field) bool { return alike(f.Name, name) })
			return
		}
	}
}

func alike(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && !(a[i] == '_' && b[i] == '-' || a[i] == '-' && b[i] == '_') {
			return false
		}
	}
	return true
}

// Clone returns a copy that may be changed apart.
func (h Header) Clone() Header { return slices.Clone(h) }
