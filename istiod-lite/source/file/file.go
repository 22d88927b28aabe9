package file

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Config says what is read and who hears of it.
type Config struct {
	// Path is a directory or a file. Required. It need not exist yet: that is a
	// problem like any other, until it does.
	Path string
	// RootNamespace is where mesh-wide policies live. Required.
	RootNamespace string
	// Poll is how often the tree is checked besides the kernel's events; zero
	// means 5 s. Without events it is checked four times a second.
	Poll time.Duration
	// Logger is required.
	Logger *zap.Logger
	// Registerer takes the istiod_config_* metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

// Source reads and follows Config.Path. All methods are safe for concurrent
// use; Run may be called once.
type Source struct {
	cfg     Config
	log     *zap.Logger
	decoder *decoder
	metrics *metrics
	changed chan struct{}

	loading sync.Mutex // held by load; guards what follows
	files   map[string]*parsed
	names   []string
	dirs    map[string]identity

	mu       sync.Mutex
	objects  *source.Objects
	lastGood time.Time
	lastRead time.Time
	problems []source.Problem
	inert    []string
}

// New checks cfg. Nothing is read before Run or Load.
func New(cfg Config) (*Source, error) {
	switch {
	case cfg.Path == "":
		return nil, errors.New("file source: Config.Path is required")
	case cfg.RootNamespace == "":
		return nil, errors.New("file source: Config.RootNamespace is required")
	case cfg.Logger == nil:
		return nil, errors.New("file source: Config.Logger is required")
	case cfg.Poll < 0:
		return nil, fmt.Errorf("file source: poll interval %v is negative", cfg.Poll)
	}
	if cfg.Poll == 0 {
		cfg.Poll = defaultPoll
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("file source: path %q: %w", cfg.Path, err)
	}
	cfg.Path = path
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("file source: register metrics: %w", err)
	}
	return &Source{
		cfg:     cfg,
		log:     cfg.Logger,
		metrics: m,
		decoder: &decoder{check: source.Checker{RootNamespace: cfg.RootNamespace}},
		changed: make(chan struct{}, 1),
	}, nil
}

// Objects returns the last good state, nil before the first.
func (s *Source) Objects() *source.Objects {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects
}

// Changed carries a value when Objects has changed since the last receive. It
// serves one receiver.
func (s *Source) Changed() <-chan struct{} { return s.changed }

// Status says what is in force and what is wrong.
func (s *Source) Status() source.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := source.Status{
		From:          "file " + s.cfg.Path,
		LastGood:      s.lastGood,
		LastRead:      s.lastRead,
		Problems:      slices.Clone(s.problems[:min(len(s.problems), maxProblems)]),
		ProblemsTotal: len(s.problems),
		Inert:         slices.Clone(s.inert[:min(len(s.inert), maxProblems)]),
		InertTotal:    len(s.inert),
	}
	if st.Problems == nil {
		st.Problems = []source.Problem{} // a JSON list, also when empty
	}
	if s.objects != nil {
		st.Objects = s.objects.Counts()
	}
	return st
}

// Run reads the tree and follows it until ctx ends, and returns nil then. It
// does not give up: what cannot be read is a problem until it can.
func (s *Source) Run(ctx context.Context) error {
	return s.watch(ctx)
}

// Load reads the tree once, now, as far as it has changed. It reports whether a
// file looked half written, so that reading again soon is worth while.
func (s *Source) Load() (unsettled bool) {
	s.loading.Lock()
	defer s.loading.Unlock()
	began := time.Now()
	files, order, dirs, unsettled, err := s.decoder.load(s.cfg.Path, s.files, began)
	s.dirs = dirs
	defer func() {
		if !unsettled {
			s.confirm(began)
		}
	}()
	if err != nil {
		s.publish(nil, nil, []source.Problem{{Message: err.Error()}})
		return unsettled
	}
	names := make([]string, 0, len(order))
	for _, e := range order {
		names = append(names, e.name)
	}
	if s.files != nil && slices.Equal(names, s.names) && sameDocuments(s.files, files) && !s.failedToRead() {
		s.files = files // with the newer identities
		return unsettled
	}
	s.files, s.names = files, names
	objects, inert, problems := assemble(order, files)
	s.publish(objects, inert, problems)
	return unsettled
}

// confirm notes a reading that began then, unless it found problems.
func (s *Source) confirm(began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) == 0 {
		s.lastRead = began
	}
}

// failedToRead reports whether the problem in force is one of reading the tree,
// which goes away without any document changing.
func (s *Source) failedToRead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.problems) > 0 && s.problems[0].File == ""
}

// sameDocuments reports whether two readings of the same files decoded to the
// same documents in the same places.
func sameDocuments(a, b map[string]*parsed) bool {
	for name, p := range b {
		q := a[name]
		if p == q {
			continue
		}
		if q == nil || !slices.Equal(p.problems, q.problems) ||
			!slices.EqualFunc(p.docs, q.docs, func(x, y parsedDocument) bool { return x.hash == y.hash && x.line == y.line }) {
			return false
		}
	}
	return len(a) == len(b)
}

// publish puts a reading into force, or its problems on show.
func (s *Source) publish(objects *source.Objects, inert []string, problems []source.Problem) {
	s.mu.Lock()
	before := s.problems
	s.problems = problems
	if len(problems) == 0 {
		s.objects, s.lastGood, s.inert = objects, time.Now(), inert
	}
	first := s.lastGood.IsZero()
	s.mu.Unlock()

	s.metrics.problems.Set(float64(len(problems)))
	if len(problems) > 0 {
		s.metrics.loads.WithLabelValues("bad").Inc()
		if !slices.Equal(before, problems) {
			for _, p := range problems[:min(len(problems), 20)] {
				s.log.Error("configuration refused", zap.String("file", p.File), zap.Int("line", p.Line), zap.String("object", p.Object),
					zap.String("field", p.Field), zap.String("error", p.Message))
			}
			s.log.Error("the last good configuration stays in force", zap.String("path", s.cfg.Path), zap.Int("problems", len(problems)), zap.Bool("none_yet", first))
		}
		return
	}
	s.metrics.loads.WithLabelValues("good").Inc()
	s.metrics.lastGood.SetToCurrentTime()
	s.metrics.objects.Reset()
	counts := objects.Counts()
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		s.metrics.objects.WithLabelValues(kind).Set(float64(counts[kind]))
	}
	s.log.Info("configuration in force", zap.String("path", s.cfg.Path), zap.Int("objects", objects.Len()), zap.Int("inert", len(inert)))
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
