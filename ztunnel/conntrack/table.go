package conntrack

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/relay"
)

// Reporter is told about every connection: the access log and the metrics. It
// must not change the Connection, must not block for long, and is called from
// many goroutines.
type Reporter interface {
	// Opened is told of a connection that now carries bytes. The counters, in the
	// client's and the server's direction, move until the Report is told of the end.
	Opened(c *Connection, fromClient, fromServer *atomic.Uint64) Report
	// Failed is told of a connection that never carried a byte.
	Failed(c *Connection, duration time.Duration, err error)
}

// Report is the report on one open connection.
type Report interface {
	// Closed is told once that it ended; err is nil for a good end.
	Closed(duration time.Duration, err error)
}

// Table holds the live connections of one pod. It is safe for concurrent use.
type Table struct {
	reporter Reporter

	mu    sync.Mutex
	conns map[*Live]struct{}
	// policies were in force at the last Reauthorize, if there was one.
	policies authz.Policies
	checked  bool
	// over is why the table was cut, if it was.
	over error
}

// New returns an empty table whose connections are reported to r.
func New(r Reporter) *Table { return &Table{reporter: r, conns: map[*Live]struct{}{}} }

// Open lists c and reports that it opened. cut ends it; it may be called more
// than once, with the reason.
func (t *Table) Open(c Connection, cut context.CancelCauseFunc) *Live {
	l := &Live{Connection: c, table: t, cut: cut}
	l.sent, l.received = &l.own.Sent, &l.own.Received
	return t.list(l)
}

// OpenMirror is Open for a connection whose other end is in this process too and
// counts the bytes: Sent of other are those of the other pod's application.
func (t *Table) OpenMirror(c Connection, cut context.CancelCauseFunc, other *relay.Counters) *Live {
	l := &Live{Connection: c, table: t, cut: cut}
	l.sent, l.received = &other.Received, &other.Sent
	return t.list(l)
}

func (t *Table) list(l *Live) *Live {
	fromClient, fromServer := l.sent, l.received
	if l.Direction == Inbound {
		fromClient, fromServer = fromServer, fromClient
	}
	l.report = t.reporter.Opened(&l.Connection, fromClient, fromServer)
	t.mu.Lock()
	t.conns[l] = struct{}{}
	over := t.over
	t.mu.Unlock()
	if over != nil {
		l.cut(over)
	}
	return l
}

// Fail reports a connection that ended before it carried a byte.
func (t *Table) Fail(c Connection, err error) {
	t.reporter.Failed(&c, time.Since(c.Opened), err)
}

func (t *Table) remove(l *Live) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, listed := t.conns[l]
	delete(t.conns, l)
	return listed
}

// HasOlder tells whether a connection lives that was opened before then.
func (t *Table) HasOlder(then time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.conns {
		if l.Opened.Before(then) {
			return true
		}
	}
	return false
}

// Len is the number of live connections.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

// CutAll ends every connection with cause and returns how many there were. They
// leave the list when whoever carries them closes them. What opens later is cut at
// once: it was on its way, or comes from another pod that does not know.
func (t *Table) CutAll(cause error) int {
	t.mu.Lock()
	t.over = cause
	t.mu.Unlock()
	all := t.all(func(*Live) bool { return true })
	for _, l := range all {
		l.cut(cause)
	}
	return len(all)
}

// Reauthorize decides all inbound connections again under policies and cuts
// those that are denied now, with the *authz.Denial as cause. It costs nothing
// when the same policies were in force at the last call, so it may be called on
// every change of the mesh.
func (t *Table) Reauthorize(policies authz.Policies) (checked, cut int) {
	t.mu.Lock()
	same := t.checked && t.policies.Equal(policies)
	t.policies, t.checked = policies, true
	t.mu.Unlock()
	if same {
		return 0, 0
	}
	inbound := t.all(func(l *Live) bool { return l.Direction == Inbound })
	for _, l := range inbound {
		if l.Recheck(policies) != nil {
			cut++
		}
	}
	return len(inbound), cut
}

func (t *Table) all(keep func(*Live) bool) []*Live {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*Live
	for l := range t.conns {
		if keep(l) {
			out = append(out, l)
		}
	}
	return out
}

// List returns the live connections of one direction, oldest first.
func (t *Table) List(d Direction) []*Live {
	out := t.all(func(l *Live) bool { return l.Direction == d })
	slices.SortFunc(out, func(a, b *Live) int { return a.Opened.Compare(b.Opened) })
	return out
}
