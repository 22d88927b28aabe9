package report

import (
	"math"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/forward"
)

// latencyBounds are those of Summary.Buckets: from 0.1 ms, each a quarter more than the
// last, to a minute and a half.
var latencyBounds = func() (b [62]uint64) {
	at := float64(100 * time.Microsecond)
	for i := range b {
		b[i] = uint64(at)
		at *= 1.25
	}
	return b
}()

// routeStats sums up one route of one service.
type routeStats struct {
	service  workload.ServiceKey
	route    string
	kind     kind
	requests atomic.Uint64
	failed   atomic.Uint64
	limited  atomic.Uint64
	denied   atomic.Uint64
	retried  atomic.Uint64
	bytes    atomic.Uint64
	buckets  [len(latencyBounds) + 1]atomic.Uint64
}

// count counts a request that is over.
func (s *routeStats) count(q *forward.Record) {
	s.requests.Add(1)
	if failed(q) {
		s.failed.Add(1)
	}
	if q.Limit != "" {
		s.limited.Add(1)
	}
	if q.Flag == "UAEX" {
		s.denied.Add(1)
	}
	if q.Attempts > 1 {
		s.retried.Add(uint64(q.Attempts - 1))
	}
	s.bytes.Add(uint64(q.Received + q.Sent))
	d := uint64(q.Duration)
	i := sort.Search(len(latencyBounds), func(i int) bool { return d <= latencyBounds[i] })
	s.buckets[i].Add(1)
}

// failed says what is no success: no response, a server's error, and a gRPC status that
// says the same.
func failed(q *forward.Record) bool {
	if q.Method == "" {
		return q.Err != nil
	}
	switch q.GRPC {
	case 2, 4, 12, 13, 14, 15: // as gRPC's clients count: unknown, deadline, unimplemented, internal, unavailable, data loss
		return true
	}
	return q.Status == 0 || q.Status >= 500
}

// routeKey is what is summed up together.
type routeKey struct {
	service workload.ServiceKey
	route   string
	kind    kind
}

type routes struct {
	mu  sync.Mutex
	all map[routeKey]*routeStats
}

func (r *routes) init() { r.all = map[routeKey]*routeStats{} }

func (r *routes) of(service workload.ServiceKey, route string, k kind) *routeStats {
	key := routeKey{service, route, k}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.all[key]
	if s == nil {
		if len(r.all) >= maxRoutes {
			key = routeKey{route: "(others)"}
			if s = r.all[key]; s != nil {
				return s
			}
		}
		s = &routeStats{service: key.service, route: key.route, kind: key.kind}
		r.all[key] = s
	}
	return s
}

// Summary is one route of one service since the start of the waypoint.
type Summary struct {
	Service string `json:"service"`
	// Route is empty for requests that went to the service itself, or nowhere.
	Route    string `json:"route,omitempty"`
	Protocol string `json:"protocol"`
	Requests uint64 `json:"requests"`
	// Failed had no response or a server's error, Limited were refused by a rate limit,
	// Denied by a policy. Retries are attempts beyond the first.
	Failed  uint64 `json:"failed"`
	Limited uint64 `json:"limited,omitempty"`
	Denied  uint64 `json:"denied,omitempty"`
	Retries uint64 `json:"retries,omitempty"`
	Bytes   uint64 `json:"bytes"`
	// Buckets count requests by how long they took: bucket i those up to
	// 0.1 ms * 1.25^i, the last all others. Empty ones at the end are left out.
	Buckets []uint64 `json:"buckets"`
}

// Top sums up all routes, in no order.
func (r *Reporter) Top() []Summary {
	r.routes.mu.Lock()
	all := make([]*routeStats, 0, len(r.routes.all))
	for _, s := range r.routes.all {
		all = append(all, s)
	}
	r.routes.mu.Unlock()
	out := make([]Summary, len(all))
	for i, s := range all {
		out[i] = Summary{
			Service: s.service.String(), Route: s.route, Protocol: s.kind.String(),
			Requests: s.requests.Load(), Failed: s.failed.Load(), Limited: s.limited.Load(), Denied: s.denied.Load(),
			Retries: s.retried.Load(), Bytes: s.bytes.Load(),
		}
		last := 0
		for j := range s.buckets {
			if s.buckets[j].Load() > 0 {
				last = j + 1
			}
		}
		for j := range last {
			out[i].Buckets = append(out[i].Buckets, s.buckets[j].Load())
		}
	}
	return out
}

// Quantile reads from the Buckets of a Summary, or the difference of two, how long the
// part q of the requests took at most; 0 without any.
func Quantile(buckets []uint64, q float64) time.Duration {
	var total uint64
	for _, n := range buckets {
		total += n
	}
	if total == 0 {
		return 0
	}
	want := uint64(math.Ceil(q * float64(total)))
	var sum uint64
	for i, n := range buckets {
		if sum += n; sum >= want && n > 0 {
			return time.Duration(latencyBounds[min(i, len(latencyBounds)-1)])
		}
	}
	return 0
}
