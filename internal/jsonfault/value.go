package jsonfault

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Value finds the values of a JSON document that encoding/json refuses for the type of
// into, a pointer, which it leaves as it is. Fields that the type does not have are none
// of its business. A type that decodes itself is asked.
func Value(raw []byte, into any) []*Fault {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil
	}
	var w valueWalk
	w.value(v, reflect.TypeOf(into).Elem(), "")
	return w.faults
}

type valueWalk struct{ faults []*Fault }

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (w *valueWalk) note(path string, v any, want string) {
	w.faults = append(w.faults, fault(path, v, want))
}

func (w *valueWalk) value(v any, t reflect.Type, path string) {
	if v == nil {
		return // leaves what is there
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if p := reflect.PointerTo(t); p.Implements(unmarshaler) || p.Implements(textUnmarshaler) {
		w.itself(v, t, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		object, ok := v.(map[string]any)
		if !ok {
			w.note(path, v, "an object")
		}
		for _, name := range slices.Sorted(maps.Keys(object)) {
			if field, ok := fieldOf(t, name); ok {
				w.value(object[name], field, strings.TrimPrefix(path+"."+name, "."))
			}
		}
	case reflect.Map:
		entries, ok := v.(map[string]any)
		if !ok {
			w.note(path, v, "an object")
		}
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			w.value(entries[key], t.Elem(), path+"["+key+"]")
		}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			w.itself(v, t, path)
			return
		}
		items, ok := v.([]any)
		if !ok {
			w.note(path, v, "a list")
		}
		for i, item := range items {
			w.value(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.String:
		if _, ok := v.(string); ok {
			break
		}
		want := aString
		if t.Name() == "Duration" {
			want = aDuration
		}
		w.note(path, v, want)
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			w.note(path, v, "true or false")
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		w.number(v, path, t.Bits(), true)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		w.number(v, path, t.Bits(), false)
	case reflect.Float32, reflect.Float64:
		text, ok := numberText(v)
		if _, err := strconv.ParseFloat(text, t.Bits()); !ok || err != nil {
			w.note(path, v, aNumber)
		}
	}
}

// number takes no 1e3 and no 1.0, as encoding/json does not.
func (w *valueWalk) number(v any, path string, bits int, signed bool) {
	least, most := bounds(bits, signed)
	text, ok := numberText(v)
	want := whole(text, least, most)
	if ok && want == "" && strings.ContainsAny(text, ".eE") {
		want = "a number without a point or an exponent"
	}
	if !ok {
		want = "a whole number"
		if s, quoted := v.(string); quoted && whole(s, least, most) == "" {
			want += " without quotes"
		}
	}
	if want != "" {
		w.note(path, v, want)
	}
}

// itself has a type say what it does not take.
func (w *valueWalk) itself(v any, t reflect.Type, path string) {
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, reflect.New(t).Interface())
	}
	if err != nil {
		w.faults = append(w.faults, &Fault{path, written(v) + ": " + strings.TrimPrefix(err.Error(), "json: ")})
	}
}

// fieldOf returns the type of the field that has this name in JSON.
func fieldOf(t reflect.Type, name string) (reflect.Type, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner := f.Type
		for inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if tag == "" && inner.Kind() == reflect.Struct && (f.Anonymous || strings.Contains(options, "inline")) {
			if found, ok := fieldOf(inner, name); ok {
				return found, true
			}
			continue
		}
		if f.IsExported() && tag != "-" && (tag == name || tag == "" && f.Name == name) {
			return f.Type, true
		}
	}
	return nil, false
}
