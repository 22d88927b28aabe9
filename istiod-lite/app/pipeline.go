package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// objectSource is where objects come from: package source/file.
type objectSource interface {
	Objects() *source.Objects
	Changed() <-chan struct{}
}

// publisher takes snapshots: package xds.
type publisher interface {
	Publish(*snapshot.Snapshot, snapshot.Change, time.Time)
}

// pipeline carries changes from a source to a publisher. The first change of a
// burst starts a window of fixed length, and its end publishes the newest state:
// waiting for quiet would starve proxies under steady churn. There publications
// keep a pause between them instead, since each costs every proxy a response and
// an acknowledgement, and so a change never waits longer than the window or the
// pause.
type pipeline struct {
	source     objectSource
	publisher  publisher
	translator *translate.Translator
	window     time.Duration
	log        *zap.Logger
	metrics    *pipelineMetrics
	published  func() // called after the first publication
	// observe is told of every state that is served; it may be nil.
	observe func(*source.Objects)
	// complete adds to the warnings of a translation; it may be nil.
	complete func([]translate.Warning, *source.Objects) []translate.Warning

	mu       sync.Mutex
	warnings []translate.Warning
	current  *snapshot.Snapshot
	served   *source.Objects // what current was made of, once the publisher has it
}

type pipelineMetrics struct {
	debounce  prometheus.Histogram
	translate prometheus.Histogram
	services  prometheus.Gauge
	workloads prometheus.Gauge
	policies  prometheus.Gauge
	warnings  prometheus.Gauge
}

func newPipelineMetrics(reg prometheus.Registerer) (*pipelineMetrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &pipelineMetrics{
		debounce: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_debounce_time", Help: "Seconds from the first change of a burst to its translation.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1},
		}),
		translate: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_pushcontext_init_seconds", Help: "Seconds to translate and pack a new state.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5},
		}),
		services:  gauge("pilot_services", "Services known."),
		workloads: gauge("pilot_workloads", "Workloads known."),
		policies:  gauge("pilot_authorization_policies", "Authorization policies sent to proxies, made ones included."),
		warnings:  gauge("istiod_config_warnings", "Objects that are valid and do not do all they say; see /debug/errorz."),
	}
	return m, errors.Join(reg.Register(m.debounce), reg.Register(m.translate), reg.Register(m.services),
		reg.Register(m.workloads), reg.Register(m.policies), reg.Register(m.warnings))
}

// run publishes until ctx ends.
func (p *pipeline) run(ctx context.Context) error {
	var last *source.Objects
	var published time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.source.Changed():
		}
		since := time.Now()
		if !sleep(ctx, max(p.window, time.Until(published.Add(p.pause())))) {
			return nil
		}
		// Changes meanwhile need no notice: the newest state is read now. One within
		// the window has told of itself again, and is then found to be published.
		if objects := p.source.Objects(); objects != last {
			published = time.Now()
			p.publish(objects, since)
			last = objects
		}
	}
}

// pause is how far apart publications begin at least.
func (p *pipeline) pause() time.Duration { return min(pausePerWindow*p.window, maxPause) }

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *pipeline) publish(objects *source.Objects, since time.Time) {
	started := time.Now()
	p.metrics.debounce.Observe(started.Sub(since).Seconds())
	mesh := p.translator.Translate(objects)
	p.mu.Lock()
	prev := p.current
	p.mu.Unlock()
	next, change, err := snapshot.Next(prev, mesh)
	if err != nil {
		// Only a string that is not UTF-8 can do this, which no source lets in.
		p.log.Error("resources cannot be packed and stay as they were", zap.Error(err))
	}
	warnings := mesh.Warnings
	if p.complete != nil {
		warnings = p.complete(warnings, objects)
	}
	took := time.Since(started)
	p.metrics.translate.Observe(took.Seconds())
	p.count(next, warnings)
	p.mu.Lock()
	before := p.warnings
	p.current, p.warnings = next, warnings
	p.mu.Unlock()
	if !slices.Equal(before, warnings) {
		p.tell(before, warnings)
	}
	defer p.serve(objects)
	if prev != nil && change.Empty() {
		p.log.Debug("change without effect on proxies", zap.Duration("took", took))
		return
	}
	p.publisher.Publish(next, change, since)
	changed := 0
	for _, deltas := range change.Deltas {
		changed += len(deltas)
	}
	log := p.log.Debug
	if prev == nil {
		log = p.log.Info
	}
	log("state published", zap.Uint64("serial", next.Serial), zap.Int("changed", changed), zap.Duration("took", took))
	if prev == nil {
		p.published()
	}
}

// tell logs the warnings that were not there before.
func (p *pipeline) tell(before, now []translate.Warning) {
	known := make(map[translate.Warning]bool, len(before))
	for _, w := range before {
		known[w] = true
	}
	told := 0
	for _, w := range now {
		if known[w] {
			continue
		}
		if told++; told > maxToldWarnings {
			p.log.Warn("more objects do not do all they say, see /debug/errorz", zap.Int("warnings", len(now)))
			return
		}
		p.log.Warn("object does not do all it says", zap.String("object", w.Object), zap.String("reason", w.Message))
	}
}

func (p *pipeline) serve(objects *source.Objects) {
	p.mu.Lock()
	p.served = objects
	p.mu.Unlock()
	if p.observe != nil {
		p.observe(objects)
	}
}

// behind reports whether the source has a newer state than the publisher.
func (p *pipeline) behind() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.served != p.source.Objects()
}

func (p *pipeline) count(next *snapshot.Snapshot, warnings []translate.Warning) {
	addresses := next.Sets[snapshot.AddressType]
	p.metrics.workloads.Set(float64(addresses.Workloads))
	p.metrics.services.Set(float64(len(addresses.Entries) - addresses.Workloads))
	p.metrics.policies.Set(float64(len(next.Sets[snapshot.AuthorizationType].Entries)))
	p.metrics.warnings.Set(float64(len(warnings)))
}

// state returns what was published last; nil before the first.
func (p *pipeline) state() (*snapshot.Snapshot, []translate.Warning) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current, p.warnings
}
