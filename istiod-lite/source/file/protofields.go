package file

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// checkFields finds the fields of a JSON spec that its message does not have,
// with their whole path, which protojson leaves out. It also refuses empty
// lists inside policy rules: a protobuf message cannot tell them from a field
// that was left out, and "from: []" would turn "from nobody" into "from
// everybody".
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
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names) // for the same errors in the same order each time
	for _, name := range names {
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
	case fd.IsMap():
		entries, ok := v.(map[string]any)
		if value := fd.MapValue(); ok && value.Message() != nil {
			for key, e := range entries {
				w.message(e, value.Message(), path+"["+key+"]")
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
		if v != nil {
			w.message(v, fd.Message(), path)
		}
	default:
		if v != nil {
			w.scalar(v, fd, path)
		}
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
