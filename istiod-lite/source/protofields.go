package source

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// checkFields finds the fields of a JSON spec that its message does not have,
// with their whole path, which protojson leaves out. It also refuses what a
// protobuf message cannot tell from a field that was left out: empty lists
// inside policy rules, for "from: []" would turn "from nobody" into "from
// everybody", and fields without a value, for "action:" with nothing behind it
// would be ALLOW.
func checkFields(spec json.RawMessage, desc protoreflect.MessageDescriptor) []error {
	dec := json.NewDecoder(bytes.NewReader(spec))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return []error{fmt.Errorf("spec: %w", err)}
	}
	w := fieldWalk{noEmptyLists: desc.Name() == "AuthorizationPolicy"}
	w.message(v, desc, "spec")
	return w.errs
}

// fieldError is a mistake in the field at path.
type fieldError struct{ path, message string }

func (e *fieldError) Error() string { return e.message }

type fieldWalk struct {
	noEmptyLists bool
	errs         []error
}

func (w *fieldWalk) message(v any, desc protoreflect.MessageDescriptor, path string) {
	if strings.HasPrefix(string(desc.FullName()), "google.protobuf.") {
		return // durations, wrappers and structs have forms of their own
	}
	object, ok := v.(map[string]any)
	if !ok {
		w.errs = append(w.errs, &fieldError{path, "want an object"})
		return
	}
	for _, name := range slices.Sorted(maps.Keys(object)) { // the same errors in the same order each time
		fd := desc.Fields().ByJSONName(name)
		if fd == nil {
			fd = desc.Fields().ByTextName(name)
		}
		if fd == nil {
			w.errs = append(w.errs, &fieldError{path + "." + name, fmt.Sprintf("unknown field %q", path+"."+name)})
			continue
		}
		w.field(object[name], fd, path+"."+name)
	}
}

func (w *fieldWalk) field(v any, fd protoreflect.FieldDescriptor, path string) {
	switch {
	case v == nil:
		w.errs = append(w.errs, &fieldError{path, "has no value; give it one or leave it out"})
	case fd.IsMap():
		entries, _ := v.(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			if at, value := path+"["+key+"]", fd.MapValue(); value.Message() != nil {
				w.message(entries[key], value.Message(), at)
			} else {
				w.scalar(entries[key], value, at)
			}
		}
	case fd.IsList():
		items, ok := v.([]any)
		if !ok {
			return // protojson says what is wrong with it
		}
		if len(items) == 0 && w.noEmptyLists && strings.Contains(path, "rules[") {
			w.errs = append(w.errs, &fieldError{path, "an empty list matches nothing in one place and everything in another; leave it out"})
		}
		for i, item := range items {
			at := fmt.Sprintf("%s[%d]", path, i)
			if fd.Message() != nil {
				w.message(item, fd.Message(), at)
			} else {
				w.scalar(item, fd, at)
			}
		}
	case fd.Message() != nil:
		w.message(v, fd.Message(), path)
	default:
		w.scalar(v, fd, path)
	}
}

// scalar refuses values of another type than the field's, which YAML 1.1 makes
// of words like on, off, y and no. Ranges are protojson's part.
func (w *fieldWalk) scalar(v any, fd protoreflect.FieldDescriptor, path string) {
	want, ok := "", true
	switch fd.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		want = "a string; quote it if it is one"
		_, ok = v.(string)
	case protoreflect.BoolKind:
		want = "true or false"
		_, ok = v.(bool)
	case protoreflect.EnumKind:
		names := make([]string, fd.Enum().Values().Len())
		for i := range names {
			names[i] = string(fd.Enum().Values().Get(i).Name())
		}
		want = "one of " + strings.Join(names, ", ")
		s, _ := v.(string)
		ok = slices.Contains(names, s)
	default:
		want = "a number"
		switch v.(type) {
		case json.Number, string: // large ones are written as strings
		default:
			ok = false
		}
	}
	if !ok {
		w.errs = append(w.errs, &fieldError{path, fmt.Sprintf("%v: want %s", v, want)})
	}
}
