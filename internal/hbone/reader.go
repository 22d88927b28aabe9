package hbone

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// reader parses what arrives. Only the tunnel's reading goroutine uses it.
type reader struct {
	t *tunnel

	preface  int // octets of the client's preface still expected
	settled  bool
	maxFrame int   // what we last told the peer
	unacked  int64 // octets of DATA not yet given back as connection credit
	recvLeft int64 // what the peer may still send on the connection

	header  [frameHeaderLen]byte
	headerN int
	frame   frameHeader
	left    int // octets of the current frame not seen yet

	// The current DATA frame.
	stream   *stream // nil: its octets are dropped
	padLen   int     // octets of padding at its end
	needPad  bool    // its first octet, the length of the padding, is still to come
	dropping bool    // the current frame's octets are dropped

	// The current other frame, gathered until it is whole; a header block with all its
	// CONTINUATION frames.
	gathered    []byte
	block       uint32 // the stream whose header block is being gathered
	blockFrames int

	source bytes.Reader
	framer *http2.Framer
	hdec   *hpack.Decoder

	control meter
	cancels meter
}

// fault is an error of the peer that ends the connection.
type fault struct {
	code ErrCode
	text string
}

func (f *fault) Error() string { return f.text }

func faultf(code ErrCode, format string, args ...any) error {
	return &fault{code: code, text: fmt.Sprintf(format, args...)}
}

// streamFault is an error of the peer that ends one stream.
type streamFault struct {
	id   uint32
	code ErrCode
}

func (f *streamFault) Error() string { return fmt.Sprintf("stream %d: code %#x", f.id, uint32(f.code)) }

func (r *reader) init(t *tunnel) {
	r.t = t
	r.recvLeft = tunnelWindow
	r.maxFrame = maxFrame
	if t.server != nil {
		r.preface = len(http2.ClientPreface)
		r.maxFrame = defaultFrame
	}
	r.hdec = hpack.NewDecoder(4096, nil)
	r.framer = http2.NewFramer(nil, &r.source)
	r.framer.ReadMetaHeaders = r.hdec
	r.framer.MaxHeaderListSize = t.opts.maxHeaderList
	r.framer.SetMaxReadFrameSize(maxFrame)
	r.control = newMeter(controlBurst, controlPerSecond)
	r.cancels = newMeter(resetBurst, resetPerSecond)
}

func (r *reader) close() { _ = r.hdec.Close() }

// tunnelError makes a fault the tunnel's error.
func (r *reader) tunnelError(err error) *TunnelError {
	var te *TunnelError
	if errors.As(err, &te) {
		return te
	}
	var f *fault
	if errors.As(err, &f) {
		return &TunnelError{Code: f.code, Cause: err}
	}
	return &TunnelError{Code: CodeProtocol, Cause: err}
}

// consume parses p. Errors of one stream reset that stream; a returned error ends
// the connection.
func (r *reader) consume(p []byte) error {
	if r.preface > 0 {
		n := min(len(p), r.preface)
		at := len(http2.ClientPreface) - r.preface
		if string(p[:n]) != http2.ClientPreface[at:at+n] {
			return faultf(CodeProtocol, "connection does not begin with the HTTP/2 preface")
		}
		r.preface -= n
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
			if err := r.endFrame(); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin starts a frame.
func (r *reader) begin(h frameHeader) error {
	r.frame, r.left, r.dropping = h, h.length, false
	if h.length > r.maxFrame {
		return faultf(CodeFrameSize, "frame of %d octets exceeds %d", h.length, r.maxFrame)
	}
	if !r.settled && h.kind != http2.FrameSettings {
		return faultf(CodeProtocol, "first frame is %v, not SETTINGS", h.kind)
	}
	if r.block != 0 && (h.kind != http2.FrameContinuation || h.streamID != r.block) {
		return faultf(CodeProtocol, "%v inside the header block of stream %d", h.kind, r.block)
	}
	switch h.kind {
	case http2.FrameData:
		return r.beginData(h)
	case http2.FrameHeaders, http2.FrameContinuation:
		if h.kind == http2.FrameContinuation && r.block == 0 {
			return faultf(CodeProtocol, "CONTINUATION without HEADERS")
		}
		r.blockFrames++
		limit := int(r.t.opts.maxHeaderList) + maxHeaderBlockSlack
		if len(r.gathered)+frameHeaderLen+h.length > limit || r.blockFrames > maxHeaderFrames {
			return faultf(CodeEnhanceCalm, "header block of stream %d is too large", h.streamID)
		}
	case http2.FrameSettings, http2.FramePing, http2.FrameGoAway, http2.FrameRSTStream,
		http2.FrameWindowUpdate, http2.FramePriority, http2.FramePushPromise:
		if h.length > maxControlFrame {
			return faultf(CodeEnhanceCalm, "%v of %d octets", h.kind, h.length)
		}
	default:
		// Unknown types are ignored (RFC 9113 section 5.5).
		r.dropping = true
		return r.countControl()
	}
	r.gathered = append(r.gathered, r.header[:]...)
	return nil
}

// payload takes the next octets of the current frame.
func (r *reader) payload(p []byte) error {
	switch {
	case r.frame.kind == http2.FrameData:
		return r.dataPayload(p)
	case r.dropping:
	default:
		r.gathered = append(r.gathered, p...)
	}
	return nil
}

// endFrame acts on a frame that is complete.
func (r *reader) endFrame() error {
	h := r.frame
	if h.kind == http2.FrameData {
		return r.endData()
	}
	if r.dropping {
		return nil
	}
	if h.kind == http2.FrameHeaders || h.kind == http2.FrameContinuation {
		if !h.has(http2.FlagHeadersEndHeaders) {
			if h.streamID == 0 {
				return faultf(CodeProtocol, "%v on stream 0", h.kind)
			}
			r.block = h.streamID
			return nil
		}
		r.block, r.blockFrames = 0, 0
	}
	r.source.Reset(r.gathered)
	// A large header block is not kept.
	if cap(r.gathered) > 1<<10 {
		r.gathered = nil
	} else {
		r.gathered = r.gathered[:0]
	}
	f, err := r.framer.ReadFrame()
	r.source.Reset(nil)
	if err == nil {
		err = r.dispatch(f)
	}
	return r.settleError(err)
}

// settleError turns the errors of the Framer into ours and resets the stream of
// those that concern one stream.
func (r *reader) settleError(err error) error {
	var ce http2.ConnectionError
	var se http2.StreamError
	var sf *streamFault
	switch {
	case err == nil:
		return nil
	case errors.As(err, &sf):
		return r.streamError(sf.id, sf.code)
	case errors.As(err, &se):
		// The Framer reports a broken header block before we saw its stream.
		if r.frame.kind == http2.FrameHeaders || r.frame.kind == http2.FrameContinuation {
			if err := r.noteBrokenHeader(se.StreamID); err != nil {
				return err
			}
		}
		return r.streamError(se.StreamID, ErrCode(se.Code))
	case errors.As(err, &ce):
		return faultf(ErrCode(ce), "%v: %v", ce, r.framer.ErrorDetail())
	case errors.Is(err, http2.ErrFrameTooLarge):
		return faultf(CodeFrameSize, "%v", err)
	}
	var f *fault
	var te *TunnelError
	if errors.As(err, &f) || errors.As(err, &te) {
		return err
	}
	return faultf(CodeProtocol, "%v", err)
}

// streamError resets a stream because of what the peer did on it.
func (r *reader) streamError(id uint32, code ErrCode) error {
	t := r.t
	if !r.cancels.allow(time.Now()) {
		return faultf(CodeEnhanceCalm, "too many streams reset")
	}
	t.mu.Lock()
	s := t.streams[id]
	if s == nil {
		t.queueReset(id, code)
		full := len(t.control.b) > maxControlQueue
		t.mu.Unlock()
		if full {
			return faultf(CodeEnhanceCalm, "peer does not read its resets")
		}
		return nil
	}
	t.mu.Unlock()
	s.reset(&StreamError{Code: code})
	return nil
}

// countControl counts a frame that carries nothing.
func (r *reader) countControl() error {
	if r.control.allow(time.Now()) {
		return nil
	}
	if n := r.t.dataFramesSent.Swap(0); n > 0 {
		r.control.refill(2 * n)
		return nil
	}
	return faultf(CodeEnhanceCalm, "too many control frames")
}

// beginData checks a DATA frame before its payload: flow control counts all of it,
// padding too, whatever becomes of the stream.
func (r *reader) beginData(h frameHeader) error {
	t := r.t
	r.stream, r.padLen = nil, 0
	r.needPad = h.has(http2.FlagDataPadded)
	if h.streamID == 0 {
		return faultf(CodeProtocol, "DATA on stream 0")
	}
	if r.needPad && h.length == 0 {
		return faultf(CodeFrameSize, "padded DATA without the length of its padding")
	}
	size := int64(h.length)
	if size > r.recvLeft {
		return faultf(CodeFlowControl, "DATA beyond the connection's window")
	}
	r.recvLeft -= size
	r.unacked += size
	if size == 0 && !h.has(http2.FlagDataEndStream) {
		if err := r.countControl(); err != nil {
			return err
		}
	}

	t.mu.Lock()
	s := t.streams[h.streamID]
	if s == nil || s.remoteEnd || s.err != nil {
		err := r.strayFrame(h)
		t.mu.Unlock()
		return r.settleError(err)
	}
	early := s.local && !s.answered
	t.mu.Unlock()
	if early {
		return r.streamError(h.streamID, CodeProtocol)
	}
	s.rmu.Lock()
	over := size > s.recvLeft
	if !over {
		s.recvLeft -= size
	}
	s.rmu.Unlock()
	if over {
		return r.streamError(h.streamID, CodeFlowControl)
	}
	r.stream = s
	return nil
}

// strayFrame judges DATA for a stream that cannot take it; t.mu is held.
func (r *reader) strayFrame(h frameHeader) error {
	t := r.t
	if r.idle(h.streamID) {
		return faultf(CodeProtocol, "%v on idle stream %d", h.kind, h.streamID)
	}
	if s := t.streams[h.streamID]; s != nil && s.err == nil {
		return &streamFault{h.streamID, CodeStreamClosed}
	}
	for _, id := range t.resets {
		if id == h.streamID {
			return nil // sent before the peer knew
		}
	}
	return &streamFault{h.streamID, CodeStreamClosed}
}

// idle tells whether a stream was never opened; t.mu is held.
func (r *reader) idle(id uint32) bool {
	t := r.t
	if ours := id%2 == t.nextID%2; ours {
		return id >= t.nextID
	}
	return id > t.lastID
}

// dataPayload hands on octets of a DATA frame as they come.
func (r *reader) dataPayload(p []byte) error {
	if r.needPad && len(p) > 0 {
		r.needPad = false
		r.padLen = int(p[0])
		if r.padLen > r.left+len(p)-1 {
			return faultf(CodeProtocol, "padding exceeds its frame")
		}
		p = p[1:]
		r.uncounted(1 + r.padLen)
	}
	// What lies in the last padLen octets of the frame is padding.
	if data := r.left + len(p) - r.padLen; data < len(p) {
		p = p[:max(data, 0)]
	}
	s := r.stream
	if s == nil || len(p) == 0 {
		return nil
	}
	if s.bodyLeft >= 0 {
		s.bodyLeft -= int64(len(p))
		if s.bodyLeft < 0 {
			r.stream = nil
			return r.streamError(s.id, CodeProtocol)
		}
	}
	s.deliver(p)
	return nil
}

// uncounted gives the credit for padding back, which no reader will take.
func (r *reader) uncounted(n int) {
	if s := r.stream; s != nil {
		s.rmu.Lock()
		credit := s.deliveredLocked(n)
		s.rmu.Unlock()
		if credit > 0 {
			r.t.returnCredit(s, credit)
		}
	}
}

// endData ends a DATA frame: the connection's credit goes back in large steps.
func (r *reader) endData() error {
	t := r.t
	if r.unacked >= tunnelWindow/8 {
		t.mu.Lock()
		_ = t.framer.WriteWindowUpdate(0, uint32(r.unacked))
		t.queued()
		t.mu.Unlock()
		r.recvLeft += r.unacked
		r.unacked = 0
	}
	s := r.stream
	r.stream = nil
	if !r.frame.has(http2.FlagDataEndStream) {
		if r.frame.has(http2.FlagDataPadded) && r.frame.length == 1+r.padLen {
			return r.countControl() // nothing but padding
		}
		return nil
	}
	if s == nil {
		return nil
	}
	return r.settleError(r.endStream(s))
}

// endStream notes the peer's END_STREAM.
func (r *reader) endStream(s *stream) error {
	if s.bodyLeft > 0 {
		return &streamFault{s.id, CodeProtocol}
	}
	r.t.mu.Lock()
	s.remoteEnd = true
	s.settle()
	r.t.mu.Unlock()
	s.finishReceive()
	return nil
}
