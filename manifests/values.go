package manifests

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Values are what the chart's templates are rendered with, as YAML decodes them:
// maps, lists, texts, numbers, truth values.
type Values map[string]any

// Default returns the chart's own values, new at every call.
func Default() (Values, error) {
	return ParseValues(mustRead("chart/values.yaml"))
}

// ParseValues reads a values file. An empty one gives no values; a key that is
// there twice is refused.
func ParseValues(data []byte) (Values, error) {
	var v map[string]any
	if err := yaml.UnmarshalStrict(data, &v); err != nil {
		return nil, err
	}
	if v == nil {
		v = map[string]any{}
	}
	return v, nil
}

// Merge returns base with what over says in its place, as Helm does: maps are merged,
// everything else is replaced, and null takes a value away. Neither is changed.
func Merge(base, over Values) Values {
	out := maps.Clone(base)
	if out == nil {
		out = Values{}
	}
	for key, value := range over {
		if value == nil {
			delete(out, key)
			continue
		}
		if m, ok := value.(map[string]any); ok {
			old, _ := out[key].(map[string]any)
			out[key] = map[string]any(Merge(old, m))
			continue
		}
		out[key] = value
	}
	return out
}

// Override returns base with what over says in its place, as [Merge] does, but keeps
// null, which a later Merge into the defaults needs to take them away.
func Override(base, over Values) Values {
	out := maps.Clone(base)
	if out == nil {
		out = Values{}
	}
	for key, value := range over {
		if m, ok := value.(map[string]any); ok {
			old, _ := out[key].(map[string]any)
			value = map[string]any(Override(old, m))
		}
		out[key] = value
	}
	return out
}

// Set reads an assignment such as istiod.replicas=3 and returns it as values. As with
// Helm, true, false, null and whole numbers are what they look like, all else is
// text, and a dot that belongs to a key is written \. ; lists, maps and quoted texts
// are YAML, such as excludedNamespaces=[a, b].
func Set(assignment string) (Values, error) {
	path, text, ok := strings.Cut(assignment, "=")
	if !ok || path == "" {
		return nil, fmt.Errorf("%q: must be KEY=VALUE, such as istiod.replicas=3", assignment)
	}
	value, err := scalar(text)
	if err != nil {
		return nil, fmt.Errorf("%s: the value %q is not YAML: %w", path, text, err)
	}
	keys := splitPath(path)
	for i := len(keys) - 1; i >= 0; i-- {
		if keys[i] == "" {
			return nil, fmt.Errorf("%q: an empty key", path)
		}
		value = map[string]any{keys[i]: value}
	}
	return value.(map[string]any), nil
}

// scalar reads the right side of an assignment. YAML's further words for truth, such
// as on and y, stay text.
func scalar(text string) (any, error) {
	if text != "" && strings.ContainsRune("[{\"'", rune(text[0])) {
		var value any
		err := yaml.Unmarshal([]byte(text), &value)
		return value, err
	}
	switch text {
	case "true", "false":
		return text == "true", nil
	case "null":
		return nil, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(n, 10) == text {
		return n, nil
	}
	return text, nil
}

func splitPath(path string) []string {
	var keys []string
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		switch {
		case path[i] == '\\' && i+1 < len(path) && path[i+1] == '.':
			b.WriteByte('.')
			i++
		case path[i] == '.':
			keys = append(keys, b.String())
			b.Reset()
		default:
			b.WriteByte(path[i])
		}
	}
	return append(keys, b.String())
}
