package source

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tulle-mesh/tulle/internal/jsonfault"
)

// checkFields finds what of a JSON spec its message does not have or cannot hold, with
// whole paths, which protojson leaves out. It also refuses what a protobuf message
// cannot tell from a field that was left out: fields without a value, and empty lists
// inside policy rules, for "from: []" would turn "from nobody" into "from everybody".
func checkFields(spec json.RawMessage, desc protoreflect.MessageDescriptor) []error {
	var errs []error
	for _, f := range jsonfault.Message(spec, desc, "spec") {
		errs = append(errs, f)
	}
	var rules struct {
		Rules any `json:"rules"`
	}
	if desc.Name() == "AuthorizationPolicy" && json.Unmarshal(spec, &rules) == nil {
		if list, ok := rules.Rules.([]any); ok {
			for i, rule := range list {
				errs = append(errs, emptyLists(rule, fmt.Sprintf("spec.rules[%d]", i))...)
			}
		}
	}
	return errs
}

func emptyLists(v any, path string) []error {
	var errs []error
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			errs = append(errs, emptyLists(v[name], path+"."+name)...)
		}
	case []any:
		if len(v) == 0 {
			errs = append(errs, &jsonfault.Fault{Path: path, Message: "an empty list matches nothing in one place and everything in another; leave it out"})
		}
		for i, item := range v {
			errs = append(errs, emptyLists(item, fmt.Sprintf("%s[%d]", path, i))...)
		}
	}
	return errs
}

// faultsOfType finds where a JSON document does not fit the Go type of into.
func faultsOfType(raw []byte, into any) []error {
	var errs []error
	for _, f := range jsonfault.Value(raw, into) {
		if f.Path != "" {
			errs = append(errs, f)
		}
	}
	return errs
}
