package http2

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/http2/hpack"
	"github.com/tulle-mesh/tulle/waypoint/message"
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
		go x.run()
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
	if s.recvLen > 0 {
		return faulty(s.id, codeProtocol, "content is shorter than its head says")
	}
	s.rmu.Lock()
	s.trailer = trailer
	s.rmu.Unlock()
	s.receiveEnd()
	r.c.mu.Lock()
	s.remoteEnd = true
	s.settle()
	r.c.mu.Unlock()
	return nil
}

// readHeaders takes HEADERS (RFC 9113, 6.2).
func (r *reader) readHeaders(h frameHeader, p []byte) error {
	if h.streamID == 0 {
		return fault(codeProtocol, "HEADERS on stream 0")
	}
	padding := 0
	if h.has(flagPadded) {
		if len(p) == 0 {
			return fault(codeFrameSize, "padded HEADERS without the length of its padding")
		}
		padding, p = int(p[0]), p[1:]
	}
	self := false
	if h.has(flagPriority) {
		if len(p) < 5 {
			return fault(codeFrameSize, "HEADERS without its priority")
		}
		self = streamIn(p) == h.streamID
		p = p[5:]
	}
	if padding > len(p) {
		return fault(codeProtocol, "padding exceeds its frame")
	}
	p = p[:len(p)-padding]
	if h.has(flagEndHeaders) {
		r.blockFrames = 0
		return r.head(h.streamID, h.has(flagEndStream), self, p)
	}
	r.blockID, r.blockEnd, r.blockSelf = h.streamID, h.has(flagEndStream), self
	r.block = append(r.block[:0], p...)
	r.c.watch.headBegun(r.c.headTimeout())
	return nil
}

// readContinuation takes CONTINUATION (RFC 9113, 6.10).
func (r *reader) readContinuation(h frameHeader, p []byte) error {
	r.block = append(r.block, p...)
	if !h.has(flagEndHeaders) {
		return nil
	}
	id, block := r.blockID, r.block
	r.blockID, r.block, r.blockFrames = 0, nil, 0
	r.c.watch.headDone()
	return r.head(id, r.blockEnd, r.blockSelf, block)
}

// fieldLists hold the fields of the heads that are looked at.
var fieldLists = sync.Pool{New: func() any { list := make([]hpack.Field, 0, maxFields); return &list }}

// head takes a whole header block. It is decoded whatever becomes of it, since the
// next ones refer to it.
func (r *reader) head(id uint32, end, self bool, block []byte) error {
	list := fieldLists.Get().(*[]hpack.Field)
	fields, err := r.hdec.Decode(block, *list)
	defer func() {
		clear(fields) // the texts may be large
		fieldLists.Put(list)
	}()
	if errors.Is(err, hpack.ErrDecode) {
		return fault(codeCompression, "%w", err)
	}
	tooLarge := err != nil
	c := r.c
	c.mu.Lock()
	s := c.streams[id]
	closed := s != nil && (s.remoteEnd || s.err != nil)
	if s == nil {
		err = r.noteStream(id)
	}
	c.mu.Unlock()
	switch {
	case s == nil && err != nil:
		return err
	case self:
		return faulty(id, codeProtocol, "stream depends on itself")
	case s == nil && c.server == nil:
		return r.countControl() // the response to a stream that we reset
	case s == nil:
		return r.request(id, end, fields, tooLarge)
	case closed:
		return faulty(id, codeStreamClosed, "HEADERS after the end of the stream")
	case s.headDone:
		return r.trailers(s, end, fields, tooLarge)
	}
	return r.response(s, end, fields, tooLarge)
}

// noteStream judges the number of a stream that HEADERS name and that is not open,
// and takes note of it; c.mu is held.
func (r *reader) noteStream(id uint32) error {
	c := r.c
	if id%2 == c.nextID%2 {
		if id >= c.nextID {
			return fault(codeProtocol, "HEADERS on idle stream %d", id)
		}
		return nil
	}
	if c.server == nil {
		return fault(codeProtocol, "server opened stream %d", id)
	}
	if id <= c.lastID {
		if c.wasReset(id) {
			return faulty(id, codeStreamClosed, "HEADERS after the end of the stream")
		}
		return fault(codeStreamClosed, "HEADERS on closed stream %d", id)
	}
	c.lastID = id
	return nil
}

// trailers takes the fields after the content. After CONNECT there are none (RFC
// 9113, 8.5).
func (r *reader) trailers(s *stream, end bool, fields []hpack.Field, tooLarge bool) error {
	switch {
	case s.tunnel:
		return faulty(s.id, codeProtocol, "HEADERS in a tunnel")
	case !end:
		return faulty(s.id, codeProtocol, "trailers do not end the stream")
	case tooLarge:
		return faulty(s.id, codeEnhanceCalm, fmt.Sprintf("trailers exceed %d octets or %d fields", maxHeadList, maxFields))
	}
	trailer, err := parseTrailer(fields)
	if err != nil {
		return &streamFault{s.id, codeProtocol, err}
	}
	return r.endStream(s, trailer)
}
