package extauthz

import (
	"errors"
	"slices"
	"sync"
	"time"

	api "github.com/tulle-mesh/tulle/api/waypoint"
)

// Result is how a question ended.
type Result uint8

// The results of questions.
const (
	// Allowed and Denied are the authorizer's answers.
	Allowed Result = iota
	Denied
	// Error is no answer, or one that is none, and TimedOut none in time.
	Error
	TimedOut
	results
)

var resultNames = [results]string{"allowed", "denied", "error", "timed_out"}

// String returns the word for metrics.
func (r Result) String() string { return resultNames[r] }

// Result tells how the question ended, whatever becomes of the request.
func (a *Answer) Result() Result {
	switch {
	case errors.Is(a.Err, ErrLate):
		return TimedOut
	case a.Err != nil:
		return Error
	case a.allowed:
		return Allowed
	}
	return Denied
}

// buckets are the upper bounds of Summary.Within: authorizers next door answer in a
// millisecond, and defaultTimeout is five seconds.
var buckets = []time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
}

// Stats counts questions by provider. The zero value is ready; it is safe for concurrent
// use.
type Stats struct {
	mu        sync.Mutex
	providers map[string]*tally
}

type tally struct {
	results [results]uint64
	asked   uint64
	took    time.Duration
	within  []uint64 // by bucket
}

// others is the name under which providers count beyond maxProviders.
const others = "other"

// of returns the tally of a provider; mu is held.
func (s *Stats) of(provider string) *tally {
	t := s.providers[provider]
	if t == nil && len(s.providers) >= maxProviders {
		provider = others
		t = s.providers[provider]
	}
	if t == nil {
		if s.providers == nil {
			s.providers = map[string]*tally{}
		}
		t = &tally{within: make([]uint64, len(buckets))}
		s.providers[provider] = t
	}
	return t
}

// Asked counts a question and the time that it took.
func (s *Stats) Asked(provider string, a *Answer, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.of(provider)
	t.results[a.Result()]++
	t.asked++
	t.took += took
	if i, _ := slices.BinarySearch(buckets, took); i < len(buckets) {
		t.within[i]++
	}
}

// Unasked counts a question that this end had no means to ask, and returns the answer to
// it: Failed's, but a refusal also where the provider fails open. That is for authorizers
// that are away; clients can bring this about.
func (s *Stats) Unasked(provider string, auth *api.ExternalAuth, err error) *Answer {
	a := Failed(auth, err)
	a.allowed = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of(provider).results[a.Result()]++
	return a
}

// Summary is what is counted of one provider.
type Summary struct {
	Provider string
	// Results counts questions by how they ended.
	Results map[Result]uint64
	// Asked is how many were asked, Took the time of all, and Within how many of them
	// took at most so long.
	Asked  uint64
	Took   time.Duration
	Within map[time.Duration]uint64
}

// Summaries returns what was counted, in no order.
func (s *Stats) Summaries() []Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Summary, 0, len(s.providers))
	for name, t := range s.providers {
		one := Summary{Provider: name, Results: map[Result]uint64{}, Asked: t.asked, Took: t.took, Within: map[time.Duration]uint64{}}
		for r, n := range t.results {
			one.Results[Result(r)] = n
		}
		var sum uint64
		for i, n := range t.within {
			sum += n
			one.Within[buckets[i]] = sum
		}
		list = append(list, one)
	}
	return list
}
