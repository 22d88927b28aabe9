package hbone

import (
	"sync/atomic"
	"time"
)

// deliver hands DATA to whoever takes the stream: straight to the joined socket
// when that takes it at once, else to the queue. Only the tunnel's reader calls it,
// and it never waits.
func (s *stream) deliver(p []byte) {
	s.rmu.Lock()
	if s.rerr != nil {
		s.rmu.Unlock()
		return
	}
	if j := s.join; j != nil && !s.draining && s.queue.empty() {
		// Nobody else writes to the socket now: an on-demand writer starts only below.
		s.rmu.Unlock()
		n, err := j.writeNow(p)
		if err != nil {
			j.writeFailed(err)
			return
		}
		s.rmu.Lock()
		credit := s.deliveredLocked(n)
		p = p[n:]
		if len(p) > 0 && s.rerr == nil {
			s.queue.push(p)
			s.draining = true
			go s.drain(j)
		}
		s.rmu.Unlock()
		if credit > 0 {
			s.t.returnCredit(s, credit)
		}
		return
	}
	s.queue.push(p)
	if s.join == nil {
		s.arrived.Signal()
	}
	s.rmu.Unlock()
}

// finishReceive notes the peer's half-close, which takes effect after what is queued.
func (s *stream) finishReceive() {
	s.rmu.Lock()
	if s.rerr != nil || s.eof {
		s.rmu.Unlock()
		return
	}
	s.eof = true
	s.giveBudgetBack()
	j := s.join
	direct := j != nil && !s.draining
	s.arrived.Broadcast()
	s.rmu.Unlock()
	if direct {
		j.received()
	}
}

// attach makes j's socket the receiver of what is queued and what comes.
func (s *stream) attach(j *join) error {
	s.rmu.Lock()
	if s.rerr != nil {
		defer s.rmu.Unlock()
		return s.rerr
	}
	s.join = j
	start := !s.queue.empty()
	ended := s.eof && !start
	if start {
		s.draining = true
		go s.drain(j)
	}
	s.rmu.Unlock()
	if ended {
		j.received()
	}
	return nil
}

// drain writes the queue to j's socket, waiting for it, and ends when the queue is
// empty.
func (s *stream) drain(j *join) {
	for {
		s.rmu.Lock()
		if s.rerr != nil || s.queue.empty() {
			s.draining = false
			ended := s.rerr == nil && s.eof
			s.queue.clear()
			s.rmu.Unlock()
			if ended {
				j.received()
			}
			return
		}
		chunk := s.queue.front()
		s.rmu.Unlock()

		n, err := j.write(chunk)

		s.rmu.Lock()
		s.queue.pop(n)
		credit := s.deliveredLocked(n)
		if err != nil {
			s.draining = false
			s.queue.clear()
		}
		s.rmu.Unlock()
		if err != nil {
			j.writeFailed(err)
			return
		}
		if credit > 0 {
			s.t.returnCredit(s, credit)
			s.t.kick()
		}
	}
}

// deliveredLocked accounts for n octets that left the stream towards its reader and
// returns the credit to give back now, if any; rmu is held. The window grows when a
// whole one was delivered in little time while its reader kept up.
func (s *stream) deliveredLocked(n int) int64 {
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
			if s.t.budget.take(more) {
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

// Budget bounds what the receive windows of many streams may grow by together, so
// that peers that stop reading cannot make a proxy hold memory without bound. It is
// safe for concurrent use, and several tunnels may share one.
type Budget struct {
	left atomic.Int64
}

// NewBudget returns a budget of the given octets.
func NewBudget(octets int64) *Budget {
	b := &Budget{}
	b.left.Store(octets)
	return b
}

func (b *Budget) take(n int64) bool {
	if b.left.Add(-n) >= 0 {
		return true
	}
	b.left.Add(n)
	return false
}

func (b *Budget) release(n int64) { b.left.Add(n) }
