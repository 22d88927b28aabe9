package http1

import (
	"sync"
	"time"
)

// The sides of a connection that an alarm can be set for.
const (
	alarmRead = iota
	alarmWrite
	alarmSides
)

// alarm ends a connection when its peer takes too long. It does what a connection's
// deadlines do, but for any connection, and cheaply where they are set and taken back
// for each request: its timer is left alone unless it must ring earlier, and looks
// when it rings whether there still is a reason.
type alarm struct {
	// ring is called at most once, on a goroutine of its own.
	ring func()

	mu      sync.Mutex
	done    sync.Cond // signals ringing; L is mu
	timer   *time.Timer
	at      [alarmSides]time.Time
	idle    bool      // at[alarmRead] may be set earlier by others
	armed   time.Time // when the timer rings, zero for never
	rung    bool
	ringing bool
	stopped bool
}

// set sets the alarm for one side, or takes it back with the zero time. It returns
// false when the alarm has rung.
func (a *alarm) set(side int, at time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.idle = false
	a.setLocked(side, at)
	return !a.rung
}

// setIdle sets the alarm for a connection that has nothing to do.
func (a *alarm) setIdle(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.idle = true
	a.setLocked(alarmRead, at)
}

// hurry sets the alarm of a connection that has nothing to do, if it would ring later.
func (a *alarm) hurry(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.at[alarmRead]; a.idle && (now.IsZero() || at.Before(now)) {
		a.setLocked(alarmRead, at)
	}
}

func (a *alarm) setLocked(side int, at time.Time) {
	a.at[side] = at
	if at.IsZero() || a.rung || a.stopped || !a.armed.IsZero() && !at.Before(a.armed) {
		return
	}
	a.arm(at)
}

func (a *alarm) arm(at time.Time) {
	a.armed = at
	if a.timer == nil {
		a.done.L = &a.mu
		a.timer = time.AfterFunc(time.Until(at), a.tick)
	} else {
		a.timer.Reset(time.Until(at))
	}
}

func (a *alarm) tick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed = time.Time{}
	var next time.Time
	for _, at := range a.at {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	switch {
	case next.IsZero() || a.stopped || a.rung:
	case time.Now().Before(next):
		a.arm(next)
	default:
		a.rung, a.ringing = true, true
		a.mu.Unlock()
		a.ring()
		a.mu.Lock()
		a.ringing = false
		a.done.Broadcast()
	}
}

// hasRung reports whether the alarm has ended the connection.
func (a *alarm) hasRung() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rung
}

// await waits until the alarm has rung, which must be set.
func (a *alarm) await() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.stopped && (!a.rung || a.ringing) {
		a.done.Wait()
	}
}

// stop ends the alarm, and waits for it if it rings.
func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.timer != nil {
		a.timer.Stop()
	}
	for a.ringing {
		a.done.Wait()
	}
}
