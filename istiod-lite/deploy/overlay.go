package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

// The keys of a ConfigMap of parameters, which are Istio's. The value of each is
// laid over what is made, as a strategic merge patch.
const (
	keyDeployment = "deployment"
	keyService    = "service"
	keyAccount    = "serviceAccount"
	keyAutoscaler = "horizontalPodAutoscaler"
	keyBudget     = "podDisruptionBudget"
)

var overlayKeys = []string{keyDeployment, keyService, keyAccount, keyAutoscaler, keyBudget}

// parameters are overlays of one ConfigMap as JSON, by key.
type parameters struct {
	// from names the ConfigMap, for messages.
	from     string
	overlays map[string][]byte
}

// readParameters checks the data of a ConfigMap.
func readParameters(from string, data map[string]string) (parameters, error) {
	p := parameters{from: from, overlays: map[string][]byte{}}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		text := data[key]
		switch {
		case !slices.Contains(overlayKeys, key):
			return p, fmt.Errorf("%s: data[%s]: must be one of %s", from, key, strings.Join(overlayKeys, ", "))
		case len(text) > maxParameterBytes:
			return p, fmt.Errorf("%s: data[%s]: has %d bytes, more than %d", from, key, len(text), maxParameterBytes)
		}
		var overlay map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &overlay); err != nil {
			return p, fmt.Errorf("%s: data[%s]: %w", from, key, err)
		}
		for _, field := range []string{"apiVersion", "kind", "status"} {
			delete(overlay, field)
		}
		if err := fixed(overlay); err != nil {
			return p, fmt.Errorf("%s: data[%s]: %w", from, key, err)
		}
		encoded, err := json.Marshal(overlay)
		if err != nil {
			return p, fmt.Errorf("%s: data[%s]: %w", from, key, err)
		}
		p.overlays[key] = encoded
	}
	return p, nil
}

// fixed refuses what an overlay must not say: whose the object is and where.
func fixed(overlay map[string]any) error {
	for field := range overlay {
		if strings.HasPrefix(field, "$") {
			return fmt.Errorf("%s: the object as a whole cannot be replaced or removed", field)
		}
	}
	said, ok := overlay["metadata"]
	if !ok {
		return nil
	}
	meta, ok := said.(map[string]any)
	if !ok {
		return fmt.Errorf("metadata: must be a map") // null would take the name away
	}
	for field := range meta {
		if field != "labels" && field != "annotations" {
			return fmt.Errorf("metadata.%s: cannot be changed; labels and annotations can", field)
		}
	}
	return nil
}

// overlay lays the parameters with that key over object, one after the other.
func overlay[T any](object *T, key string, list []parameters) error {
	for _, p := range list {
		patch, ok := p.overlays[key]
		if !ok {
			continue
		}
		base, err := json.Marshal(object)
		if err != nil {
			return err
		}
		var empty T
		merged, err := strategicpatch.StrategicMergePatch(base, patch, empty)
		if err != nil {
			return fmt.Errorf("%s: data[%s]: %w", p.from, key, err)
		}
		var next T
		if err := yaml.UnmarshalStrict(merged, &next); err != nil {
			return fmt.Errorf("%s: data[%s]: %w", p.from, key, err)
		}
		*object = next
	}
	return nil
}

// asked reports whether any of the parameters has the key.
func asked(list []parameters, key string) bool {
	return slices.ContainsFunc(list, func(p parameters) bool { _, ok := p.overlays[key]; return ok })
}
