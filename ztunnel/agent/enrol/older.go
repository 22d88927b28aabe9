package enrol

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/agent/sockdiag"
)

// older are the connections of one pod that began before its rules. Only such
// connections can go past the proxy, so none comes to it later than settle after
// the capture. Guarded by Manager.mu.
type older struct {
	// until is when connections stop to be taken for older; zero before the first
	// look.
	until time.Time
	known map[uint64]bool // by cookie
	alive []sockdiag.Socket
}

func (o *older) list(enrolled int) ([]Connection, int) {
	out := make([]Connection, 0, min(len(o.alive), maxListed))
	for _, s := range o.alive[:cap(out)] {
		out = append(out, Connection{Local: s.Local, Remote: s.Remote, State: s.State.String(), EnrolledSeconds: enrolled})
	}
	return out, len(o.alive)
}

// lookForOlder brings the list of a pod's older connections up to date. The
// caller has the pod's slot.
func (m *Manager) lookForOlder(e *entry, now time.Time) {
	m.mu.Lock()
	if e.older.until.IsZero() {
		e.older.until = now.Add(settle)
	}
	taking := now.Before(e.older.until)
	idle := !taking && len(e.older.known) == 0
	ns := e.ns
	m.mu.Unlock()
	if idle || ns == nil {
		return
	}
	all, err := sockdiag.List(ns)
	var fresh []sockdiag.Socket
	if err == nil && taking {
		fresh, err = twice(ns, sockdiag.Bypassing(all))
	}
	if err != nil {
		m.log.Warn("cannot list the pod's connections", append(fields(e.Pod), zap.Error(err))...)
		return
	}
	m.mu.Lock()
	known := map[uint64]bool{}
	var alive []sockdiag.Socket
	for _, s := range fresh {
		if e.older.known == nil {
			e.older.known = map[uint64]bool{}
		}
		e.older.known[s.Cookie] = true
	}
	for _, s := range all {
		if e.older.known[s.Cookie] && !known[s.Cookie] {
			known[s.Cookie] = true
			alive = append(alive, s)
		}
	}
	e.older.known, e.older.alive = known, alive
	m.mu.Unlock()
}

// twice keeps those of sockets that a second list shows as bypassing as well: a
// list is not taken at one moment.
func twice(ns *netns.NS, sockets []sockdiag.Socket) ([]sockdiag.Socket, error) {
	if len(sockets) == 0 {
		return nil, nil
	}
	again, err := sockdiag.List(ns)
	if err != nil {
		return nil, err
	}
	still := map[uint64]bool{}
	for _, s := range sockdiag.Bypassing(again) {
		still[s.Cookie] = true
	}
	var out []sockdiag.Socket
	for _, s := range sockets {
		if still[s.Cookie] {
			out = append(out, s)
		}
	}
	return out, nil
}

// endOlder ends the older connections of a strict pod whose time is over. The
// caller has the pod's slot.
func (m *Manager) endOlder(e *entry, now time.Time) {
	m.mu.Lock()
	begun := e.Since
	if e.strictSince.After(begun) {
		begun = e.strictSince
	}
	var doomed []sockdiag.Socket
	if e.Strict && e.ns != nil && !now.Before(begun.Add(m.cfg.StrictGrace)) {
		doomed = e.older.alive
	}
	m.mu.Unlock()
	if len(doomed) == 0 {
		return
	}
	ended := 0
	for _, s := range doomed {
		switch err := sockdiag.Destroy(e.ns, s); {
		case err == nil:
			ended++
			m.log.Info("ended a plaintext connection older than the strict pod's enrolment",
				append(fields(e.Pod), zap.Stringer("local", s.Local), zap.Stringer("remote", s.Remote))...)
		case errors.Is(err, sockdiag.ErrUnsupported):
			m.log.Error("plaintext connections of a strict pod go on", append(fields(e.Pod), zap.Int("connections", len(doomed)), zap.Error(err))...)
			return
		default:
			m.log.Warn("cannot end a plaintext connection of a strict pod", append(fields(e.Pod), zap.Error(err))...)
		}
	}
	m.metrics.ended.Add(float64(ended))
	m.lookForOlder(e, now)
}
