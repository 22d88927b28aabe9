package status

import (
	"slices"
	"strings"

	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// telemetry says whether a waypoint reports by a Telemetry, and what of it none does.
func (d Decider) telemetry(v *view, x *telemetryv1.Telemetry) Condition {
	key := source.KeyOf(x)
	if c, missing := v.missing(translate.TelemetryTargets(x)); missing {
		return c
	}
	return d.partly(v.waypoints.JudgeTelemetry(x), key, slices.Collect(func(yield func(string) bool) {
		for _, gap := range v.telemetry()[key.Name] {
			if !yield(strings.TrimSuffix(gap, ".")) {
				return
			}
		}
	}))
}
