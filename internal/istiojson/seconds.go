package istiojson

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Seconds returns a JSON spec with the durations of its message, wherever they stand,
// as protobuf's JSON has them: "1h" as "3600s", "50ms" as "0.05s". What is no duration
// stays as it is, for protojson to refuse, and so does what is no JSON.
func Seconds(spec json.RawMessage, desc protoreflect.MessageDescriptor) json.RawMessage {
	dec := json.NewDecoder(bytes.NewReader(spec))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return spec
	}
	w := durationWalk{}
	v = w.message(v, desc)
	if !w.changed {
		return spec
	}
	out, err := json.Marshal(v)
	if err != nil {
		return spec
	}
	return out
}

type durationWalk struct{ changed bool }

func (w *durationWalk) message(v any, desc protoreflect.MessageDescriptor) any {
	if desc.FullName() == "google.protobuf.Duration" {
		return w.duration(v)
	}
	object, ok := v.(map[string]any)
	if !ok || strings.HasPrefix(string(desc.FullName()), "google.protobuf.") {
		return v
	}
	for name, value := range object {
		fd := desc.Fields().ByJSONName(name)
		if fd == nil {
			fd = desc.Fields().ByTextName(name)
		}
		switch {
		case fd == nil:
		case fd.IsMap():
			entries, _ := value.(map[string]any)
			if m := fd.MapValue().Message(); m != nil {
				for key, entry := range entries {
					entries[key] = w.message(entry, m)
				}
			}
		case fd.Message() == nil:
		case fd.IsList():
			items, _ := value.([]any)
			for i, item := range items {
				items[i] = w.message(item, fd.Message())
			}
		default:
			object[name] = w.message(value, fd.Message())
		}
	}
	return object
}

func (w *durationWalk) duration(v any) any {
	text, ok := v.(string)
	if !ok {
		return v
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return v
	}
	sign := ""
	if d < 0 {
		sign = "-"
	}
	whole, rest := d.Abs()/time.Second, d.Abs()%time.Second
	out := sign + strconv.FormatInt(int64(whole), 10)
	if rest > 0 {
		out += "." + strings.TrimRight(strconv.FormatInt(int64(time.Second+rest), 10)[1:], "0")
	}
	if out += "s"; out != text {
		w.changed = true
	}
	return out
}
