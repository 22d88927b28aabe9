package hbone

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

var errWriteAfterClose = errors.New("write after CloseWrite")

// stream is one HTTP/2 stream of a tunnel.
type stream struct {
	t  *tunnel
	id uint32

	// Protocol state and sending, guarded by t.mu.
	err        error // why the stream broke; nil while it runs or when it ended in order
	localEnd   bool  // END_STREAM sent
	remoteEnd  bool  // END_STREAM received
	local      bool  // opened by this end
	connect    bool  // a CONNECT: only DATA may follow its header
	answered   bool  // the answer was sent, or received
	handling   bool  // the server's handler runs
	gone       bool  // no longer in t.streams
	waiting    bool  // in t.starved
	sendWindow int64
	credit     sync.Cond // signals sendWindow, err; L is t.mu

	// dead is err != nil, for a look without the lock.
	dead atomic.Bool

	// answer tells a client's Open that the answer or an error came.
	answer   chan struct{}
	response Response

	// cancel ends the context of the server's handler; set before the stream is listed.
	cancel context.CancelCauseFunc

	// bodyLeft is what a content-length still promises, -1 when there was none; the
	// reader's.
	bodyLeft int64

	// Receiving.
	rmu       sync.Mutex
	arrived   sync.Cond // signals queue, rerr, eof; L is rmu
	queue     recvQueue
	eof       bool  // END_STREAM after what is queued
	rerr      error // nothing more comes
	join      *join // set while a socket takes what comes
	draining  bool  // join's on-demand writer runs
	recvLeft  int64 // what the peer may still send
	window    int64 // what recvLeft is filled up to
	returned  int64 // delivered and not yet given back as credit
	grown     int64 // taken from the budget
	delivered int64 // since growthFrom
	growFrom  time.Time
}

func (t *tunnel) newStream(id uint32, local bool) *stream {
	s := &stream{t: t, id: id, local: local, connect: true, bodyLeft: -1,
		sendWindow: int64(t.peerWindow), recvLeft: defaultWindow, window: defaultWindow}
	s.credit.L = &t.mu
	s.arrived.L = &s.rmu
	return s
}

// Read implements Stream.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.rmu.Lock()
	for s.queue.empty() && s.rerr == nil && !s.eof {
		s.arrived.Wait()
	}
	if s.rerr != nil && s.queue.empty() {
		defer s.rmu.Unlock()
		return 0, s.rerr
	}
	n := copy(p, s.queue.front())
	if n == 0 {
		s.rmu.Unlock()
		return 0, io.EOF
	}
	s.queue.pop(n)
	credit := s.deliveredLocked(n)
	s.rmu.Unlock()
	if credit > 0 {
		s.t.returnCredit(s, credit)
		s.t.kick()
	}
	return n, nil
}

// Write implements Stream. It copies through a pooled buffer, whose headroom takes
// the frame's header; Join does without.
func (s *stream) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := s.awaitCredit(min(len(p)-done, classSize[classLarge]-frameHeaderLen))
		if err != nil {
			return done, err
		}
		buf := borrowFor(frameHeaderLen + n)
		copy(buf.b[frameHeaderLen:], p[done:done+n])
		err = s.t.writeData(s, buf.b, n)
		buf.release()
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// CloseWrite implements Stream.
func (s *stream) CloseWrite() error {
	t := s.t
	t.mu.Lock()
	if s.err != nil {
		defer t.mu.Unlock()
		return s.err
	}
	if !s.localEnd {
		s.localEnd = true
		s.credit.Broadcast() // nothing is written behind the end
		t.queueFrame(0, http2.FrameData, http2.FlagDataEndStream, s.id)
		s.settle()
	}
	t.mu.Unlock()
	t.kick()
	return nil
}

// Reset implements Stream.
func (s *stream) Reset(code ErrCode) { s.reset(&StreamError{Code: code}) }

// reset ends both halves with err and tells the peer, unless all is over already.
func (s *stream) reset(err *StreamError) {
	t := s.t
	t.mu.Lock()
	over := s.gone || s.err != nil
	if !over {
		t.queueReset(s.id, err.Code)
		s.end(err)
		s.settle()
	}
	t.mu.Unlock()
	if !over {
		t.kick()
	}
	s.abort(err)
}

// Close implements Stream.
func (s *stream) Close() error {
	s.reset(&StreamError{Code: CodeCancel})
	return nil
}

// end marks the stream broken and wakes who waits to send; t.mu is held.
func (s *stream) end(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	s.dead.Store(true)
	s.credit.Broadcast()
	s.signalAnswer()
}

// signalAnswer wakes Open; t.mu is held.
func (s *stream) signalAnswer() {
	if s.answer != nil {
		close(s.answer)
		s.answer = nil
	}
}

// settle takes a stream that is over out of the tunnel's table; t.mu is held.
func (s *stream) settle() {
	over := s.err != nil || s.localEnd && s.remoteEnd
	if !over || s.gone || s.handling && !s.answered && s.err == nil {
		return
	}
	t := s.t
	s.gone = true
	delete(t.streams, s.id)
	t.closeIfDrained()
}

// abort ends the receiving half with err. What came before a reset by the peer is still
// read, as from a TCP socket: it may be the answer of somebody who did not want to hear
// the rest. After one by this end it is dropped. A stream that ended in order is not
// aborted when its tunnel ends: its handler may still have to deliver what came.
func (s *stream) abort(err error) {
	if s.cancel != nil {
		s.cancel(err)
	}
	s.rmu.Lock()
	if s.rerr == nil {
		s.rerr = err
	}
	j := s.join
	if !s.draining && (j != nil || !byPeer(err)) {
		s.queue.clear()
	}
	s.giveBudgetBack()
	s.arrived.Broadcast()
	s.rmu.Unlock()
	if j != nil {
		j.fail(err)
	}
}

// byPeer tells whether the peer ended a stream or its tunnel.
func byPeer(err error) bool {
	switch err := err.(type) {
	case *StreamError:
		return err.Remote
	case *TunnelError:
		return err.Remote
	}
	return false
}

// giveBudgetBack returns what the window grew by; rmu is held.
func (s *stream) giveBudgetBack() {
	if s.grown > 0 {
		s.t.budget.release(s.grown)
		s.grown = 0
	}
}

// awaitCredit reserves between 1 and want octets of both send windows.
func (s *stream) awaitCredit(want int) (int, error) {
	t := s.t
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if s.err != nil {
			return 0, s.err
		}
		if s.localEnd {
			return 0, errWriteAfterClose
		}
		if n := s.take(want); n > 0 {
			return n, nil
		}
		s.credit.Wait()
	}
}

// tryCredit reserves up to want octets without waiting; 0 means that it must wait
// or that the stream is over.
func (s *stream) tryCredit(want int) int {
	t := s.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.err != nil || s.localEnd {
		return 0
	}
	return s.take(want)
}

// take reserves what it can of both windows, and of what the tunnel may hold, and
// puts the stream on the tunnel's list when that is used up; t.mu is held.
func (s *stream) take(want int) int {
	t := s.t
	n := min(int64(want), s.sendWindow, t.sendWindow)
	if t.unsent >= maxUnsent {
		n = 0
	}
	if n <= 0 {
		if s.sendWindow > 0 && !s.waiting {
			s.waiting = true
			t.starved = append(t.starved, s)
		}
		return 0
	}
	s.sendWindow -= n
	t.sendWindow -= n
	t.unsent += n
	return int(n)
}

// putBack returns credit that was reserved and not used.
func (s *stream) putBack(n int) {
	if n == 0 {
		return
	}
	t := s.t
	t.mu.Lock()
	s.sendWindow += int64(n)
	t.sendWindow += int64(n)
	t.released(int64(n))
	t.mu.Unlock()
}

// released notes that n reserved octets are not held any more, and wakes as many of
// those who wait as there is room for; mu is held.
func (t *tunnel) released(n int64) {
	t.unsent -= n
	room := maxUnsent - t.unsent
	if room <= 0 || t.sendWindow <= 0 || len(t.starved) == 0 {
		return
	}
	if t.unsent > 0 { // who is left is woken by the next release
		t.wake(min(len(t.starved), int(room)/classSize[classLarge]+1))
	} else {
		t.wake(len(t.starved))
	}
}

// addTunnelCredit adds to the connection's send window and wakes the streams that
// wait for it; mu is held.
func (t *tunnel) addTunnelCredit(n int64) {
	t.sendWindow += n
	if t.sendWindow <= 0 || len(t.starved) == 0 {
		return
	}
	t.wake(len(t.starved))
}

// wake wakes the first n streams that wait for the tunnel; mu is held.
func (t *tunnel) wake(n int) {
	for _, s := range t.starved[:n] {
		s.waiting = false
		s.credit.Broadcast()
	}
	left := copy(t.starved, t.starved[n:])
	clear(t.starved[left:])
	t.starved = t.starved[:left]
}
