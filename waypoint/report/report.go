package report

import (
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/tulle-mesh/tulle/internal/accesslog"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/trace"
)

// Levels says which access lines are written; *logging.Levels is one.
type Levels interface {
	Enabled(name string, level zapcore.Level) bool
}

// Config makes a Reporter.
type Config struct {
	// Store knows workloads; nil knows none, so that peers are what they say.
	Store *state.Store
	// Network is the waypoint's own.
	Network string
	// Registerer takes the metrics; nil leaves them unregistered.
	Registerer prometheus.Registerer
	// Output receives access lines. Required.
	Output io.Writer
	// JSON writes the lines as objects.
	JSON bool
	// Levels decides on lines by the logger "access": info for what went well, warn for
	// what did not. Nil writes both.
	Levels Levels
	// Logger gets problems of reporting itself; nil nobody.
	Logger *zap.Logger
	// Tracer is told what is sampled; nil traces nothing.
	Tracer *trace.Tracer
	// MaxSeries bounds the combinations of labels that are told apart; 0 is 10,000.
	MaxSeries int
	// Self describes the waypoint to collectors.
	Self Self
	// Now is the clock of what is not measured in requests; nil is time.Now.
	Now func() time.Time
}

// Self is the waypoint, as traces and logs name it.
type Self struct {
	Gateway, Namespace, Pod, Node, Cluster, Version string
}

// Reporter is safe for concurrent use.
type Reporter struct {
	cfg   Config
	sides sides

	handles handles
	// mu guards series.
	mu     sync.Mutex
	series map[seriesKey]*series
	// refreshed is when the handles were forgotten last.
	refreshed time.Time
	refused   atomic.Uint64

	routes routes
	taps   taps
	lines  *accesslog.Writer
	// settings are those of the Telemetry resource.
	settings atomic.Pointer[settings]
	applying sync.Mutex
	exports  exports
}

// New starts a Reporter with the defaults of Telemetry.
func New(cfg Config) (*Reporter, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxSeries <= 0 {
		cfg.MaxSeries = maxSeries
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	r := &Reporter{cfg: cfg, series: map[seriesKey]*series{}, refreshed: cfg.Now()}
	r.sides.init()
	r.routes.init()
	r.taps.done = make(chan struct{})
	r.lines = accesslog.NewWriter(accesslog.Config{Output: cfg.Output, JSON: cfg.JSON, Logger: cfg.Logger, Now: cfg.Now})
	r.exports.init(r)
	r.settings.Store(defaultSettings())
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(r); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// Close writes and sends what is queued, and ends the Reporter's goroutines. Nothing is
// told of what is reported afterwards but its counts.
func (r *Reporter) Close() {
	r.taps.close()
	r.exports.close()
	_ = r.lines.Close()
}

// Report is forward's Report.
func (r *Reporter) Report(q *forward.Record) {
	s := r.settings.Load()
	m := r.memoryOf(q.Client)
	h := r.handleFor(s, m, q)
	if h.series.key.kind == tcp && !q.Opened {
		h.series.opened.Add(1) // and at once closed
	}
	h.series.count(q)
	h.route.count(q)
	r.logAll(s, m, q)
	if q.Span != nil {
		r.exports.span(s, m, q)
	}
	if r.taps.watched() {
		r.taps.tell(m, q)
	}
}

// Opened is forward's Opened.
func (r *Reporter) Opened(q *forward.Record) {
	r.handleFor(r.settings.Load(), r.memoryOf(q.Client), q).series.opened.Add(1)
}

// Refused tells of requests that the codecs answered themselves: nobody knows what they
// were to be.
func (r *Reporter) Refused(err *message.ProtocolError) {
	r.refused.Add(1)
	if r.cfg.Levels == nil || r.cfg.Levels.Enabled("access", zapcore.WarnLevel) {
		buf := r.lines.Buffer()
		l := accesslog.Line{JSON: r.cfg.JSON, Buf: *buf}
		l.Begin(r.cfg.Now(), "warn", "request refused")
		l.Number("status", uint64(err.Status))
		l.Text("reason", err.Reason)
		l.End()
		*buf = l.Buf
		r.lines.Write(buf)
	}
}

// handleFor finds where a record counts.
func (r *Reporter) handleFor(s *settings, m *memory, q *forward.Record) *handle {
	k := handleKey{
		source: m.source, target: q.Target, service: q.Client.Service, backend: q.Backend, route: q.Route, flag: q.Flag,
		kind: kindOf(q), code: int16(q.Status), grpc: -1,
	}
	if k.kind == grpc {
		k.grpc = int16(max(-1, min(q.GRPC, 255)))
	}
	if len(s.tags) > 0 {
		k.extra = s.extra(r, m, q)
	}
	generation, last := r.handles.generation.Load(), &m.last[k.place()]
	if h := last.Load(); h != nil && h.generation == generation && h.key == k {
		return h
	}
	h := r.handles.find(&k)
	if h == nil {
		h = &handle{key: k, series: r.seriesFor(&k, q), route: r.routes.of(k.service, k.route, k.kind), generation: generation}
		r.handles.add(h)
	}
	last.Store(h)
	return h
}

// seriesFor finds the series of a record, or makes it.
func (r *Reporter) seriesFor(k *handleKey, q *forward.Record) *series {
	sk := seriesKey{
		source: k.source.facts, destination: r.destinationOf(q), service: r.serviceOf(q),
		kind: k.kind, code: k.code, grpc: k.grpc, flag: k.flag, extra: k.extra,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if found := r.series[sk]; found != nil {
		return found
	}
	if len(r.series) >= r.cfg.MaxSeries {
		sk = seriesKey{kind: k.kind, code: k.code, grpc: -1}
		if found := r.series[sk]; found != nil {
			return found
		}
	}
	made := &series{key: sk, changed: r.cfg.Now()}
	r.series[sk] = made
	return made
}

// serviceOf is the service that the request was sent to, else the one that was
// addressed.
func (r *Reporter) serviceOf(q *forward.Record) serviceFacts {
	c := q.Client.Service
	own := serviceFacts{hostname: c.Hostname, name: q.Service, namespace: c.Namespace}
	if q.Backend == "" {
		return own
	}
	name, _, _ := strings.Cut(q.Backend, ":")
	key, ok := workload.ParseServiceKey(name)
	if !ok || key == c {
		return own
	}
	out := serviceFacts{hostname: key.Hostname, namespace: key.Namespace}
	if r.cfg.Store != nil {
		if svc := r.cfg.Store.Snapshot().ServiceByHost(key); svc != nil {
			out.name = svc.Name
		}
	}
	if out.name == "" {
		out.name, _, _ = strings.Cut(key.Hostname, ".")
	}
	return out
}
