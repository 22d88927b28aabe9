package http2

import "github.com/tulle-mesh/tulle/waypoint/message"

// beginData looks at the header of DATA: flow control counts all of the frame,
// padding too, whatever becomes of the stream.
func (r *reader) beginData(h frameHeader) error {
	c := r.c
	r.stream, r.padLen = nil, 0
	r.needPad = h.has(flagPadded)
	if h.streamID == 0 {
		return fault(codeProtocol, "DATA on stream 0")
	}
	if r.needPad && h.length == 0 {
		return fault(codeFrameSize, "padded DATA without the length of its padding")
	}
	size := int64(h.length)
	if size > r.recvLeft {
		return fault(codeFlowControl, "DATA beyond the connection's window")
	}
	r.recvLeft -= size
	r.unacked += size
	if size == 0 && !h.has(flagEndStream) {
		if err := r.countControl(); err != nil {
			return err
		}
	}

	c.mu.Lock()
	s := c.streams[h.streamID]
	if s == nil || s.remoteEnd || s.err != nil {
		err := r.stray(h)
		c.mu.Unlock()
		return r.settle(err)
	}
	r.late = s.late()
	c.mu.Unlock()
	if s.q != nil && !s.headDone {
		return r.settle(faulty(h.streamID, codeProtocol, "DATA before the response's head"))
	}
	s.rmu.Lock()
	over := size > s.recvLeft
	if !over {
		s.recvLeft -= size
	}
	s.rmu.Unlock()
	if over {
		return r.settle(faulty(h.streamID, codeFlowControl, "DATA beyond the stream's window"))
	}
	r.stream = s
	return nil
}

// stray judges a frame for a stream that cannot take it; c.mu is held.
func (r *reader) stray(h frameHeader) error {
	c := r.c
	if r.idle(h.streamID) {
		return fault(codeProtocol, "frame of type %d on idle stream %d", h.kind, h.streamID)
	}
	s := c.streams[h.streamID]
	if s == nil && c.wasReset(h.streamID) {
		return nil // sent before the peer knew
	}
	if s == nil && c.server == nil {
		// We reset many streams at once, perhaps; the server need not pay for that.
		c.out.number(frameRSTStream, h.streamID, codeStreamClosed)
		return r.countControl()
	}
	return faulty(h.streamID, codeStreamClosed, "frame after the end of the stream")
}

// idle tells whether a stream was never opened; c.mu is held.
func (r *reader) idle(id uint32) bool {
	c := r.c
	if ours := id%2 == c.nextID%2; ours {
		return id >= c.nextID
	}
	return id > c.lastID
}

// dataPayload hands on octets of DATA as they come.
func (r *reader) dataPayload(p []byte) error {
	if r.needPad && len(p) > 0 {
		r.needPad = false
		r.padLen = int(p[0])
		if r.padLen > r.left+len(p)-1 {
			return fault(codeProtocol, "padding exceeds its frame")
		}
		p = p[1:]
		r.returnPadding(1 + r.padLen)
	}
	// What lies in the last padLen octets of the frame is padding.
	if data := r.left + len(p) - r.padLen; data < len(p) {
		p = p[:max(data, 0)]
	}
	s := r.stream
	if s == nil || len(p) == 0 {
		return nil
	}
	if s.recvLen >= 0 {
		s.recvLen -= int64(len(p))
		if s.recvLen < 0 {
			r.stream = nil
			return r.settle(faulty(s.id, codeProtocol, "content is longer than its head says"))
		}
	}
	s.receive(p)
	r.touch(s)
	return nil
}

// returnPadding gives the credit back for padding, which nobody reads.
func (r *reader) returnPadding(n int) {
	if s := r.stream; s != nil {
		s.rmu.Lock()
		credit := s.deliver(n)
		s.rmu.Unlock()
		if credit > 0 {
			s.returnCredit(credit)
		}
	}
}

// endData ends DATA: the connection's credit goes back in large steps.
func (r *reader) endData() error {
	c := r.c
	if r.unacked >= connWindow/8 {
		c.mu.Lock()
		c.out.number(frameWindowUpdate, 0, uint32(r.unacked))
		c.mu.Unlock()
		r.recvLeft += r.unacked
		r.unacked = 0
	}
	s := r.stream
	r.stream = nil
	if !r.frame.has(flagEndStream) {
		if s != nil && r.late {
			s.concede()
		}
		if r.frame.has(flagPadded) && r.frame.length == 1+r.padLen {
			return r.countControl() // nothing but padding
		}
		return nil
	}
	if s == nil {
		return nil
	}
	return r.settle(r.endStream(s, nil))
}

// endStream notes the peer's END_STREAM, with the trailers that bore it.
func (r *reader) endStream(s *stream, trailer message.Header) error {
	if s.recvLen > 0 && !r.late {
		return faulty(s.id, codeProtocol, "content is shorter than its head says")
	}
	s.rmu.Lock()
	s.trailer = trailer
	s.rmu.Unlock()
	s.receiveEnd()
	r.c.mu.Lock()
	s.remoteEnd = true
	s.settle()
	if r.late {
		// curl 7.88, which has stopped to send, sees that the stream is over when anything comes.
		r.c.out.ping(0, overMark)
	}
	r.c.mu.Unlock()
	if r.late {
		r.control.refill(1) // for the acknowledgement
		return r.checkQueue()
	}
	return nil
}
