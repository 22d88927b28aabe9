package cel

import (
	"errors"
	"reflect"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Fields are those of a header. In expressions they are a map from names in lower case
// to values, of which several of one name are joined by commas.
type Fields interface {
	// Lookup returns the values of all fields of that name, joined by commas.
	Lookup(name string) (string, bool)
	// Names calls yield with the names of fields, in any order, repeated ones or not,
	// until it returns false.
	Names(yield func(name string) bool)
}

// header is Fields as a value of CEL.
type header struct{ fields Fields }

var _ traits.Mapper = header{}

// Find implements traits.Mapper.
func (h header) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	value, ok := h.fields.Lookup(strings.ToLower(string(name)))
	if !ok {
		return nil, false
	}
	return types.String(value), true
}

// Get implements traits.Indexer.
func (h header) Get(key ref.Val) ref.Val {
	if v, ok := h.Find(key); ok {
		return v
	}
	return types.NewErr("no such key: %v", key)
}

// Contains implements traits.Container.
func (h header) Contains(key ref.Val) ref.Val {
	_, ok := h.Find(key)
	return types.Bool(ok)
}

// names returns each name once.
func (h header) names() []string {
	var out []string
	seen := map[string]bool{}
	h.fields.Names(func(name string) bool {
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
		return len(out) < maxFields
	})
	return out
}

// Size implements traits.Sizer.
func (h header) Size() ref.Val { return types.Int(len(h.names())) }

// Iterator implements traits.Iterable.
func (h header) Iterator() traits.Iterator {
	return types.NewStringList(types.DefaultTypeAdapter, h.names()).(traits.Iterable).Iterator()
}

func (h header) whole() map[string]string {
	out := map[string]string{}
	for _, name := range h.names() {
		out[name], _ = h.fields.Lookup(name)
	}
	return out
}

// ConvertToNative implements ref.Val.
func (h header) ConvertToNative(to reflect.Type) (any, error) {
	if to == reflect.TypeFor[map[string]string]() {
		return h.whole(), nil
	}
	return nil, errors.New("header fields cannot be converted to " + to.String())
}

// ConvertToType implements ref.Val.
func (h header) ConvertToType(to ref.Type) ref.Val {
	switch to {
	case types.MapType:
		return h
	case types.TypeType:
		return types.MapType
	}
	return types.NewErr("type conversion error from 'map' to '%s'", to)
}

// Equal implements ref.Val.
func (h header) Equal(other ref.Val) ref.Val {
	return types.NewStringStringMap(types.DefaultTypeAdapter, h.whole()).Equal(other)
}

// Type implements ref.Val.
func (h header) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (h header) Value() any { return h }
