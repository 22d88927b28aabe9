package http2

import (
	"time"

	"github.com/tulle-mesh/tulle/waypoint/http2/hpack"
)

// reader takes apart what arrives. Only the connection's reading goroutine uses it.
type reader struct {
	c *conn

	prefaceN int   // octets of the client's preface seen so far
	settled  bool  // the peer's first SETTINGS came
	unacked  int64 // octets of DATA not yet given back as the connection's credit
	recvLeft int64 // what the peer may still send on the connection

	header  [frameHeaderLen]byte
	headerN int
	frame   frameHeader
	left    int // octets of the current frame not seen yet

	// The current DATA frame.
	stream  *stream // nil: its octets are dropped
	padLen  int     // octets of padding at its end
	needPad bool    // its first octet, the length of the padding, is still to come

	late bool // the request of the current DATA or HEADERS was declined already

	dropping bool // the current frame's octets are dropped

	// gathered is what came so far of a frame that is not DATA and did not arrive whole.
	gathered []byte

	// The head that is being gathered from several frames.
	blockID     uint32 // its stream, 0 when there is none
	blockEnd    bool   // HEADERS had END_STREAM
	blockSelf   bool   // HEADERS made the stream depend on itself
	block       []byte
	blockFrames int

	hdec hpack.Decoder

	// What the octets looked at brought, which is told when all of them were: by then
	// the content that came along is there, too.
	started []*serverExchange
	touched []*stream

	control meter
	resets  meter
}

func (r *reader) init(c *conn) {
	r.c = c
	r.recvLeft = connWindow
	if c.server == nil {
		r.prefaceN = len(preface)
	}
	r.hdec.MaxListSize, r.hdec.MaxFields = maxHeadList, maxFields
	r.control = newMeter(controlBurst, controlPerSecond)
	r.resets = newMeter(resetBurst, resetPerSecond)
}

// consume looks at p. Errors of one stream reset that stream; a returned error ends
// the connection.
func (r *reader) consume(p []byte) error {
	err := r.take(p)
	r.tell()
	return err
}

// tell starts the handlers of requests that came, and wakes who waits for what came.
func (r *reader) tell() {
	for i, x := range r.started {
		r.c.start(x)
		r.started[i] = nil
	}
	r.started = r.started[:0]
	for i, s := range r.touched {
		s.wake()
		r.touched[i] = nil
	}
	r.touched = r.touched[:0]
}

// touch notes that something came for who reads s.
func (r *reader) touch(s *stream) {
	if n := len(r.touched); n == 0 || r.touched[n-1] != s {
		r.touched = append(r.touched, s)
	}
}

func (r *reader) take(p []byte) error {
	if r.prefaceN < len(preface) {
		n := min(len(p), len(preface)-r.prefaceN)
		if string(p[:n]) != preface[r.prefaceN:r.prefaceN+n] {
			return fault(codeProtocol, "connection does not begin with HTTP/2's preface")
		}
		r.prefaceN += n
		p = p[n:]
	}
	for len(p) > 0 {
		if r.headerN < frameHeaderLen {
			n := copy(r.header[r.headerN:], p)
			r.headerN += n
			p = p[n:]
			if r.headerN < frameHeaderLen {
				return nil
			}
			if err := r.begin(parseFrameHeader(r.header[:])); err != nil {
				return err
			}
		}
		n := min(len(p), r.left)
		r.left -= n
		if err := r.payload(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		if r.left == 0 {
			r.headerN = 0
		}
	}
	return nil
}

// begin looks at a frame's header.
func (r *reader) begin(h frameHeader) error {
	r.frame, r.left, r.dropping = h, h.length, false
	switch {
	case h.length > defaultFrame:
		return fault(codeFrameSize, "frame of %d octets exceeds %d", h.length, defaultFrame)
	case !r.settled && h.kind != frameSettings:
		return fault(codeProtocol, "first frame is of type %d, not SETTINGS", h.kind)
	case r.blockID != 0 && (h.kind != frameContinuation || h.streamID != r.blockID):
		return fault(codeProtocol, "frame of type %d inside the head of stream %d", h.kind, r.blockID)
	}
	switch h.kind {
	case frameData:
		return r.beginData(h)
	case frameHeaders, frameContinuation:
		if r.blockID == 0 && h.kind == frameContinuation {
			return fault(codeProtocol, "CONTINUATION without HEADERS")
		}
		r.blockFrames++
		if len(r.block)+h.length > maxHeadBlock || r.blockFrames > maxHeadFrames {
			return fault(codeEnhanceCalm, "head of stream %d is too large", h.streamID)
		}
	case frameSettings, framePing, frameGoAway, frameRSTStream, frameWindowUpdate, framePriority, framePushPromise:
	default:
		// Unknown types are ignored (RFC 9113, 5.5).
		r.dropping = true
		return r.countControl()
	}
	return nil
}

// payload takes the next octets of the current frame, all when r.left is 0.
func (r *reader) payload(p []byte) error {
	switch {
	case r.frame.kind == frameData:
		if err := r.dataPayload(p); err != nil || r.left > 0 {
			return err
		}
		return r.endData()
	case r.dropping:
		return nil
	case r.left > 0:
		r.gathered = append(r.gathered, p...)
		return nil
	case len(r.gathered) > 0:
		p = append(r.gathered, p...)
	}
	r.gathered = nil // what is gathered is rare, and not kept
	return r.settle(r.dispatch(r.frame, p))
}

// settle resets the stream of an error that concerns one stream.
func (r *reader) settle(err error) error {
	if f, ok := err.(*streamFault); ok {
		return r.streamError(f)
	}
	return err
}

// streamError resets a stream because of what the peer did on it.
func (r *reader) streamError(f *streamFault) error {
	if err := r.countReset(); err != nil {
		return err
	}
	c := r.c
	if c.server != nil {
		c.server.refused(f.cause)
	}
	c.mu.Lock()
	s := c.streams[f.id]
	if s == nil {
		c.queueReset(f.id, f.code)
		c.mu.Unlock()
		return r.checkQueue()
	}
	c.mu.Unlock()
	s.reset(f.code, f.cause)
	return nil
}

// checkQueue ends a connection whose peer asks and does not read.
func (r *reader) checkQueue() error {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.control > maxControlQueue {
		return fault(codeEnhanceCalm, "peer does not read its answers")
	}
	return nil
}

// countControl counts a frame that carries nothing.
func (r *reader) countControl() error {
	if r.control.allow(time.Now()) {
		return nil
	}
	if n := r.c.dataSent.Swap(0); n > 0 {
		r.control.refill(2 * n)
		return nil
	}
	return fault(codeEnhanceCalm, "too many frames that carry nothing")
}

// countReset counts a request that was given up, by whomever, because of the peer.
func (r *reader) countReset() error {
	if r.resets.allow(time.Now()) {
		return nil
	}
	if n := r.c.inOrder.Swap(0); n > 0 {
		r.resets.refill(n)
		return nil
	}
	return fault(codeEnhanceCalm, "too many streams reset")
}
