package http2

import (
	"context"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// stream is what both roles have of one stream. It lies in the exchange of its role.
type stream struct {
	c  *conn
	id uint32
	x  *serverExchange // one of the two is set
	q  *clientExchange

	// ctx bounds all waiting of a client's exchange; done is its Done, nil for a server.
	ctx  context.Context
	done <-chan struct{}

	// Protocol state and sending, guarded by c.mu.
	err        error // why the stream broke; nil while it runs or when it ended in order
	localEnd   bool  // END_STREAM was put into out
	remoteEnd  bool  // END_STREAM was received
	gone       bool  // no longer in c.streams
	discarding bool  // the response is complete, and what still comes is dropped
	waiting    waitList
	sendWindow int64
	headAt     int64         // where in out its first frame begins
	lastAt     int64         // where in out its last frame begins, which may get END_STREAM
	putOff     int           // octets put into out since it was last seen to that they leave
	sendLeft   int64         // what the head's length still promises, -1 without one
	writable   chan struct{} // wakes the sender; nil until it waited

	// What the reader knows of the content that comes: what content-length still
	// promises, -1 without one; and that HEADERS may only come as trailers, or not at all.
	recvLen  int64
	headDone bool
	tunnel   bool // CONNECT: only DATA follows

	// Receiving.
	rmu       sync.Mutex
	queue     recvQueue
	eof       bool           // END_STREAM stands behind what is queued
	rerr      error          // nothing more comes
	trailer   message.Header // set before eof
	into      []byte         // of a Read that waits: where to put what comes
	intoN     int            // what was put there
	readable  chan struct{}  // wakes the receiver; nil until it waited
	recvLeft  int64          // what the peer may still send
	window    int64          // what recvLeft is filled up to
	returned  int64          // read or dropped, and not yet given back as credit
	conceded  int64          // given back as credit for what is dropped
	grown     int64          // taken from the budget
	delivered int64          // since growFrom
	growFrom  time.Time
}

// init sets a stream up; c.mu is held.
func (s *stream) init(c *conn, id uint32) {
	s.c, s.id = c, id
	s.sendWindow, s.sendLeft, s.recvLen = c.peerWindow, -1, -1
	s.recvLeft, s.window = defaultWindow, defaultWindow
	s.lastAt = -1
}

// wakeSender wakes who waits to send; c.mu is held.
func (s *stream) wakeSender() {
	if s.writable != nil {
		select {
		case s.writable <- struct{}{}:
		default:
		}
	}
}

// awaitSend waits until something changed for the sender. What was put off leaves
// first. c.mu is held, but free meanwhile.
func (s *stream) awaitSend() error {
	c := s.c
	if s.writable == nil {
		s.writable = make(chan struct{}, 1)
	}
	s.putOff = 0
	c.kick()
	c.mu.Unlock()
	defer c.mu.Lock()
	var stalled <-chan time.Time
	if d := c.stallTimeout(); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		stalled = timer.C
	}
	select {
	case <-s.writable:
		return nil
	case <-stalled:
		return errStalled
	case <-s.done:
		return context.Cause(s.ctx)
	}
}

// waitList says on which of the connection's lists a stream is.
type waitList uint8

const (
	waitCredit waitList = 1 << iota
	waitRoom
)

// waitFor puts the stream on a list; c.mu is held.
func (s *stream) waitFor(list waitList) {
	if s.waiting&list != 0 {
		return
	}
	s.waiting |= list
	if list == waitCredit {
		s.c.starved = append(s.c.starved, s)
	} else {
		s.c.crowd = append(s.c.crowd, s)
	}
}

// wakeList wakes the streams of a list, in the order in which they have waited, and
// returns it empty; mu is held.
func (c *conn) wakeList(streams []*stream, list waitList) []*stream {
	for i, s := range streams {
		s.waiting &^= list
		s.wakeSender()
		streams[i] = nil
	}
	return streams[:0]
}

// addCredit adds to the connection's send window; mu is held.
func (c *conn) addCredit(n int64) {
	c.sendWindow += n
	if c.sendWindow > 0 {
		c.starved = c.wakeList(c.starved, waitCredit)
	}
}

// wakeCrowd wakes those who wait for room in out, when there is some; mu is held.
func (c *conn) wakeCrowd() {
	if len(c.out.b) < maxGathered {
		c.crowd = c.wakeList(c.crowd, waitRoom)
	}
}

// maySend tells why nothing can be sent any more; c.mu is held.
func (s *stream) maySend() error {
	switch {
	case s.err != nil:
		return s.err
	case s.localEnd:
		return errEnded
	case s.c.err != nil:
		return s.c.err
	}
	return nil
}

// awaitRoom waits until frames may be put into out; c.mu is held, but free meanwhile.
func (s *stream) awaitRoom() error {
	for {
		if err := s.maySend(); err != nil {
			return err
		}
		if len(s.c.out.b) < maxGathered {
			return nil
		}
		s.waitFor(waitRoom)
		if err := s.awaitSend(); err != nil {
			return err
		}
	}
}

// write puts p into DATA frames, waiting for flow control. Little is put off.
func (s *stream) write(p []byte) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sendLeft >= 0 && int64(len(p)) > s.sendLeft {
		return 0, errTooLong
	}
	done := 0
	for done < len(p) {
		if err := s.maySend(); err != nil {
			return done, err
		}
		n := min(len(p)-done, c.peerFrame, int(min(s.sendWindow, c.sendWindow)))
		if n <= 0 || len(c.out.b) >= maxGathered {
			switch {
			case n > 0:
				s.waitFor(waitRoom)
			case s.sendWindow > 0:
				s.waitFor(waitCredit)
			}
			if err := s.awaitSend(); err != nil {
				return done, err
			}
			continue
		}
		s.lastAt = c.out.at()
		c.out.frame(n, frameData, 0, s.id)
		c.out.b = append(c.out.b, p[done:done+n]...)
		s.sendWindow -= int64(n)
		c.sendWindow -= int64(n)
		if s.sendLeft >= 0 {
			s.sendLeft -= int64(n)
		}
		c.dataSent.Add(1)
		done += n
		s.putOff += n
	}
	if s.putOff >= enough {
		s.putOff = 0
		c.kick()
	}
	return done, nil
}

// closeWrite ends the content, with trailers if there are any.
func (s *stream) closeWrite(trailer message.Header) error {
	octets, err := checkFields(trailer)
	if err != nil {
		return err
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.maySend(); err != nil {
		return err
	}
	if s.sendLeft > 0 {
		return errTooShort
	}
	switch {
	case len(trailer) > 0:
		if err := s.awaitRoom(); err != nil {
			return err
		}
		start := c.beginHead(octets)
		c.appendFields(trailer)
		c.endHead(s, start, true)
	case c.out.mark(s.lastAt):
	default:
		c.out.frame(0, frameData, flagEndStream, s.id)
	}
	s.sent()
	c.kick()
	return nil
}

// sent notes that END_STREAM was put into out; c.mu is held.
func (s *stream) sent() {
	s.localEnd = true
	s.putOff = 0
	s.settle()
}

// flush sees to it that what was put off leaves.
func (s *stream) flush() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.putOff = 0
	c.kick()
	return s.err
}

// reset breaks both halves off with err and tells the peer, unless all is over already.
func (s *stream) reset(code uint32, err error) {
	c := s.c
	c.mu.Lock()
	over := s.gone || s.err != nil
	if !over {
		c.queueReset(s.id, code)
		s.end(err)
		s.settle()
		c.kick()
	}
	c.mu.Unlock()
	if !over {
		s.abort()
	}
}

// end marks the stream broken and wakes who waits to send; c.mu is held. abort follows.
func (s *stream) end(err error) {
	if s.err == nil {
		s.err = err
		s.wakeSender()
	}
}

// settle takes a stream that is over out of the connection's table; c.mu is held.
func (s *stream) settle() {
	inOrder := s.localEnd && s.remoteEnd
	if s.gone || s.err == nil && !inOrder {
		return
	}
	if inOrder {
		s.c.inOrder.Add(1)
	}
	s.gone = true
	if s.discarding {
		s.c.server.discards.open--
	}
	delete(s.c.streams, s.id)
	s.c.endIfDrained()
}

// abort ends the receiving half of a stream that end marked. What is queued is
// dropped, but for the whole content of a response.
func (s *stream) abort() {
	s.c.mu.Lock()
	err := s.err
	s.c.mu.Unlock()
	if err == nil {
		err = errDone
	}
	if s.x != nil {
		s.x.ctx.cancel()
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.eof && s.q != nil {
		return
	}
	s.drop(err)
}

// unsent returns err, as an UnsentError when no frame of a client's stream has left;
// c.mu is held.
func (s *stream) unsent(err error) error {
	if s.q != nil && s.headAt >= s.c.out.taken {
		return &message.UnsentError{Err: err}
	}
	return err
}
