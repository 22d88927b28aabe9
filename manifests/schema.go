package manifests

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// schema is the part of JSON Schema that values.schema.json uses. Helm reads the
// same file with all of it; a test holds the file to this part.
type schema struct {
	Ref        string            `json:"$ref"`
	Type       oneOrMore         `json:"type"`
	Enum       []string          `json:"enum"`
	Pattern    string            `json:"pattern"`
	Minimum    *float64          `json:"minimum"`
	Maximum    *float64          `json:"maximum"`
	Items      *schema           `json:"items"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	// Additional is what holds for keys that Properties has not.
	Additional additional `json:"additionalProperties"`

	Definitions map[string]schema `json:"definitions"`
	// What tells a reader something and checks nothing.
	Schema string `json:"$schema"`
	Title  string `json:"title"`
}

// oneOrMore is a JSON text, or a list of them.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(data []byte) error {
	var one string
	if err := json.Unmarshal(data, &one); err == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(o))
}

// additional is false, or a schema. The zero value allows everything.
type additional struct {
	forbidden bool
	schema    *schema
}

func (a *additional) UnmarshalJSON(data []byte) error {
	if string(data) == "false" {
		a.forbidden = true
		return nil
	}
	a.schema = &schema{}
	return json.Unmarshal(data, a.schema)
}

var chartSchema = sync.OnceValue(func() *schema {
	s := &schema{}
	d := json.NewDecoder(strings.NewReader(string(mustRead("chart/values.schema.json"))))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		panic("manifests: values.schema.json: " + err.Error())
	}
	return s
})

// Validate checks complete values against the chart's schema and returns every
// mistake, each beginning with the value's path: an unknown value, a wrong type, a
// value out of bounds.
func Validate(values Values) error {
	// Through JSON, so that numbers and lists have one type each wherever they are from.
	raw, err := json.Marshal(values)
	if err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	root := chartSchema()
	return errors.Join(root.check(root, "", v)...)
}

func (s *schema) check(root *schema, path string, v any) []error {
	if s.Ref != "" {
		name := strings.TrimPrefix(s.Ref, "#/definitions/")
		def, ok := root.Definitions[name]
		if !ok {
			panic("manifests: values.schema.json has no definition " + name)
		}
		return def.check(root, path, v)
	}
	wrong := func(format string, args ...any) []error {
		where := path
		if where == "" {
			where = "values"
		}
		return []error{fmt.Errorf("%s: "+format, append([]any{where}, args...)...)}
	}
	if len(s.Type) > 0 && !slices.ContainsFunc(s.Type, func(t string) bool { return isType(t, v) }) {
		return wrong("%s is not of type %s", show(v), strings.Join(s.Type, " or "))
	}
	if len(s.Enum) > 0 {
		if text, ok := v.(string); !ok || !slices.Contains(s.Enum, text) {
			return wrong("%s is not one of %s", show(v), strings.Join(s.Enum, ", "))
		}
	}
	switch v := v.(type) {
	case string:
		if s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) {
			return wrong("%q does not match %s", v, s.Pattern)
		}
	case float64:
		if s.Minimum != nil && v < *s.Minimum {
			return wrong("%v is less than %v", v, *s.Minimum)
		}
		if s.Maximum != nil && v > *s.Maximum {
			return wrong("%v is more than %v", v, *s.Maximum)
		}
	case []any:
		var errs []error
		for i, item := range v {
			if s.Items != nil {
				errs = append(errs, s.Items.check(root, fmt.Sprintf("%s[%d]", path, i), item)...)
			}
		}
		return errs
	case map[string]any:
		return s.checkMap(root, path, v)
	}
	return nil
}

func (s *schema) checkMap(root *schema, path string, v map[string]any) []error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(v)) {
		below := join(path, key)
		property, ok := s.Properties[key]
		switch {
		case ok:
			errs = append(errs, property.check(root, below, v[key])...)
		case s.Additional.forbidden:
			hint := ""
			if similar := closest(key, slices.Sorted(maps.Keys(s.Properties))); similar != "" {
				hint = fmt.Sprintf("; did you mean %s?", join(path, similar))
			}
			errs = append(errs, fmt.Errorf("%s: there is no such value%s", below, hint))
		case s.Additional.schema != nil:
			errs = append(errs, s.Additional.schema.check(root, below, v[key])...)
		}
	}
	for _, key := range s.Required {
		if _, ok := v[key]; !ok {
			errs = append(errs, fmt.Errorf("%s: missing; null takes a default away", join(path, key)))
		}
	}
	return errs
}

func join(path, key string) string {
	key = strings.ReplaceAll(key, ".", `\.`)
	if path == "" {
		return key
	}
	return path + "." + key
}

func isType(name string, v any) bool {
	switch v := v.(type) {
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case float64:
		return name == "number" || name == "integer" && v == float64(int64(v))
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	return false
}

func show(v any) string {
	raw, err := json.Marshal(v)
	if err != nil || len(raw) > 60 {
		return "the value"
	}
	return string(raw)
}

// closest returns the candidate that a typing mistake would turn into key, or "".
func closest(key string, candidates []string) string {
	best, least := "", 3
	for _, c := range candidates {
		if d := distance(strings.ToLower(key), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := left
			if a[i] != b[j] {
				cost++
			}
			left = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
