package http2

import (
	"context"
	"io"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// wakeReceiver wakes who waits for a head or for content; rmu is held.
func (s *stream) wakeReceiver() {
	if s.readable != nil {
		select {
		case s.readable <- struct{}{}:
		default:
		}
	}
}

// awaitReceive waits until something came. rmu is held, but free meanwhile. ctx may
// end it as well as the exchange's own.
func (s *stream) awaitReceive(ctx context.Context) error {
	if s.readable == nil {
		s.readable = make(chan struct{}, 1)
	}
	s.rmu.Unlock()
	defer s.rmu.Lock()
	var done <-chan struct{}
	if ctx != nil {
		done = ctx.Done()
	}
	select {
	case <-s.readable:
		return nil
	case <-done:
		return context.Cause(ctx)
	case <-s.done:
		return context.Cause(s.ctx)
	}
}

// read is Body.Read. It returns io.EOF with the last octets when they are known to be
// the last.
func (s *stream) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for {
		n := s.intoN
		s.intoN = 0
		for n < len(p) && !s.queue.empty() {
			m := copy(p[n:], s.queue.front())
			s.queue.pop(m)
			n += m
		}
		ended := s.eof && s.queue.empty()
		switch {
		case n > 0:
			if credit := s.deliver(n); credit > 0 {
				s.rmu.Unlock()
				s.returnCredit(credit)
				s.rmu.Lock()
			}
			if ended {
				return n, io.EOF
			}
			return n, nil
		case ended:
			return 0, io.EOF
		case s.rerr != nil:
			return 0, s.rerr
		}
		s.into = p
		err := s.awaitReceive(nil)
		s.into = nil
		if err != nil && s.intoN == 0 {
			return 0, err
		}
	}
}

// receivedTrailer returns the fields after the content, once it was read.
func (s *stream) receivedTrailer() message.Header {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if !s.eof || !s.queue.empty() {
		return nil
	}
	return s.trailer
}

// buffered returns how much read returns without waiting.
func (s *stream) buffered() int {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	return s.queue.size
}

// receive takes octets of DATA. Only the reader calls it, and it never waits.
func (s *stream) receive(p []byte) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.rerr != nil {
		s.returned += int64(len(p))
		return
	}
	if s.into != nil && s.queue.empty() {
		s.intoN = copy(s.into, p)
		s.into = nil
		p = p[s.intoN:]
	}
	if len(p) > 0 {
		s.queue.push(p)
	}
	if s.queue.size > classSize[classMedium] {
		s.wakeReceiver() // much came at once: let it be read meanwhile
	}
}

// receiveEnd takes END_STREAM.
func (s *stream) receiveEnd() {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.rerr == nil {
		s.eof = true
		s.giveBudgetBack()
		s.wakeReceiver()
	}
}

// wake wakes the receiver after receive; more may have come meanwhile.
func (s *stream) wake() {
	s.rmu.Lock()
	s.wakeReceiver()
	s.rmu.Unlock()
}

// deliver accounts for n octets that were read and returns the credit to give back
// now, if any; rmu is held. The window grows when a whole one was read in little time
// by somebody who keeps up.
func (s *stream) deliver(n int) int64 {
	if s.eof || s.rerr != nil {
		return 0
	}
	s.returned += int64(n)
	s.delivered += int64(n)
	if s.returned < s.window/4 {
		return 0
	}
	if s.delivered >= s.window && s.window < maxStreamWindow {
		now := time.Now()
		if now.Sub(s.growFrom) <= windowGrowthTime && int64(s.queue.size) < s.window/2 {
			more := min(s.window*windowGrowth, maxStreamWindow) - s.window
			if s.c.budget.take(more) {
				s.grown += more
				s.window += more
				s.returned += more
			}
		}
		s.growFrom = now
		s.delivered = 0
	}
	credit := s.returned
	s.returned = 0
	s.recvLeft += credit
	return credit
}

// returnCredit tells the peer that it may send n octets more.
func (s *stream) returnCredit(n int64) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.gone || s.remoteEnd || s.err != nil || c.err != nil {
		return
	}
	c.out.number(frameWindowUpdate, s.id, uint32(n))
	c.kick()
}

// drop gives up what was not read, with err; rmu is held. What was dropped is not
// whole any more, even if its end had come.
func (s *stream) drop(err error) {
	if s.rerr == nil && !(s.eof && s.queue.empty()) {
		s.rerr, s.eof = err, false
	}
	s.returned += int64(s.queue.size)
	s.queue.clear()
	s.into = nil
	s.giveBudgetBack()
	s.wakeReceiver()
}

// giveBudgetBack returns what the window grew by; rmu is held.
func (s *stream) giveBudgetBack() {
	if s.grown > 0 {
		s.c.budget.release(s.grown)
		s.grown = 0
	}
}
