package install

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// differences lists the fields in which two states of an object differ, leaving out
// what the API server keeps for itself.
func differences(before, after *unstructured.Unstructured) []string {
	var d diff
	d.compare("", trimmed(before), trimmed(after))
	if more := len(d.lines) - maxPaths; more > 0 {
		d.lines = append(d.lines[:maxPaths], fmt.Sprintf("and %d more", more))
	}
	return d.lines
}

func trimmed(o *unstructured.Unstructured) map[string]any {
	c := o.DeepCopy()
	delete(c.Object, "status")
	for _, field := range []string{"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"} {
		unstructured.RemoveNestedField(c.Object, "metadata", field)
	}
	// A counter that the API server keeps for DaemonSets.
	unstructured.RemoveNestedField(c.Object, "metadata", "annotations", "deprecated.daemonset.template.generation")
	return c.Object
}

type diff struct{ lines []string }

func (d *diff) compare(path string, a, b any) {
	if reflect.DeepEqual(a, b) {
		return
	}
	am, aIsMap := a.(map[string]any)
	bm, bIsMap := b.(map[string]any)
	if aIsMap && bIsMap {
		keys := slices.Sorted(maps.Keys(am))
		for key := range bm {
			if _, ok := am[key]; !ok {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			d.compare(below(path, key), am[key], bm[key])
		}
		return
	}
	al, aIsList := a.([]any)
	bl, bIsList := b.([]any)
	if aIsList && bIsList {
		if an, bn := named(al), named(bl); an != nil && bn != nil {
			names := slices.Sorted(maps.Keys(an))
			for name := range bn {
				if _, ok := an[name]; !ok {
					names = append(names, name)
				}
			}
			for _, name := range names {
				d.compare(path+"["+name+"]", an[name], bn[name])
			}
			return
		}
		if len(al) == len(bl) {
			for i := range al {
				d.compare(fmt.Sprintf("%s[%d]", path, i), al[i], bl[i])
			}
			return
		}
	}
	d.lines = append(d.lines, fmt.Sprintf("%s: %s -> %s", path, brief(a), brief(b)))
}

// named returns a list of maps by their name, nil when they have none.
func named(list []any) map[string]any {
	out := make(map[string]any, len(list))
	for _, item := range list {
		m, _ := item.(map[string]any)
		name, ok := m["name"].(string)
		if !ok {
			return nil
		}
		out[name] = item
	}
	if len(out) != len(list) {
		return nil
	}
	return out
}

func below(path, key string) string {
	if strings.ContainsAny(key, "./") {
		return path + "[" + key + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func brief(v any) string {
	if v == nil {
		return "none"
	}
	raw, err := json.Marshal(v)
	text := string(raw)
	if s, ok := v.(string); ok {
		text = s
	}
	if err != nil || len(text) > maxValue {
		return text[:min(len(text), maxValue)] + "…"
	}
	return text
}
