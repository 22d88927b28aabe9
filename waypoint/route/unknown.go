package route

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// hasUnknown reports whether m, or a message in it, has a field that this version
// does not know: what it says cannot be left out.
func hasUnknown(m proto.Message) bool { return unknown(m.ProtoReflect(), nil) }

// hasUnknownBut is hasUnknown without looking into the fields of those names.
func hasUnknownBut(m proto.Message, fields ...protoreflect.Name) bool {
	return unknown(m.ProtoReflect(), fields)
}

func unknown(m protoreflect.Message, but []protoreflect.Name) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	found := false
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || slices.Contains(but, f.Name()):
		case f.IsList():
			for i := range v.List().Len() {
				found = found || unknown(v.List().Get(i).Message(), nil)
			}
		default:
			found = found || unknown(v.Message(), nil)
		}
		return !found
	})
	return found
}
