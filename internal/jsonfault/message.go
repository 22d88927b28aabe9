package jsonfault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Message finds what of a JSON document a message of that type does not have or cannot
// hold; root is the path of the whole. Durations may have the forms of package
// istiojson. Fields without a value are faults, for protojson leaves them out: "action:"
// with nothing behind it would be the default.
func Message(raw []byte, desc protoreflect.MessageDescriptor, root string) []*Fault {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return []*Fault{{root, err.Error()}}
	}
	var w messageWalk
	w.message(v, desc, root)
	return w.faults
}

type messageWalk struct{ faults []*Fault }

func (w *messageWalk) note(path string, v any, want string) {
	w.faults = append(w.faults, fault(path, v, want))
}

func (w *messageWalk) message(v any, desc protoreflect.MessageDescriptor, path string) {
	if strings.HasPrefix(string(desc.FullName()), "google.protobuf.") {
		w.wellKnown(v, desc, path)
		return
	}
	object, ok := v.(map[string]any)
	if !ok {
		w.note(path, v, "an object")
		return
	}
	chosen := map[protoreflect.FullName]string{}            // of several fields that exclude each other
	for _, name := range slices.Sorted(maps.Keys(object)) { // the same faults in the same order each time
		at := path + "." + name
		fd := desc.Fields().ByJSONName(name)
		if fd == nil {
			fd = desc.Fields().ByTextName(name)
		}
		if fd == nil {
			w.faults = append(w.faults, &Fault{at, fmt.Sprintf("unknown field %q", at)})
			continue
		}
		if one := fd.ContainingOneof(); one != nil && !one.IsSynthetic() && object[name] != nil {
			if other, ok := chosen[one.FullName()]; ok {
				w.faults = append(w.faults, &Fault{at, fmt.Sprintf("excludes %s: only one of them may stand there", other)})
				continue
			}
			chosen[one.FullName()] = name
		}
		w.field(object[name], fd, at)
	}
}

func (w *messageWalk) field(v any, fd protoreflect.FieldDescriptor, path string) {
	switch {
	case v == nil:
		w.faults = append(w.faults, &Fault{path, "has no value; give it one or leave it out"})
	case fd.IsMap():
		entries, ok := v.(map[string]any)
		if !ok {
			w.note(path, v, "an object")
		}
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			w.one(entries[key], fd.MapValue(), path+"["+key+"]")
		}
	case fd.IsList():
		items, ok := v.([]any)
		if !ok {
			w.note(path, v, "a list")
		}
		for i, item := range items {
			w.one(item, fd, fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		w.one(v, fd, path)
	}
}

func (w *messageWalk) one(v any, fd protoreflect.FieldDescriptor, path string) {
	if fd.Message() != nil {
		w.message(v, fd.Message(), path)
	} else {
		w.scalar(v, fd, path)
	}
}

// wellKnown checks those that have a form of their own in JSON.
func (w *messageWalk) wellKnown(v any, desc protoreflect.MessageDescriptor, path string) {
	switch name := desc.Name(); name {
	case "Duration":
		text, ok := v.(string)
		if ok {
			_, err := time.ParseDuration(text)
			seconds, whole := strings.CutSuffix(text, "s")
			_, long := strconv.ParseFloat(seconds, 64) // longer than package time has them
			ok = err == nil || whole && long == nil
		}
		if !ok {
			w.note(path, v, aDuration)
		}
	case "Timestamp":
		text, _ := v.(string)
		if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
			w.note(path, v, "a time, as 2026-01-02T15:04:05Z")
		}
	case "Struct":
		if _, ok := v.(map[string]any); !ok {
			w.note(path, v, "an object")
		}
	case "ListValue":
		if _, ok := v.([]any); !ok {
			w.note(path, v, "a list")
		}
	default:
		if fd := desc.Fields().ByName("value"); strings.HasSuffix(string(name), "Value") && fd != nil {
			w.scalar(v, fd, path)
		}
	}
}

// scalar refuses values of another type than the field's, which YAML 1.1 makes of words
// like on, off, y and no, and numbers that are out of its range.
func (w *messageWalk) scalar(v any, fd protoreflect.FieldDescriptor, path string) {
	want := ""
	switch kind := fd.Kind(); kind {
	case protoreflect.StringKind, protoreflect.BytesKind:
		if _, ok := v.(string); !ok {
			want = aString
		}
	case protoreflect.BoolKind:
		if _, ok := v.(bool); !ok {
			want = "true or false"
		}
	case protoreflect.EnumKind:
		names := make([]string, fd.Enum().Values().Len())
		for i := range names {
			names[i] = string(fd.Enum().Values().Get(i).Name())
		}
		if s, ok := v.(string); !ok || !slices.Contains(names, s) {
			want = "one of " + strings.Join(names, ", ")
		}
	default:
		text, ok := numberText(v)
		if s, quoted := v.(string); quoted { // large ones are written as strings
			text, ok = s, true
		}
		if want = aNumber; ok {
			want = outOfRange(text, kind)
		}
	}
	if want != "" {
		w.note(path, v, want)
	}
}

func outOfRange(text string, kind protoreflect.Kind) string {
	bits, signed := 64, true
	switch kind {
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return aNumber
		}
		return ""
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		bits = 32
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		bits, signed = 32, false
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		signed = false
	}
	least, most := bounds(bits, signed)
	return whole(text, least, most)
}
