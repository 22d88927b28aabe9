package report

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/cel"
	"github.com/tulle-mesh/tulle/internal/logformat"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/otlp"
	"github.com/tulle-mesh/tulle/waypoint/trace"
)

// TelemetryType is the resource that Handler takes.
const TelemetryType = "type.googleapis.com/tulle.waypoint.Telemetry"

// defaultSampling is 1 %, as Istio's.
const defaultSampling = 100

// settings are a Telemetry resource, compiled. They are immutable.
type settings struct {
	source *api.Telemetry
	logs   []accessLog
	views  []view
	// tags are the expressions whose values are labels.
	tags    []*cel.Program
	tracing *tracing
}

// accessLog is one of the lines that a request may get.
type accessLog struct {
	filter *cel.Program // nil for all
	// format or fields, else the waypoint's own form, as an object if object is set.
	format *logformat.Format
	fields []logField
	object bool
	otlp   *otlp.Logs // nil for the output
}

type logField struct {
	name   string
	format *logformat.Format
}

// tracing is what spans are made by.
type tracing struct {
	otlp *otlp.Spans
	tags []*api.SpanTag
}

func defaultSettings() *settings {
	return &settings{logs: []accessLog{{}}, views: make([]view, len(families))}
}

// Handler takes the Telemetry resource of the waypoint. One that cannot be understood is
// rejected, and the last good one stays in force.
func (r *Reporter) Handler() xdsclient.Handler {
	return xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection {
		var rejections []xdsclient.Rejection
		if len(d.Removed) > 0 && len(d.Resources) == 0 {
			if err := r.Apply(nil); err != nil {
				rejections = append(rejections, xdsclient.Rejection{Name: d.Removed[0], Err: err})
			}
		}
		for _, resource := range d.Resources {
			var t api.Telemetry
			err := fmt.Errorf("has no body")
			if resource.Body != nil {
				err = resource.Body.UnmarshalTo(&t)
			}
			if err == nil {
				err = r.Apply(&t)
			}
			if err != nil {
				rejections = append(rejections, xdsclient.Rejection{Name: resource.Name, Err: err})
			}
		}
		return rejections
	})
}

// Telemetry returns what was applied last, nil for the defaults. Nobody may change it.
func (r *Reporter) Telemetry() *api.Telemetry { return r.settings.Load().source }

// Apply puts a Telemetry resource in force; nil brings the defaults back. With an error,
// which names the field, nothing changes.
func (r *Reporter) Apply(t *api.Telemetry) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	s, err := r.compile(t)
	if err != nil {
		r.exports.keep(r.settings.Load()) // without those that were begun for this one
		return err
	}
	old := r.settings.Swap(s)
	if !sameLabels(old, s) {
		// Series of other labels begin anew.
		r.mu.Lock()
		r.series = map[seriesKey]*series{}
		r.mu.Unlock()
		r.handles.forget()
	}
	if r.cfg.Tracer != nil {
		r.cfg.Tracer.Configure(samplingOf(t, s))
	}
	r.exports.keep(s)
	return nil
}

func sameLabels(a, b *settings) bool {
	return slices.EqualFunc(a.tags, b.tags, func(x, y *cel.Program) bool { return x.String() == y.String() })
}

func samplingOf(t *api.Telemetry, s *settings) *trace.Settings {
	if s.tracing == nil {
		return nil
	}
	out := &trace.Settings{Sampling: defaultSampling, IgnoreParent: t.GetTracing().GetIgnoreParent()}
	if t.GetTracing().GetHasSampling() {
		out.Sampling = t.GetTracing().GetSampling()
	}
	return out
}

func (r *Reporter) compile(t *api.Telemetry) (*settings, error) {
	s := defaultSettings()
	if t == nil {
		return s, nil
	}
	s.source = proto.CloneOf(t)
	if list := t.GetAccessLogs(); len(list) > 0 {
		s.logs = nil
		for i, l := range list {
			if l.GetDisabled() {
				continue
			}
			compiled, err := r.compileLog(l)
			if err != nil {
				return nil, fmt.Errorf("access_logs[%d]: %w", i, err)
			}
			s.logs = append(s.logs, compiled)
		}
	}
	if err := s.compileMetrics(t.GetMetrics()); err != nil {
		return nil, err
	}
	if tr := t.GetTracing(); tr.GetOtlp() != "" && !tr.GetDisabled() {
		if tr.GetSampling() > 10000 {
			return nil, fmt.Errorf("tracing.sampling: %d is more than 10000", tr.GetSampling())
		}
		spans, err := r.exports.spansTo(tr.GetOtlp())
		if err != nil {
			return nil, fmt.Errorf("tracing.otlp: %w", err)
		}
		s.tracing = &tracing{otlp: spans, tags: tr.GetTags()}
	}
	return s, nil
}

func (r *Reporter) compileLog(l *api.AccessLog) (accessLog, error) {
	out := accessLog{object: l.GetJsonDefault()}
	var err error
	if l.GetFilter() != "" {
		if out.filter, err = cel.Reports.Compile(l.GetFilter()); err != nil {
			return out, fmt.Errorf("filter: %w", err)
		}
	}
	if l.GetFormat() != "" {
		if out.format, err = logformat.Parse(l.GetFormat()); err != nil {
			return out, fmt.Errorf("format: %w", err)
		}
	}
	for _, f := range l.GetJson() {
		format, err := logformat.Parse(f.GetValue())
		if err != nil {
			return out, fmt.Errorf("json[%s]: %w", f.GetName(), err)
		}
		out.fields = append(out.fields, logField{f.GetName(), format})
	}
	if l.GetOtlp() != "" {
		if out.otlp, err = r.exports.logsTo(l.GetOtlp()); err != nil {
			return out, fmt.Errorf("otlp: %w", err)
		}
	}
	return out, nil
}

func (s *settings) compileMetrics(m *api.Metrics) error {
	place := map[string]int{}
	for i, o := range m.GetOverrides() {
		known := o.GetMetric() == ""
		for f := range families {
			if o.GetMetric() != "" && o.GetMetric() != families[f].telemetry {
				continue
			}
			known = true
			v := &s.views[f]
			// A later override goes before an earlier one.
			v.disabled = o.GetDisabled()
			for _, t := range o.GetTags() {
				if t.GetRemove() {
					if v.removed == nil {
						v.removed = map[string]bool{}
					}
					v.removed[t.GetName()] = true
					delete(v.tags, t.GetName())
					continue
				}
				at, ok := place[t.GetValue()]
				if !ok {
					p, err := cel.Reports.CompileText(t.GetValue())
					if err != nil {
						return fmt.Errorf("metrics.overrides[%d].tags[%s]: %w", i, t.GetName(), err)
					}
					at = len(s.tags)
					place[t.GetValue()] = at
					s.tags = append(s.tags, p)
				}
				if v.tags == nil {
					v.tags = map[string]int{}
				}
				v.tags[t.GetName()] = at
				delete(v.removed, t.GetName())
			}
		}
		if !known {
			return fmt.Errorf("metrics.overrides[%d]: metric %q is unknown", i, o.GetMetric())
		}
	}
	return nil
}

// separator stands between the values of extra labels.
const separator = "\x1f"

// extra evaluates the expressions that are labels. One that cannot be, since it asks for
// what is not there, is unknown.
func (s *settings) extra(r *Reporter, m *memory, q *forward.Record) string {
	var b strings.Builder
	v := vars{r, m, q}
	for i, p := range s.tags {
		if i > 0 {
			b.WriteString(separator)
		}
		value, err := p.Text(&v)
		if err != nil {
			value = unknown
		}
		if len(value) > maxTagBytes {
			value = value[:maxTagBytes]
		}
		value = strings.ToValidUTF8(value, "") // as labels must be: else nobody gets any metric
		b.WriteString(strings.ReplaceAll(value, separator, "?"))
	}
	return b.String()
}

func (s *settings) values(extra string) []string {
	if len(s.tags) == 0 {
		return nil
	}
	return strings.Split(extra, separator)
}
