package source

import (
	"regexp"

	telemetryapi "istio.io/api/telemetry/v1alpha1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/tulle-mesh/tulle/internal/cel"
)

// labelName is how Prometheus wants labels to be named; names with two leading
// underscores are its own.
var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// checkTelemetry refuses what could not have the effect that its author wants:
// expressions that are none, samplings beyond the whole, tags without a value.
func (c Checker) checkTelemetry(t *telemetryv1.Telemetry) field.ErrorList {
	path, spec := field.NewPath("spec"), &t.Spec
	errs := c.checkTargets(t.Namespace, spec.GetTargetRef(), spec.GetTargetRefs(), path)
	errs = append(errs, checkSelector(spec.GetSelector(), path.Child("selector"))...)
	if (len(spec.GetTargetRefs()) > 0 || spec.GetTargetRef() != nil) && spec.GetSelector() != nil {
		errs = append(errs, field.Forbidden(path.Child("selector"), "it selects workloads or is bound to targets, not both"))
	}
	for list, n := range map[string]int{"tracing": len(spec.GetTracing()), "metrics": len(spec.GetMetrics()), "accessLogging": len(spec.GetAccessLogging())} {
		if n > maxTelemetryParts {
			errs = append(errs, field.TooMany(path.Child(list), n, maxTelemetryParts))
		}
	}
	for i, tr := range spec.GetTracing() {
		errs = append(errs, checkTracing(tr, path.Child("tracing").Index(i))...)
	}
	for i, m := range spec.GetMetrics() {
		errs = append(errs, checkMetrics(m, path.Child("metrics").Index(i))...)
	}
	for i, l := range spec.GetAccessLogging() {
		path := path.Child("accessLogging").Index(i)
		errs = append(errs, checkProviderRefs(l.GetProviders(), path)...)
		if text := l.GetFilter().GetExpression(); text != "" {
			if _, err := cel.Reports.Compile(text); err != nil {
				errs = append(errs, field.Invalid(path.Child("filter", "expression"), text, err.Error()))
			}
		}
	}
	return errs
}

func checkProviderRefs(refs []*telemetryapi.ProviderRef, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, ref := range refs {
		if ref.GetName() == "" {
			errs = append(errs, field.Required(path.Child("providers").Index(i).Child("name"), ""))
		}
	}
	return errs
}

func checkTracing(t *telemetryapi.Tracing, path *field.Path) field.ErrorList {
	errs := checkProviderRefs(t.GetProviders(), path)
	if len(t.GetProviders()) > 1 {
		errs = append(errs, field.TooMany(path.Child("providers"), len(t.GetProviders()), 1))
	}
	if p := t.GetRandomSamplingPercentage(); p != nil && !(p.GetValue() >= 0 && p.GetValue() <= 100) {
		errs = append(errs, field.Invalid(path.Child("randomSamplingPercentage"), p.GetValue(), "must be from 0 to 100"))
	}
	tags := path.Child("customTags")
	if n := len(t.GetCustomTags()); n > maxTelemetryTags {
		errs = append(errs, field.TooMany(tags, n, maxTelemetryTags))
	}
	for name, tag := range t.GetCustomTags() {
		path := tags.Key(name)
		if name == "" {
			errs = append(errs, field.Required(tags, "a tag has a name"))
		}
		switch kind := tag.GetType().(type) {
		case *telemetryapi.Tracing_CustomTag_Literal:
			if kind.Literal.GetValue() == "" {
				errs = append(errs, field.Required(path.Child("literal", "value"), ""))
			}
		case *telemetryapi.Tracing_CustomTag_Environment:
			if kind.Environment.GetName() == "" {
				errs = append(errs, field.Required(path.Child("environment", "name"), ""))
			}
		case *telemetryapi.Tracing_CustomTag_Header:
			if kind.Header.GetName() == "" {
				errs = append(errs, field.Required(path.Child("header", "name"), ""))
			}
		case *telemetryapi.Tracing_CustomTag_Formatter:
			errs = append(errs, field.NotSupported(path, "formatter", []string{"literal", "environment", "header"}))
		default:
			errs = append(errs, field.Required(path, "a tag is a literal, of the environment or of a header"))
		}
	}
	return errs
}

func checkMetrics(m *telemetryapi.Metrics, path *field.Path) field.ErrorList {
	errs := checkProviderRefs(m.GetProviders(), path)
	overrides := path.Child("overrides")
	if n := len(m.GetOverrides()); n > maxTelemetryParts {
		errs = append(errs, field.TooMany(overrides, n, maxTelemetryParts))
	}
	for i, o := range m.GetOverrides() {
		path := overrides.Index(i)
		if custom := o.GetMatch().GetCustomMetric(); custom != "" {
			errs = append(errs, field.Invalid(path.Child("match", "customMetric"), custom, "waypoints have Istio's own metrics; name one by match.metric"))
		}
		tags := path.Child("tagOverrides")
		if n := len(o.GetTagOverrides()); n > maxTelemetryTags {
			errs = append(errs, field.TooMany(tags, n, maxTelemetryTags))
		}
		for name, tag := range o.GetTagOverrides() {
			if !labelName.MatchString(name) || len(name) > 1 && name[:2] == "__" {
				errs = append(errs, field.Invalid(tags.Key(name), name, "is not a label's name"))
			}
			if tag.GetOperation() == telemetryapi.MetricsOverrides_TagOverride_REMOVE {
				continue
			}
			if tag.GetValue() == "" {
				errs = append(errs, field.Required(tags.Key(name).Child("value"), "an expression says what the label is"))
			} else if _, err := cel.Reports.CompileText(tag.GetValue()); err != nil {
				errs = append(errs, field.Invalid(tags.Key(name).Child("value"), tag.GetValue(), err.Error()))
			}
		}
	}
	return errs
}
