package http2

import (
	"math"
	"slices"
	"time"
)

// discards are a server's streams whose request was declined, by a complete response
// with a status from 300 on, before it was complete. A server may reset them at once (RFC
// 9113, 8.1), but clients that still send may then lose the response, where it came
// together with the reset: curl 7.88 does. So what comes is dropped for a while, without
// anybody's goroutine. Most clients stop when they see the response.
//
// Who was answered with success is reset at once: his status tells him to go on, and that
// curl sends for ever, without reading.
type discards struct {
	// The connection's mu guards all of it.
	queue []discard // in the order of until; some are over
	open  int       // how many are not
	timer *time.Timer
}

// discard is one of them.
type discard struct {
	id    uint32
	until time.Time
}

// discard has the rest of a request dropped until the peer ends or resets the stream,
// or discardTime has passed; mu is held, but may be free in between. Where there are too
// many, the oldest is reset.
func (c *conn) discard(s *stream) {
	d := &c.server.discards
	limit := max(int(c.server.maxStreams)/discardShare, 1)
	now := time.Now()
	s.discarding = true
	d.open++
	if len(d.queue) >= 2*limit {
		d.queue = slices.DeleteFunc(d.queue, func(e discard) bool { return c.streams[e.id] == nil })
	}
	d.queue = append(d.queue, discard{s.id, now.Add(discardTime)})
	if d.timer == nil {
		d.timer = time.AfterFunc(discardTime, c.discardsDue)
	}
	c.endDiscards(now, limit)
}

// endDiscards resets, the oldest first, those whose time has passed, and those beyond
// limit; mu is held, but may be free in between.
func (c *conn) endDiscards(now time.Time, limit int) {
	d := &c.server.discards
	for len(d.queue) > 0 && c.err == nil {
		s := c.streams[d.queue[0].id]
		if s != nil && d.open <= limit && d.queue[0].until.After(now) {
			return
		}
		d.queue = d.queue[1:]
		if s != nil {
			c.queueReset(s.id, codeNo)
			s.end(errDone)
			s.settle()
		}
	}
}

// discardsDue is the timer's.
func (c *conn) discardsDue() {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &c.server.discards
	now := time.Now()
	c.endDiscards(now, math.MaxInt)
	d.timer = nil
	if c.err != nil {
		return
	}
	if len(d.queue) > 0 {
		d.timer = time.AfterFunc(d.queue[0].until.Sub(now), c.discardsDue)
	}
	c.kick()
}

// stopDiscards ends the timer of a connection that is over; mu is held.
func (c *conn) stopDiscards() {
	if t := c.server.discards.timer; t != nil {
		t.Stop()
	}
}

// concede lets the peer go on with content that is dropped, up to maxDiscard octets.
func (s *stream) concede() {
	s.rmu.Lock()
	n := int64(0)
	if s.returned >= defaultWindow/4 {
		n = min(s.returned, maxDiscard-s.conceded)
		s.returned = 0
		s.conceded += n
		s.recvLeft += n
	}
	s.rmu.Unlock()
	if n > 0 {
		s.returnCredit(n)
	}
}

// late tells whether what comes now is for nobody, because the request was declined. The
// client may end it before all has come that its head announced. c.mu is held.
func (s *stream) late() bool { return s.x != nil && s.localEnd && s.x.declined }
