package source_test

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
)

func TestTelemetryThatCouldNotDoWhatItSaysIsRefused(t *testing.T) {
	for spec, want := range map[string]string{
		`{tracing: [{randomSamplingPercentage: 101}]}`:                                                 "spec.tracing[0].randomSamplingPercentage",
		`{tracing: [{providers: [{name: a}, {name: b}]}]}`:                                             "spec.tracing[0].providers",
		`{tracing: [{customTags: {a: {literal: {value: ""}}}}]}`:                                       "spec.tracing[0].customTags[a].literal.value",
		`{tracing: [{customTags: {a: {formatter: {value: "%X%"}}}}]}`:                                  "spec.tracing[0].customTags[a]",
		`{accessLogging: [{filter: {expression: "response.code >"}}]}`:                                 "spec.accessLogging[0].filter.expression",
		`{accessLogging: [{filter: {expression: "response.code"}}]}`:                                   "spec.accessLogging[0].filter.expression",
		`{accessLogging: [{providers: [{name: ""}]}]}`:                                                 "spec.accessLogging[0].providers[0].name",
		`{metrics: [{overrides: [{tagOverrides: {"a-b": {value: "1"}}}]}]}`:                            "spec.metrics[0].overrides[0].tagOverrides[a-b]",
		`{metrics: [{overrides: [{tagOverrides: {a: {value: "weather.today"}}}]}]}`:                    "spec.metrics[0].overrides[0].tagOverrides[a].value",
		`{metrics: [{overrides: [{match: {customMetric: mine}}]}]}`:                                    "spec.metrics[0].overrides[0].match.customMetric",
		`{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, group: "", name: web}]}`:       "spec.selector",
		`{targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]}`: "spec.targetRefs[0].kind",
		`{unheardOf: true}`: "unheardOf",
	} {
		yaml := "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a, namespace: shop}\nspec: " + spec
		_, problems := file.Decode("a.yaml", []byte(yaml), source.Checker{RootNamespace: "istio-system"})
		found := false
		for _, p := range problems {
			found = found || strings.Contains(p.Error(), want)
		}
		if !found {
			t.Errorf("%s: %v, want %q", spec, problems, want)
		}
	}
	good := "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a, namespace: shop}\nspec: {accessLogging: [{filter: {expression: 'response.code >= 400'}}]}"
	if _, problems := file.Decode("a.yaml", []byte(good), source.Checker{RootNamespace: "istio-system"}); len(problems) > 0 {
		t.Error(problems)
	}
}
