package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
	goyaml "sigs.k8s.io/yaml/goyaml.v2"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// decoded is what one document holds: objects, or problems, or kinds that Tulle
// takes note of and does not act on.
type decoded struct {
	objects  []metav1.Object
	inert    []string
	problems []source.Problem // File and Line are the caller's to fill
}

// decoder turns documents into objects.
type decoder struct {
	check source.Checker
}

func (d *decoder) decode(text []byte) decoded {
	var out decoded
	raw, err := toJSON(text)
	if err != nil {
		out.problems = append(out.problems, source.Problem{Field: duplicateKey(err), Message: err.Error()})
		return out
	}
	if err := nesting(raw); err != nil {
		out.problems = append(out.problems, source.Problem{Message: err.Error()})
		return out
	}
	d.object(raw, len(text), &out)
	return out
}

// toJSON turns YAML into JSON and refuses duplicate keys; JSON passes through,
// for its tabs are no YAML.
func toJSON(text []byte) ([]byte, error) {
	trimmed := bytes.TrimSpace(text)
	if len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(trimmed) {
		return trimmed, nil
	}
	raw, err := yaml.YAMLToJSONStrict(text)
	if err == nil && mayHoldMore(trimmed) {
		err = onlyOne(text)
	}
	return raw, err
}

// mayHoldMore reports whether a second document could follow where split sees
// none: behind an object in braces, or after a line break that is not "\n". A
// block mapping that starts with a plain key cannot end before its text does.
func mayHoldMore(text []byte) bool {
	return len(text) > 0 && !('a' <= text[0] && text[0] <= 'z') || bytes.ContainsAny(text, "\r\u0085\u2028\u2029")
}

// onlyOne refuses text with a second document, which the YAML library would
// pass over: an object that is not read is a policy that is not enforced.
func onlyOne(text []byte) error {
	dec := goyaml.NewDecoder(bytes.NewReader(text))
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	if err := dec.Decode(&v); !errors.Is(err, io.EOF) {
		return errors.New(`more follows the object: put a line with "---" between two`)
	}
	return nil
}

var quotedKey = regexp.MustCompile(`key "([^"]*)" already set`)

// duplicateKey digs the key out of the YAML library's text, which has no other
// form, to fill Problem.Field; the message carries it in any case.
func duplicateKey(err error) string {
	if m := quotedKey.FindStringSubmatch(err.Error()); m != nil {
		return m[1]
	}
	return ""
}

func nesting(raw []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxNesting {
				return fmt.Errorf("nested deeper than %d levels", maxNesting)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// header is what every object starts with.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

func (d *decoder) object(raw []byte, size int, out *decoded) {
	var h header
	// Of two kinds in one JSON object the second would decide what is read; other
	// fields that stand twice are found with the kind known.
	double, err := kjson.UnmarshalStrict(raw, &h, kjson.DisallowDuplicateFields)
	if i := slices.IndexFunc(double, func(err error) bool { return !strings.Contains(source.FieldOf(err), ".") }); err == nil && i >= 0 {
		err = double[i]
	}
	if err != nil {
		out.problems = append(out.problems, source.Problem{Field: source.FieldOf(err), Object: objectName(h), Message: "not a Kubernetes object: " + source.Explain(err)})
		return
	}
	name := objectName(h)
	problem := func(field, format string, args ...any) {
		out.problems = append(out.problems, source.Problem{Object: name, Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if h.Kind == "" {
		problem("kind", "is missing")
		return
	}
	if h.APIVersion == "" {
		problem("apiVersion", "is missing")
		return
	}
	gv, err := schema.ParseGroupVersion(h.APIVersion)
	if err != nil {
		problem("apiVersion", "%v", err)
		return
	}
	gvk := gv.WithKind(h.Kind)
	if gvk == (schema.GroupVersionKind{Version: "v1", Kind: "List"}) {
		d.list(raw, out)
		return
	}
	kind := source.Lookup(gvk)
	switch kind.Class {
	case source.Inert:
		out.inert = append(out.inert, name)
		return
	case source.Later:
		problem("kind", "%s %s steers or secures traffic and is not supported yet; it would go unenforced, so take it out of the directory", h.APIVersion, h.Kind)
		return
	case source.Unknown:
		if other := source.OtherVersion(gvk); other != "" {
			problem("apiVersion", "%s is not supported for %s; use %s", h.APIVersion, h.Kind, other)
		} else {
			problem("kind", "unknown kind %s %s", h.APIVersion, h.Kind)
		}
		return
	}
	if size > maxDocumentBytes {
		problem("", "is %d bytes, at most %d are taken", size, maxDocumentBytes)
		return
	}
	obj := kind.New()
	strict, err := source.Unmarshal(raw, obj)
	if err != nil {
		problem(source.FieldOf(err), "%s", source.Explain(err))
		return
	}
	for _, err := range strict {
		problem(source.FieldOf(err), "%s", source.Explain(err))
	}
	if !kind.Namespaced && obj.GetNamespace() != "" {
		problem("metadata.namespace", "a %s lives in no namespace", h.Kind)
	}
	if len(strict) > 0 {
		return
	}
	if kind.Namespaced && obj.GetNamespace() == "" {
		obj.SetNamespace(metav1.NamespaceDefault) // as kubectl does
		name = source.KeyOf(obj).String()
	}
	for _, e := range d.check.Check(obj) {
		problem(e.Field, "%s", e.ErrorBody())
	}
	out.objects = append(out.objects, obj)
}

func (d *decoder) list(raw []byte, out *decoded) {
	var list struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ListMeta   `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	strict, err := kjson.UnmarshalStrict(raw, &list)
	if err != nil {
		strict = append(strict, err)
	}
	for _, err := range strict {
		out.problems = append(out.problems, source.Problem{Object: "List", Field: source.FieldOf(err), Message: source.Explain(err)})
	}
	if len(strict) > 0 {
		return
	}
	for _, item := range list.Items {
		var h header
		if err := json.Unmarshal(item, &h); err == nil && h.Kind == "List" {
			out.problems = append(out.problems, source.Problem{Object: "List", Field: "items", Message: "a List inside a List"})
			continue
		}
		d.object(item, len(item), out)
	}
}

func objectName(h header) string {
	if h.Kind == "" && h.Metadata.Name == "" {
		return ""
	}
	return strings.TrimSpace(source.Key{Kind: h.Kind, Name: source.Name{Namespace: h.Metadata.Namespace, Name: h.Metadata.Name}}.String())
}
