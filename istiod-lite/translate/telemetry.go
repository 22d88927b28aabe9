package translate

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	mesh "istio.io/api/mesh/v1alpha1"
	telemetryapi "istio.io/api/telemetry/v1alpha1"
	typev1beta1 "istio.io/api/type/v1beta1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/logformat"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// What waypoints report of requests: Telemetry resources of the root namespace, of the
// waypoint's, and those bound to its class and to it, each going before those that are
// wider, part by part. Of several at one place the oldest counts, as at Istio. Those
// with a selector are for other proxies. One bound to a service changes the access log
// of its requests.

// envoyProvider is the provider that every mesh has: the waypoint's own output.
const envoyProvider = "envoy"

// telemetryTargets are what a Telemetry is bound to.
func telemetryTargets(t *telemetryv1.Telemetry) []*typev1beta1.PolicyTargetReference {
	if t.Spec.GetTargetRef() != nil {
		return append(slices.Clip(t.Spec.GetTargetRefs()), t.Spec.GetTargetRef())
	}
	return t.Spec.GetTargetRefs()
}

// translateTelemetry makes the resources of all waypoints anew when anything that they
// are made of changed: they are few, and small.
func (t *Translator) translateTelemetry(u *update) {
	changed := u.gateways || u.providers || u.all || t.telemetryBound && len(u.namespaces) > 0
	for _, key := range u.telemetries {
		was, is := t.telemetrySeen[key], u.objects.Telemetries[key]
		changed = changed || was == nil || is == nil || !sameMeaning(was, is)
	}
	if !changed && t.telemetrySeen != nil {
		return
	}
	t.telemetrySeen = u.objects.Telemetries
	names := map[string]bool{}
	was := t.telemetryWarned
	t.telemetryWarned, t.telemetryBound = nil, false
	for name, w := range t.waypoints.byName {
		r := t.telemetryOf(u.objects, w)
		names[WaypointAlias(name)] = true
		t.out.telemetries.set(WaypointAlias(name), r)
	}
	for _, name := range t.telemetryMade {
		if !names[name] {
			t.out.telemetries.set(name, nil)
		}
	}
	t.telemetryMade = slices.Sorted(maps.Keys(names))
	slices.SortFunc(t.telemetryWarned, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	})
	t.telemetryWarned = slices.Compact(t.telemetryWarned)
	if !slices.Equal(was, t.telemetryWarned) {
		t.out.warned = true
	}
}

// telemetryOf is nil when a waypoint has the defaults.
func (t *Translator) telemetryOf(objects *source.Objects, w *waypoint) *Resource {
	m := merger{t: t, objects: objects, waypoint: w, out: &apiwaypoint.Telemetry{}}
	levels := make([]*telemetryv1.Telemetry, 4) // root, namespace, class, gateway
	for _, name := range slices.SortedFunc(maps.Keys(objects.Telemetries), compareNames) {
		x := objects.Telemetries[name]
		if x.Spec.GetSelector() != nil {
			continue
		}
		targets := telemetryTargets(x)
		take := func(level int) {
			if old := levels[level]; old == nil || older(x, old) {
				levels[level] = x
			}
		}
		switch {
		case len(targets) == 0 && name.Namespace == t.options.RootNamespace:
			take(0)
		case len(targets) == 0 && name.Namespace == w.name.Namespace:
			take(1)
		}
		for _, ref := range targets {
			switch {
			case ref.GetKind() == "GatewayClass" && name.Namespace == t.options.RootNamespace && ref.GetName() == string(w.gateway.Spec.GatewayClassName):
				take(2)
			case ref.GetKind() == "Gateway" && name.Namespace == w.name.Namespace && ref.GetName() == w.name.Name:
				take(3)
			case ref.GetKind() == "Service", ref.GetKind() == "ServiceEntry":
				m.services = append(m.services, boundTelemetry{x, ref})
				t.telemetryBound = true
			}
		}
	}
	// A root namespace with a waypoint of its own is both.
	if levels[1] == levels[0] {
		levels[1] = nil
	}
	m.merge(levels)
	if proto.Size(m.out) == 0 {
		return nil
	}
	alias := WaypointAlias(w.name)
	return &Resource{Name: alias, Aliases: []string{alias}, Body: m.out}
}

func older(a, b *telemetryv1.Telemetry) bool {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c < 0
	}
	return a.Name < b.Name
}

type boundTelemetry struct {
	*telemetryv1.Telemetry
	ref *typev1beta1.PolicyTargetReference
}

// merger puts the Telemetry of one waypoint together.
type merger struct {
	t        *Translator
	objects  *source.Objects
	waypoint *waypoint
	out      *apiwaypoint.Telemetry
	services []boundTelemetry
}

func (m *merger) warn(x *telemetryv1.Telemetry, format string, args ...any) {
	m.t.telemetryWarned = append(m.t.telemetryWarned, Warning{Object: "Telemetry " + x.Namespace + "/" + x.Name, InStatus: true, Message: fmt.Sprintf(format, args...)})
}

func (m *merger) merge(levels []*telemetryv1.Telemetry) {
	var tracing telemetryapi.Tracing
	var logging *telemetryv1.Telemetry
	var from *telemetryv1.Telemetry
	for _, x := range levels {
		if x == nil {
			continue
		}
		for _, tr := range x.Spec.GetTracing() {
			if tr.GetMatch().GetMode() != telemetryapi.WorkloadMode_CLIENT {
				mergeTracing(&tracing, tr)
				from = x
			}
		}
		if len(x.Spec.GetAccessLogging()) > 0 {
			logging = x
		}
		m.metrics(x)
	}
	m.tracing(from, &tracing)
	m.accessLog(logging)
}

// mergeTracing lets a narrower one go before a wider one, field by field.
func mergeTracing(into, from *telemetryapi.Tracing) {
	if len(from.GetProviders()) > 0 {
		into.Providers = from.GetProviders()
	}
	if from.RandomSamplingPercentage != nil {
		into.RandomSamplingPercentage = from.RandomSamplingPercentage
	}
	if from.DisableSpanReporting != nil {
		into.DisableSpanReporting = from.DisableSpanReporting
	}
	if len(from.GetCustomTags()) > 0 {
		into.CustomTags = from.GetCustomTags()
	}
	if from.DisableContextPropagation != nil {
		into.DisableContextPropagation = from.DisableContextPropagation
	}
}

func (m *merger) tracing(x *telemetryv1.Telemetry, tr *telemetryapi.Tracing) {
	config := m.t.providers.Config()
	var name string
	switch {
	case len(tr.GetProviders()) > 0:
		name = tr.GetProviders()[0].GetName()
	case len(config.Default.GetTracing()) > 0:
		name = config.Default.GetTracing()[0]
	}
	say := func(format string, args ...any) {
		if x != nil {
			m.warn(x, "tracing: "+format, args...)
		}
	}
	if name == "" {
		if x != nil && !tr.GetDisableSpanReporting().GetValue() {
			say("names no provider, and the mesh has no default one: nothing is traced")
		}
		return
	}
	provider := config.Providers[name]
	switch {
	case provider == nil:
		say("no provider %q is known: nothing is traced", name)
		return
	case provider.Fault != "":
		say("the provider %q cannot be used: %s", name, provider.Fault)
		return
	}
	kind, ok := provider.Spec.GetProvider().(*mesh.MeshConfig_ExtensionProvider_Opentelemetry)
	if !ok {
		say("the provider %q is not one of opentelemetry, which is all that waypoints speak: nothing is traced", name)
		return
	}
	if kind.Opentelemetry.GetHttp() != nil {
		say("the provider %q wants OTLP over HTTP, and waypoints speak it over gRPC alone: nothing is traced", name)
		return
	}
	out := &apiwaypoint.Tracing{Otlp: collector(kind.Opentelemetry.GetService(), kind.Opentelemetry.GetPort()), Disabled: tr.GetDisableSpanReporting().GetValue()}
	if p := tr.GetRandomSamplingPercentage(); p != nil {
		out.HasSampling, out.Sampling = true, uint32(math.Round(p.GetValue()*100))
	}
	for _, name := range slices.Sorted(maps.Keys(tr.GetCustomTags())) {
		tag := &apiwaypoint.SpanTag{Name: name}
		switch kind := tr.GetCustomTags()[name].GetType().(type) {
		case *telemetryapi.Tracing_CustomTag_Literal:
			tag.Kind = &apiwaypoint.SpanTag_Literal{Literal: kind.Literal.GetValue()}
		case *telemetryapi.Tracing_CustomTag_Environment:
			tag.Kind, tag.Default = &apiwaypoint.SpanTag_Environment{Environment: kind.Environment.GetName()}, kind.Environment.GetDefaultValue()
		case *telemetryapi.Tracing_CustomTag_Header:
			tag.Kind, tag.Default = &apiwaypoint.SpanTag_Header{Header: strings.ToLower(kind.Header.GetName())}, kind.Header.GetDefaultValue()
		default:
			say("tag %q is of a kind that waypoints do not know, and is left out", name)
			continue
		}
		out.Tags = append(out.Tags, tag)
	}
	if tr.GetDisableContextPropagation().GetValue() {
		say("disableContextPropagation is not acted on: the context of a trace goes on to applications")
	}
	m.out.Tracing = out
}

// collector is host:port of a service that a provider names as [namespace/]hostname.
func collector(service string, port uint32) string {
	if _, host, ok := strings.Cut(service, "/"); ok {
		service = host
	}
	if strings.Contains(service, ":") {
		service = "[" + service + "]"
	}
	return service + ":" + strconv.Itoa(int(port))
}

func (m *merger) metrics(x *telemetryv1.Telemetry) {
	for i, part := range x.Spec.GetMetrics() {
		if names := providerNames(part.GetProviders()); len(names) > 0 && !slices.Contains(names, "prometheus") {
			m.warn(x, "metrics[%d]: waypoints report to prometheus alone, and not to %s", i, strings.Join(names, ", "))
			continue
		}
		for _, o := range part.GetOverrides() {
			if o.GetMatch().GetMode() == telemetryapi.WorkloadMode_CLIENT {
				continue // waypoints are a server's
			}
			out := &apiwaypoint.MetricOverride{Disabled: o.GetDisabled().GetValue()}
			if metric := o.GetMatch().GetMetric(); metric != telemetryapi.MetricSelector_ALL_METRICS {
				out.Metric = metric.String()
			}
			for _, name := range slices.Sorted(maps.Keys(o.GetTagOverrides())) {
				tag := o.GetTagOverrides()[name]
				out.Tags = append(out.Tags, &apiwaypoint.MetricTag{
					Name: name, Remove: tag.GetOperation() == telemetryapi.MetricsOverrides_TagOverride_REMOVE, Value: tag.GetValue(),
				})
			}
			if m.out.Metrics == nil {
				m.out.Metrics = &apiwaypoint.Metrics{}
			}
			m.out.Metrics.Overrides = append(m.out.Metrics.Overrides, out)
		}
	}
}

func providerNames(refs []*telemetryapi.ProviderRef) []string {
	var out []string
	for _, r := range refs {
		out = append(out, r.GetName())
	}
	return out
}

// accessLog makes the lines that all requests get, and those of services that have a
// Telemetry of their own. x is the narrowest that says anything of lines, nil for none.
func (m *merger) accessLog(x *telemetryv1.Telemetry) {
	var out []*apiwaypoint.AccessLog
	switch config := m.t.providers.Config(); {
	case x != nil:
		out = m.logs(x)
	case len(config.Default.GetAccessLogging()) > 0:
		for _, name := range config.Default.GetAccessLogging() {
			out = append(out, m.log(nil, name)...)
		}
	case config.AccessLog != nil:
		out = m.log(nil, envoyProvider)
	}
	var own []string
	var theirs []*apiwaypoint.AccessLog
	for _, s := range m.services {
		if len(s.Spec.GetTracing())+len(s.Spec.GetMetrics()) > 0 {
			m.warn(s.Telemetry, "bound to %s %s: tracing and metrics are those of the whole waypoint, and only accessLogging is acted on", s.ref.GetKind(), s.ref.GetName())
		}
		host := m.hostOf(s)
		if host == "" || len(s.Spec.GetAccessLogging()) == 0 {
			continue
		}
		is := fmt.Sprintf("(destination.service == %q && destination.namespace == %q)", host, s.Namespace)
		own = append(own, is)
		for _, l := range m.logs(s.Telemetry) {
			if !l.GetDisabled() {
				l.Filter = both(is, l.GetFilter())
				theirs = append(theirs, l)
			}
		}
	}
	if len(own) > 0 {
		if len(out) == 0 {
			out = []*apiwaypoint.AccessLog{{}} // the waypoint's own lines, for all others
		}
		for _, l := range out {
			if l.GetDisabled() {
				continue
			}
			l.Filter = both("!("+strings.Join(own, " || ")+")", l.GetFilter())
		}
	}
	m.out.AccessLogs = append(out, theirs...)
}

func both(a, b string) string {
	if b == "" {
		return a
	}
	return a + " && (" + b + ")"
}

// hostOf is the hostname of what a Telemetry is bound to, if this waypoint stands before
// it.
func (m *merger) hostOf(s boundTelemetry) string {
	name := source.Name{Namespace: s.Namespace, Name: s.ref.GetName()}
	if s.ref.GetKind() == "Service" {
		return m.t.options.hostname(name)
	}
	se := m.objects.ServiceEntries[name]
	if se == nil || len(se.Spec.GetHosts()) == 0 {
		return ""
	}
	return se.Spec.GetHosts()[0]
}

// logs are the lines that one Telemetry asks for.
func (m *merger) logs(x *telemetryv1.Telemetry) []*apiwaypoint.AccessLog {
	var out []*apiwaypoint.AccessLog
	for _, l := range x.Spec.GetAccessLogging() {
		if l.GetMatch().GetMode() == telemetryapi.WorkloadMode_CLIENT {
			continue
		}
		if l.GetDisabled().GetValue() {
			out = append(out, &apiwaypoint.AccessLog{Disabled: true})
			continue
		}
		names := providerNames(l.GetProviders())
		if len(names) == 0 {
			names = m.t.providers.Config().Default.GetAccessLogging()
		}
		if len(names) == 0 {
			names = []string{envoyProvider}
		}
		for _, name := range names {
			for _, log := range m.log(x, name) {
				log.Filter = l.GetFilter().GetExpression()
				out = append(out, log)
			}
		}
	}
	if len(out) == 0 && len(x.Spec.GetAccessLogging()) > 0 {
		return []*apiwaypoint.AccessLog{{}} // of providers that cannot be used: better the usual lines than none
	}
	return out
}

// log is a line as a provider has it, nothing when it cannot be used.
func (m *merger) log(x *telemetryv1.Telemetry, name string) []*apiwaypoint.AccessLog {
	say := func(format string, args ...any) {
		if x != nil {
			m.warn(x, "accessLogging: "+format, args...)
			return
		}
		m.t.telemetryWarned = append(m.t.telemetryWarned, Warning{
			Object: "ConfigMap " + m.t.options.meshConfigName().String(), Message: "access log: " + fmt.Sprintf(format, args...),
		})
	}
	config := m.t.providers.Config()
	provider := config.Providers[name]
	out := &apiwaypoint.AccessLog{}
	switch {
	case provider == nil && name == envoyProvider:
		// The mesh's own format, where it has one.
		text := config.AccessLog.GetAccessLogFormat()
		if config.AccessLog.GetAccessLogEncoding() == mesh.MeshConfig_JSON {
			if out.JsonDefault = text == ""; text != "" {
				fields := &structpb.Struct{}
				if err := fields.UnmarshalJSON([]byte(text)); err != nil {
					say("accessLogFormat is no JSON object: %v", err)
					return []*apiwaypoint.AccessLog{{}}
				}
				m.fields(out, fields, say)
			}
		} else {
			m.text(out, text, say)
		}
		return []*apiwaypoint.AccessLog{out}
	case provider == nil:
		say("no provider %q is known", name)
		return nil
	case provider.Fault != "":
		say("the provider %q cannot be used: %s", name, provider.Fault)
		return nil
	}
	switch kind := provider.Spec.GetProvider().(type) {
	case *mesh.MeshConfig_ExtensionProvider_EnvoyFileAccessLog:
		f := kind.EnvoyFileAccessLog
		if p := f.GetPath(); p != "" && p != "/dev/stdout" && p != "/dev/stderr" {
			say("the provider %q wants the file %s; waypoints write lines to their output alone", name, p)
		}
		m.text(out, f.GetLogFormat().GetText(), say)
		m.fields(out, f.GetLogFormat().GetLabels(), say)
	case *mesh.MeshConfig_ExtensionProvider_EnvoyOtelAls:
		o := kind.EnvoyOtelAls
		out.Otlp = collector(o.GetService(), o.GetPort())
		m.text(out, o.GetLogFormat().GetText(), say)
		m.fields(out, o.GetLogFormat().GetLabels(), say)
	default:
		say("the provider %q is none of envoyFileAccessLog and envoyOtelAls, which waypoints know", name)
		return nil
	}
	return []*apiwaypoint.AccessLog{out}
}

// text sets the format, unless it cannot be understood: then the waypoint's own lines
// are written, and the warning says why.
func (m *merger) text(out *apiwaypoint.AccessLog, text string, say func(string, ...any)) {
	if text == "" {
		return
	}
	if _, err := logformat.Parse(text); err != nil {
		say("the format is not in effect: %v", err)
		return
	}
	out.Format = text
}

func (m *merger) fields(out *apiwaypoint.AccessLog, fields *structpb.Struct, say func(string, ...any)) {
	for _, name := range slices.Sorted(maps.Keys(fields.GetFields())) {
		var text string
		switch v := fields.GetFields()[name].GetKind().(type) {
		case *structpb.Value_StringValue:
			text = v.StringValue
		case *structpb.Value_NumberValue:
			text = strconv.FormatFloat(v.NumberValue, 'g', -1, 64)
		case *structpb.Value_BoolValue:
			text = strconv.FormatBool(v.BoolValue)
		default:
			say("the field %q is neither text nor a number, and is left out", name)
			continue
		}
		if _, err := logformat.Parse(text); err != nil {
			say("the field %q is left out: %v", name, err)
			continue
		}
		out.Json = append(out.Json, &apiwaypoint.HeaderField{Name: name, Value: text})
	}
}
