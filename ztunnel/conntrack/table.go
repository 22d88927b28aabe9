package conntrack

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/internal/authz"
)

// Reporter is told about every connection: the access log and the metrics. It
// must not keep or change the Connection, must not block for long, and is
// called from many goroutines.
type Reporter interface {
	// Opened is told of a connection that now carries bytes, Closed of its end.
	Opened(c *Connection)
	Closed(c *Connection, sent, received uint64, duration time.Duration, err error)
	// Failed is told of a connection that never carried a byte.
	Failed(c *Connection, duration time.Duration, err error)
}

// Table holds the live connections of one pod. It is safe for concurrent use.
type Table struct {
	reporter Reporter

	mu    sync.Mutex
	conns map[*Live]struct{}
	// version of the policies at the last Reauthorize, if there was one.
	version uint64
	checked bool
}

// New returns an empty table whose connections are reported to r.
func New(r Reporter) *Table { return &Table{reporter: r, conns: map[*Live]struct{}{}} }

// Open lists c and reports that it opened. cut ends it; it may be called more
// than once, with the reason.
func (t *Table) Open(c Connection, cut context.CancelCauseFunc) *Live {
	l := &Live{Connection: c, table: t, cut: cut}
	t.mu.Lock()
	t.conns[l] = struct{}{}
	t.mu.Unlock()
	t.reporter.Opened(&l.Connection)
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

// Len is the number of live connections.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

// CutAll ends every connection with cause and returns how many there were. They
// leave the list when whoever carries them closes them.
func (t *Table) CutAll(cause error) int {
	all := t.all(func(*Live) bool { return true })
	for _, l := range all {
		l.cut(cause)
	}
	return len(all)
}

// Reauthorize decides all inbound connections again under policies and cuts
// those that are denied now, with the *authz.Denial as cause. version tells
// states of the policies apart (state.Snapshot.PolicyVersion): a call with the
// version of the last one costs nothing, so it may be made on every change.
func (t *Table) Reauthorize(version uint64, policies authz.Policies) (checked, cut int) {
	t.mu.Lock()
	same := t.checked && t.version == version
	t.version, t.checked = version, true
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
