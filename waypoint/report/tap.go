package report

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/forward"
)

// Live is a request, or a connection, that has just ended, for those who look.
type Live struct {
	Time time.Time `json:"time"`
	// Source is the client's workload, Client its address.
	Source          string `json:"source"`
	SourceNamespace string `json:"sourceNamespace,omitempty"`
	Identity        string `json:"identity"`
	Client          string `json:"client"`
	Service         string `json:"service"`
	Port            uint16 `json:"port"`
	Protocol        string `json:"protocol"`
	Method          string `json:"method,omitempty"`
	Authority       string `json:"authority,omitempty"`
	Path            string `json:"path,omitempty"`
	Status          int    `json:"status"`
	// GRPC is the call's status, absent where it is none.
	GRPC       *int    `json:"grpc,omitempty"`
	Millis     float64 `json:"ms"`
	Backend    string  `json:"backend,omitempty"`
	Endpoint   string  `json:"endpoint,omitempty"`
	Workload   string  `json:"workload,omitempty"`
	Attempts   int     `json:"attempts,omitempty"`
	Received   int64   `json:"received"`
	Sent       int64   `json:"sent"`
	Route      string  `json:"route,omitempty"`
	Policy     string  `json:"policy,omitempty"`
	Limit      string  `json:"limit,omitempty"`
	Flags      string  `json:"flags,omitempty"`
	Detail     string  `json:"detail,omitempty"`
	Error      string  `json:"error,omitempty"`
	RequestID  string  `json:"requestId,omitempty"`
	TraceID    string  `json:"traceId,omitempty"`
	UserAgent  string  `json:"userAgent,omitempty"`
	ResponseAt float64 `json:"headMs,omitempty"`
	// Missed is how many before it were not told because the reader is slow.
	Missed uint64 `json:"missed,omitempty"`
}

// Tap is one who watches live requests.
type Tap struct {
	// C has the requests that the filter lets through. It is never closed; see Done.
	C      <-chan Live
	queue  chan Live
	filter func(*Live) bool
	missed atomic.Uint64
	from   *taps
}

// taps are all who watch.
type taps struct {
	mu     sync.Mutex
	closed bool
	done   chan struct{}
	list   atomic.Pointer[[]*Tap]
}

// Done is closed when the Reporter is: nobody is told of anything any more.
func (r *Reporter) Done() <-chan struct{} { return r.taps.done }

func (t *taps) watched() bool { return t.list.Load() != nil }

// Watch starts to watch the requests for which filter is true; nil watches all. It
// returns nil when too many do, or the Reporter has ended. Close ends it.
func (r *Reporter) Watch(filter func(*Live) bool) *Tap {
	t := &r.taps
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*Tap
	if old := t.list.Load(); old != nil {
		list = append(list, *old...)
	}
	if t.closed || len(list) >= maxTaps {
		return nil
	}
	queue := make(chan Live, tapQueue)
	tap := &Tap{C: queue, queue: queue, filter: filter, from: t}
	list = append(list, tap)
	t.list.Store(&list)
	return tap
}

// Close ends the watching. It may be called more than once.
func (p *Tap) Close() {
	t := p.from
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(p)
}

// remove takes a tap away; the caller holds mu. C stays open: requests may be under way
// to it.
func (t *taps) remove(p *Tap) {
	old := t.list.Load()
	if old == nil {
		return
	}
	var list []*Tap
	for _, x := range *old {
		if x != p {
			list = append(list, x)
		}
	}
	if len(list) == 0 {
		t.list.Store(nil)
		return
	}
	t.list.Store(&list)
}

func (t *taps) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		close(t.done)
	}
	t.list.Store(nil)
}

// tell tells all who watch of a request.
func (t *taps) tell(m *memory, q *forward.Record) {
	list := t.list.Load()
	if list == nil {
		return
	}
	l := liveOf(m, q)
	for _, p := range *list {
		if p.filter != nil && !p.filter(&l) {
			continue
		}
		l.Missed = p.missed.Swap(0)
		select {
		case p.queue <- l:
		default:
			p.missed.Add(l.Missed + 1)
		}
	}
}

func liveOf(m *memory, q *forward.Record) Live {
	c := q.Client
	l := Live{
		Time: q.Start, Source: m.source.workload, SourceNamespace: m.source.namespace, Identity: c.Identity.String(), Client: c.Source.String(),
		Service: c.Service.String(), Port: c.Port, Protocol: kindOf(q).String(), Method: q.Method, Authority: q.Authority, Path: target(q),
		Status: q.Status, Millis: millis(q.Duration), Backend: q.Backend, Endpoint: q.Endpoint(), Attempts: q.Attempts,
		Received: q.Received, Sent: q.Sent, Route: q.Route, Policy: q.Policy, Limit: q.Limit, Flags: q.Flag, Detail: q.Detail,
		ResponseAt: millis(q.Head),
	}
	if q.Target != nil {
		l.Workload = q.Target.Endpoint().UID
	}
	if q.Call && q.GRPC >= 0 {
		n := q.GRPC
		l.GRPC = &n
	}
	if q.Err != nil {
		l.Error = q.Err.Error()
	}
	if q.Request != nil {
		l.RequestID, l.UserAgent = q.Request.Header.Get("x-request-id"), q.Request.Header.Get("user-agent")
	}
	if q.Span != nil {
		l.TraceID = hexOf(q.Span.Trace[:])
	}
	return l
}

// target is what the client asked for.
func target(q *forward.Record) string {
	if q.HasQuery {
		return q.Path + "?" + q.Query
	}
	return q.Path
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
