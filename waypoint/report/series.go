package report

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// kind is what was carried: the label request_protocol.
type kind uint8

const (
	tcp kind = iota
	http
	grpc
)

func (k kind) String() string { return [...]string{"tcp", "http", "grpc"}[k] }

func kindOf(q *forward.Record) kind {
	switch {
	case q.Method == "":
		return tcp
	case q.Call:
		return grpc
	}
	return http
}

// handleKey finds a series by what a record has at hand.
type handleKey struct {
	source  *side
	target  *upstream.Target
	service workload.ServiceKey
	// backend and route are "" for the service itself.
	backend, route, flag string
	// extra are the values of labels that expressions give, joined.
	extra string
	code  int16
	grpc  int16
	kind  kind
}

// handle is where a request counts. It is immutable.
type handle struct {
	key    handleKey
	series *series
	route  *routeStats
	// generation is that of the handles that it is one of.
	generation uint64
}

// place is that of the key in a connection's memory: requests differ in where they were
// sent first of all.
func (k *handleKey) place() int {
	at := int(k.code) ^ len(k.route)
	if k.target != nil {
		a := k.target.Endpoint().Addr
		bytes := a.Addr().As16()
		at ^= int(bytes[15]) ^ int(a.Port())
	}
	return at & 7
}

// handles are found under a lock that is shared, in parts so that processors do not
// meet in one.
type handles struct {
	// generation counts how often they were forgotten.
	generation atomic.Uint64
	parts      [handleParts]struct {
		mu  sync.RWMutex
		all map[handleKey]*handle
		_   [32]byte // to the end of the cache line
	}
}

const handleParts = 16

func (k *handleKey) part() int {
	return (int(k.code) ^ len(k.route) ^ len(k.backend)*7) & (handleParts - 1)
}

func (h *handles) find(k *handleKey) *handle {
	p := &h.parts[k.part()]
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.all[*k]
}

func (h *handles) add(v *handle) {
	p := &h.parts[v.key.part()]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil || len(p.all) >= maxHandles/handleParts {
		p.all = map[handleKey]*handle{}
	}
	p.all[v.key] = v
}

func (h *handles) forget() {
	h.generation.Add(1)
	for i := range h.parts {
		p := &h.parts[i]
		p.mu.Lock()
		p.all = nil
		p.mu.Unlock()
	}
}

// serviceFacts are what labels say of the service that was addressed.
type serviceFacts struct{ hostname, name, namespace string }

// seriesKey is all labels of a series.
type seriesKey struct {
	source, destination facts
	service             serviceFacts
	kind                kind
	code, grpc          int16
	flag, extra         string
}

// series counts the requests, or connections, of one combination of labels.
type series struct {
	key      seriesKey
	requests atomic.Uint64
	duration histogram // nanoseconds
	received histogram
	sent     histogram
	// messages of gRPC.
	requestMessages, responseMessages atomic.Uint64
	// opened, closed and the bytes are those of connections.
	opened, closed, bytesIn, bytesOut atomic.Uint64

	// Of the collector: what was counted at the last look, and when it last changed.
	seen    uint64
	changed time.Time
	pairs   labelPairs
}

func (s *series) total() uint64 { return s.requests.Load() + s.opened.Load() + s.closed.Load() }

// bounds are Envoy's, of all histograms: milliseconds and bytes.
var bounds = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// histogram counts values by bounds. The unit of its sum is its owner's.
type histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64
	sum     atomic.Uint64
}

// durationBounds are bounds in nanoseconds, byteBounds whole bytes.
var durationBounds, byteBounds = func() (d, b [len(bounds)]uint64) {
	for i, v := range bounds {
		d[i] = uint64(v * float64(time.Millisecond))
		b[i] = uint64(math.Floor(v))
	}
	return d, b
}()

func (h *histogram) observe(v uint64, bounds *[len(bounds)]uint64) {
	// Half of the requests are found within some steps; a search by halves is no quicker.
	i := 0
	for i < len(bounds) && v > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(v)
}

// count counts a request or a connection that is over.
func (s *series) count(q *forward.Record) {
	if s.key.kind == tcp {
		s.closed.Add(1)
		if q.Opened {
			s.bytesIn.Add(uint64(q.Received))
			s.bytesOut.Add(uint64(q.Sent))
		}
		return
	}
	s.requests.Add(1)
	s.duration.observe(uint64(q.Duration), &durationBounds)
	s.received.observe(uint64(q.Received), &byteBounds)
	s.sent.observe(uint64(q.Sent), &byteBounds)
	if s.key.kind == grpc {
		s.requestMessages.Add(uint64(q.RequestMessages))
		s.responseMessages.Add(uint64(q.ResponseMessages))
	}
}
