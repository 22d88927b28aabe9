package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Config says which cluster is read and who hears of it.
type Config struct {
	// REST is how the API server is reached and as whom. Required. It is copied;
	// its content type and rate limit are this package's business.
	REST *rest.Config
	// RootNamespace is where mesh-wide policies live. Required.
	RootNamespace string
	// Logger is required.
	Logger *zap.Logger
	// Registerer takes the metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

// Source reads and follows a cluster. All methods are safe for concurrent use;
// Run may be called once.
type Source struct {
	host        string
	log         *zap.Logger
	metrics     *metrics
	collectors  []*collector
	definitions *definitions
	changed     chan struct{}

	mu       sync.Mutex
	store    *source.Store
	synced   bool      // the first state is complete
	lastGood time.Time // of the last change
	problems map[source.Key][]source.Problem
}

// New checks cfg. The API server is not asked before Run.
func New(cfg Config) (*Source, error) {
	switch {
	case cfg.REST == nil:
		return nil, errors.New("kube source: Config.REST is required")
	case cfg.RootNamespace == "":
		return nil, errors.New("kube source: Config.RootNamespace is required")
	case cfg.Logger == nil:
		return nil, errors.New("kube source: Config.Logger is required")
	}
	config := rest.CopyConfig(cfg.REST)
	// A dozen requests at the start and again when the API server was away:
	// nothing here can flood it, and waiting for tokens would delay the start.
	config.QPS = -1
	// The API server is near; compressing costs both sides more than the bytes.
	config.DisableCompression = true
	binary := rest.CopyConfig(config)
	binary.ContentType = runtime.ContentTypeProtobuf
	binary.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	core, err := kubernetes.NewForConfig(binary)
	if err != nil {
		return nil, fmt.Errorf("kube source: %w", err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kube source: %w", err)
	}
	custom, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kube source: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("kube source: register metrics: %w", err)
	}
	s := &Source{
		host:     config.Host,
		log:      cfg.Logger,
		metrics:  m,
		changed:  make(chan struct{}, 1),
		store:    source.NewStore(),
		problems: map[source.Key][]source.Problem{},
	}
	check := source.Checker{RootNamespace: cfg.RootNamespace, Served: true}
	s.definitions = newDefinitions(s, meta, custom)
	for _, k := range append(coreKinds(core, check), customKinds(custom, check)...) {
		s.collectors = append(s.collectors, newCollector(s, k))
	}
	return s, nil
}

// Objects returns the newest state, nil before the first is complete.
func (s *Source) Objects() *source.Objects {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.synced {
		return nil
	}
	return s.store.Objects()
}

// Changed carries a value when Objects has changed since the last receive. It
// serves one receiver.
func (s *Source) Changed() <-chan struct{} { return s.changed }

// Synced reports whether the first state is complete. It stays true.
func (s *Source) Synced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced
}

// RunsOnNode is that of the newest Objects, without making them.
func (s *Source) RunsOnNode(node, namespace, serviceAccount string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced && s.store.RunsOnNode(node, namespace, serviceAccount)
}

// Run follows the cluster until ctx ends, and returns nil then. It does not give
// up: what cannot be read is a problem until it can.
func (s *Source) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.definitions.run(ctx) })
	for _, c := range s.collectors {
		wg.Go(func() { c.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Status says what is in force and what is wrong. LastRead is left out: a watch
// has no reading that would confirm the state.
func (s *Source) Status() source.Status {
	unreachable := s.unreachable(time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	st := source.Status{From: "Kubernetes " + s.host, LastGood: s.lastGood, Problems: unreachable}
	for _, key := range slices.SortedFunc(maps.Keys(s.problems), func(a, b source.Key) int {
		return compareStrings(a.String(), b.String())
	}) {
		st.Problems = append(st.Problems, s.problems[key]...)
	}
	st.ProblemsTotal = len(st.Problems)
	st.Problems = st.Problems[:min(len(st.Problems), maxProblems)]
	if s.synced {
		st.Objects = s.store.Counts()
	}
	return st
}

// Problems returns what is not understood of the object.
func (s *Source) Problems(key source.Key) []source.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems[key])
}

// unreachable lists the kinds that cannot be read, and since when.
func (s *Source) unreachable(now time.Time) []source.Problem {
	problems := []source.Problem{} // a JSON list, also when empty
	add := func(name string, h *health, absent bool) {
		if err, since, synced := h.failing(); err != nil && (!synced || now.Sub(since) >= problemAge) {
			consequence := "what was read before stays in force"
			switch {
			case absent:
				consequence = "the mesh goes on without it"
			case !synced:
				consequence = "nothing is in force before it can be read"
			}
			problems = append(problems, source.Problem{Object: name, Message: fmt.Sprintf("cannot be read from the API server since %s, %s: %v",
				since.UTC().Format(time.RFC3339), consequence, err)})
		}
	}
	add("CustomResourceDefinition", &s.definitions.health, false)
	for _, c := range s.collectors {
		add(c.kind.name, &c.health, c.absent.Load())
	}
	return problems
}

// replace brings the objects of one kind in line with a complete list.
func (s *Source) replace(k *kind, objects []metav1.Object, problems map[source.Key][]source.Problem) {
	s.mu.Lock()
	present := make(map[source.Key]bool, len(objects))
	altered := false
	for _, obj := range objects {
		key := source.KeyOf(obj)
		present[key] = true
		altered = s.put(key, obj) || altered
	}
	for _, key := range s.store.Keys(k.name) {
		if !present[key] {
			s.store.Delete(key)
			altered = true
		}
	}
	for key := range s.problems {
		if key.Kind == k.name && problems[key] == nil {
			delete(s.problems, key)
		}
	}
	for key, list := range problems {
		s.note(key, list)
	}
	s.mu.Unlock()
	s.tell(k, altered)
}

// apply puts one object in, or takes it out when obj is nil.
func (s *Source) apply(k *kind, key source.Key, obj metav1.Object, problems []source.Problem) {
	s.mu.Lock()
	altered := false
	if obj != nil {
		altered = s.put(key, obj)
	} else if s.store.Object(key) != nil {
		s.store.Delete(key)
		altered = true
	}
	s.note(key, problems)
	s.mu.Unlock()
	s.tell(k, altered)
}

// put is called with mu held and reports whether the object says anything new.
func (s *Source) put(key source.Key, obj metav1.Object) bool {
	if same(s.store.Object(key), obj) {
		return false
	}
	s.store.Put(obj)
	return true
}

// note keeps the problems of an object and logs those that are new. It is called
// with mu held; the log does not block.
func (s *Source) note(key source.Key, problems []source.Problem) {
	before := s.problems[key]
	if len(problems) == 0 {
		if len(before) > 0 {
			delete(s.problems, key)
			s.log.Info("object is understood now", zap.Stringer("object", key))
		}
		return
	}
	if !slices.Equal(before, problems) {
		s.problems[key] = problems
		for _, p := range problems {
			s.log.Warn("object is not understood", zap.Stringer("object", key), zap.String("field", p.Field), zap.String("error", p.Message))
		}
	}
}

// tell finds out whether the first state is complete and lets the receiver know
// of a change.
func (s *Source) tell(k *kind, altered bool) {
	s.mu.Lock()
	first := !s.synced && s.complete()
	if first {
		s.synced = true
		s.log.Info("cluster read", zap.Any("objects", s.store.Counts()), zap.Int("problems", len(s.problems)))
	}
	if altered || first {
		s.lastGood = time.Now()
	}
	synced := s.synced
	s.metrics.problems.Set(float64(len(s.problems)))
	if k != nil {
		s.metrics.objects.WithLabelValues(k.name).Set(float64(s.store.Count(k.name)))
	}
	s.mu.Unlock()
	if !synced || !(altered || first) {
		return
	}
	s.metrics.lastGood.SetToCurrentTime()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// complete reports whether all that must be read has been.
func (s *Source) complete() bool {
	for _, c := range s.collectors {
		if !c.settled() {
			return false
		}
	}
	return true
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
