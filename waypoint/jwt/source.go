package jwt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/backoff"
)

// sourceKey tells sources apart. issuer is set only where its metadata names the URL
// (OpenID Connect Discovery 1.0, 4).
type sourceKey struct {
	url, issuer string
	timeout     time.Duration
}

func (k sourceKey) String() string {
	if k.url != "" {
		return k.url
	}
	return k.issuer
}

// source keeps the keys of one URL fresh. Its run owns the fetching; requests read
// current and may ask for more.
type source struct {
	at     sourceKey
	fetch  Fetcher
	log    *zap.Logger
	cancel context.CancelFunc
	refs   int // guarded by Keys.mu

	held atomic.Pointer[held]
	// wake asks run for an attempt before its time.
	wake chan struct{}

	mu sync.Mutex // guards what follows
	// busy says that an attempt is under way or asked for; settled is closed when it
	// ends.
	busy    bool
	settled chan struct{}
	// last is when the last attempt ended, err how.
	last time.Time
	err  error
	// ended says that nobody will fetch any more.
	ended bool
}

// held is a key set and when it was fetched last.
type held struct {
	keys *keySet
	at   time.Time
}

func newSource(at sourceKey, cfg Config, cancel context.CancelFunc) *source {
	return &source{
		at: at, fetch: cfg.Fetcher, log: cfg.Log.With(zap.String("keys", at.String())), cancel: cancel,
		wake: make(chan struct{}, 1), busy: true, settled: make(chan struct{}),
	}
}

// current returns the keys, nil without any that still count.
func (s *source) current(now time.Time) *keySet {
	h := s.held.Load()
	if h == nil || now.Sub(h.at) > maxStale {
		return nil
	}
	return h.keys
}

// renew returns other keys than those, waiting for them to be fetched if that is
// under way or has not been done just now; nil if there are none.
func (s *source) renew(ctx context.Context, than *keySet) *keySet {
	s.mu.Lock()
	now := time.Now()
	if keys := s.current(now); keys != than {
		s.mu.Unlock()
		return keys
	}
	if !s.busy {
		if s.ended || now.Sub(s.last) < renewInterval {
			s.mu.Unlock()
			return nil
		}
		s.begin()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	settled := s.settled
	s.mu.Unlock()

	timeout := time.NewTimer(s.at.timeout)
	defer timeout.Stop()
	select {
	case <-settled:
	case <-timeout.C:
	case <-ctx.Done():
	}
	if keys := s.current(time.Now()); keys != than {
		return keys
	}
	return nil
}

// begin and settle want the lock.
func (s *source) begin() {
	if !s.busy {
		s.busy, s.settled = true, make(chan struct{})
	}
}

func (s *source) settle(err error) {
	if s.busy {
		s.busy = false
		close(s.settled)
	}
	s.last, s.err = time.Now(), err
}

func (s *source) run(ctx context.Context) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = true
		s.settle(ctx.Err())
	}()
	retry := backoff.New(retryMin, retryMax)
	for {
		age, err := s.attempt(ctx)
		s.mu.Lock()
		s.settle(err)
		s.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Warn("cannot fetch the keys of an issuer", zap.Error(err), zap.Bool("have_keys", s.current(time.Now()) != nil))
			age = retry.Next()
		} else {
			retry.Reset()
			// Before they are too old, and not all waypoints at once.
			age -= rand.N(age / 5)
		}
		timer := time.NewTimer(age)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		}
		s.mu.Lock()
		s.begin()
		s.mu.Unlock()
	}
}

// attempt fetches once and returns how long the keys are fresh.
func (s *source) attempt(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, s.at.timeout)
	defer cancel()
	url := s.at.url
	if url == "" {
		var err error
		if url, err = s.discover(ctx); err != nil {
			return 0, err
		}
	}
	doc, err := s.fetch.Fetch(ctx, url)
	if err != nil {
		return 0, err
	}
	keys, err := parseKeySet(doc.Body)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", url, err)
	}
	before := s.held.Load()
	if before != nil && before.keys.sum == keys.sum {
		// What they verified stays verified.
		keys = before.keys
	} else {
		s.log.Info("fetched the keys of an issuer", zap.Int("count", len(keys.keys)))
	}
	s.held.Store(&held{keys: keys, at: time.Now()})
	age := doc.MaxAge
	if age == 0 {
		age = defaultAge
	}
	return min(max(age, minAge), maxAge), nil
}

// discover reads the URL of the keys in the issuer's metadata.
func (s *source) discover(ctx context.Context) (string, error) {
	url := strings.TrimSuffix(s.at.issuer, "/") + "/.well-known/openid-configuration"
	doc, err := s.fetch.Fetch(ctx, url)
	if err != nil {
		return "", err
	}
	var metadata struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(doc.Body, &metadata); err != nil {
		return "", fmt.Errorf("%s: %w", url, err)
	}
	switch {
	case metadata.Issuer != s.at.issuer:
		// OpenID Connect Discovery 1.0, 4.3.
		return "", fmt.Errorf("%s: is of another issuer", url)
	case metadata.Keys == "":
		return "", errors.New(url + ": names no jwks_uri")
	case strings.HasPrefix(url, "https://") && !strings.HasPrefix(metadata.Keys, "https://"):
		return "", errors.New(url + ": names a jwks_uri without TLS")
	}
	return metadata.Keys, nil
}

func (s *source) status() Source {
	out := Source{URL: s.at.url, Issuer: s.at.issuer}
	if h := s.held.Load(); h != nil {
		out.Keys, out.Fetched = len(h.keys.keys), h.at
	}
	s.mu.Lock()
	out.Err = s.err
	s.mu.Unlock()
	return out
}
