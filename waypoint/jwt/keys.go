package jwt

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Config of Keys.
type Config struct {
	// Fetcher gets the documents of issuers; required.
	Fetcher Fetcher
	// Log gets what operators must know of issuers that cannot be reached; nil logs
	// nothing.
	Log *zap.Logger
}

// Keys holds the keys of all issuers that a waypoint knows, and the tokens that they
// verified. It is safe for concurrent use.
type Keys struct {
	cfg    Config
	tokens *cache
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	sources map[sourceKey]*source
}

// NewKeys returns Keys without any. It starts nothing until a rule needs it.
func NewKeys(cfg Config) *Keys {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Keys{cfg: cfg, tokens: newCache(), ctx: ctx, cancel: cancel, sources: map[sourceKey]*source{}}
}

// Close ends all fetching and waits for it. Rules go on with the keys that there are.
func (k *Keys) Close() {
	k.cancel()
	k.wg.Wait()
}

// acquire returns the source, which is fetched from then on, until release was
// called as often.
func (k *Keys) acquire(at sourceKey) *source {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.sources[at]
	if s == nil {
		ctx, cancel := context.WithCancel(k.ctx)
		s = newSource(at, k.cfg, cancel)
		k.sources[at] = s
		k.wg.Go(func() { s.run(ctx) })
	}
	s.refs++
	return s
}

func (k *Keys) release(s *source) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.refs--; s.refs == 0 {
		s.cancel()
		delete(k.sources, s.at)
	}
}

// Source is the state of one issuer's keys, for people.
type Source struct {
	// URL of the keys, empty where the issuer's metadata names it; Issuer is set then.
	URL, Issuer string
	// Keys is how many there are, Fetched when they came.
	Keys    int
	Fetched time.Time
	// Err is why the last attempt failed.
	Err error
}

// Sources returns the state of all issuers whose keys are fetched, in the order of
// their names.
func (k *Keys) Sources() []Source {
	k.mu.Lock()
	all := make([]*source, 0, len(k.sources))
	for _, s := range k.sources {
		all = append(all, s)
	}
	k.mu.Unlock()
	out := make([]Source, 0, len(all))
	for _, s := range all {
		out = append(out, s.status())
	}
	slices.SortFunc(out, func(a, b Source) int {
		return strings.Compare(a.URL+"\x00"+a.Issuer, b.URL+"\x00"+b.Issuer)
	})
	return out
}
