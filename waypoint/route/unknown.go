package route

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A newer control plane may say what this version does not know. What it says cannot
// be left out: a rule without a filter of it, or a match without a condition, would do
// what nobody wrote. A test holds these functions to finding it in all messages.

// unknownIn reports whether one of the messages, themselves, has such a field; nil has
// none.
func unknownIn(messages ...proto.Message) bool {
	for _, m := range messages {
		if len(m.ProtoReflect().GetUnknown()) > 0 {
			return true
		}
	}
	return false
}

// Unknown reports whether m, or a message in it, says what this version does not know.
func Unknown(m proto.Message) bool { return unknownBelow(m.ProtoReflect()) }

// unknownBelow reports whether m, or a message in it, has such a field. It takes ten
// times as long.
func unknownBelow(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	found := false
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				found = found || unknownBelow(v.List().Get(i).Message())
			}
		default:
			found = found || unknownBelow(v.Message())
		}
		return !found
	})
	return found
}
