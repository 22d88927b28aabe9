package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Missing returns those of a policy's targets that do not exist. The class of waypoints
// is there also where nobody made it, and so is the namespace of the policy itself.
func Missing(objects *source.Objects, targets []source.Key) []source.Key {
	var out []source.Key
	for _, key := range targets {
		there := key.Kind == "Namespace" || key.Kind == "GatewayClass" && key.Name.Name == WaypointClass || objects.Object(key) != nil
		if !there && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}

// NotThere is a clause on targets that do not exist.
func NotThere(missing []source.Key) string {
	names := make([]string, len(missing))
	for i, key := range missing {
		names[i] = key.String()
	}
	if len(names) == 1 {
		return names[0] + " does not exist"
	}
	return strings.Join(names, ", ") + " do not exist"
}

// boundToNothing warns of targets that do not exist, which are no targets behind a
// waypoint that is not ready.
func boundToNothing(object string, missing []source.Key) []Warning {
	if len(missing) == 0 {
		return nil
	}
	return []Warning{{Object: object, InStatus: true, Message: fmt.Sprintf("its targetRefs name what is not there: %s", NotThere(missing))}}
}
