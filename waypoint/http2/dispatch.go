package http2

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// dispatch acts on a whole frame that is not DATA. p is good until it returns.
func (r *reader) dispatch(h frameHeader, p []byte) error {
	switch h.kind {
	case frameSettings:
		return r.settings(h, p)
	case frameHeaders:
		return r.readHeaders(h, p)
	case frameContinuation:
		return r.readContinuation(h, p)
	case frameWindowUpdate:
		return r.windowUpdate(h, p)
	case frameRSTStream:
		return r.rstStream(h, p)
	case framePing:
		return r.ping(h, p)
	case frameGoAway:
		return r.goAway(h, p)
	case framePriority:
		return r.priority(h, p)
	default: // PUSH_PROMISE
		return fault(codeProtocol, "PUSH_PROMISE, which nobody allowed")
	}
}

// settings applies the peer's SETTINGS and acknowledges them (RFC 9113, 6.5).
func (r *reader) settings(h frameHeader, p []byte) error {
	c := r.c
	switch {
	case h.streamID != 0:
		return fault(codeProtocol, "SETTINGS on a stream")
	case h.has(flagAck) && len(p) > 0:
		return fault(codeFrameSize, "acknowledgement of SETTINGS with a payload")
	case h.has(flagAck) && !r.settled:
		return fault(codeProtocol, "first frame is an acknowledgement")
	case h.has(flagAck):
		return r.countControl()
	case len(p)%6 != 0:
		return fault(codeFrameSize, "SETTINGS of %d octets", len(p))
	case len(p)/6 > maxSettings:
		return fault(codeEnhanceCalm, "SETTINGS with %d parameters", len(p)/6)
	}
	if err := r.countControl(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	told := false // how many streams there may be
	for ; len(p) > 0; p = p[6:] {
		id, v := setting(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])
		if err := c.setting(id, v); err != nil {
			return err
		}
		told = told || id == settingMaxStreams
	}
	if !r.settled {
		r.settled = true
		if !told {
			c.peerMaxStreams = math.MaxUint32
		}
		c.watch.headDone()
		close(c.settled)
	}
	c.out.frame(0, frameSettings, flagAck, 0)
	c.out.control += frameHeaderLen
	if c.out.control > maxControlQueue {
		return fault(codeEnhanceCalm, "peer does not read its answers")
	}
	return nil
}

// setting applies one parameter of the peer's; mu is held.
func (c *conn) setting(id setting, v uint32) error {
	switch id {
	case settingHeaderTableSize:
		c.enc.SetMaxSize(v)
	case settingEnablePush:
		if v > 1 || v == 1 && c.server == nil {
			return fault(codeProtocol, "SETTINGS_ENABLE_PUSH of %d", v)
		}
	case settingMaxStreams:
		c.peerMaxStreams = v
	case settingInitialWindowSize:
		if v > maxWindow {
			return fault(codeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE of %d", v)
		}
		return c.moveWindows(int64(v))
	case settingMaxFrameSize:
		if v < defaultFrame || v > 1<<24-1 {
			return fault(codeProtocol, "SETTINGS_MAX_FRAME_SIZE of %d", v)
		}
		// Larger frames than this would keep the other streams waiting.
		c.peerFrame = int(min(v, maxGathered/2))
	case settingConnectProtocol:
		if v > 1 || v == 0 && c.peerConnect {
			return fault(codeProtocol, "SETTINGS_ENABLE_CONNECT_PROTOCOL of %d", v)
		}
		c.peerConnect = v == 1
	}
	return nil
}

// moveWindows applies a new SETTINGS_INITIAL_WINDOW_SIZE to all streams (RFC 9113,
// 6.9.2); mu is held.
func (c *conn) moveWindows(size int64) error {
	delta := size - c.peerWindow
	c.peerWindow = size
	for _, s := range c.streams {
		s.sendWindow += delta
		if s.sendWindow > maxWindow {
			return fault(codeFlowControl, "window of stream %d overflows", s.id)
		}
		s.wakeSender()
	}
	return nil
}

// windowUpdate gives credit (RFC 9113, 6.9).
func (r *reader) windowUpdate(h frameHeader, p []byte) error {
	c := r.c
	if len(p) != 4 {
		return fault(codeFrameSize, "WINDOW_UPDATE of %d octets", len(p))
	}
	if err := r.countControl(); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(p) & maxWindow)
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.streamID == 0 {
		switch {
		case n == 0:
			return fault(codeProtocol, "WINDOW_UPDATE of 0")
		case c.sendWindow+n > maxWindow:
			return fault(codeFlowControl, "window of the connection overflows")
		}
		c.addCredit(n)
		return nil
	}
	s := c.streams[h.streamID]
	switch {
	case s == nil && r.idle(h.streamID):
		return fault(codeProtocol, "WINDOW_UPDATE on idle stream %d", h.streamID)
	case n == 0:
		return faulty(h.streamID, codeProtocol, "WINDOW_UPDATE of 0")
	case s == nil:
		return nil
	case s.sendWindow+n > maxWindow:
		return faulty(h.streamID, codeFlowControl, "window of the stream overflows")
	}
	s.sendWindow += n
	s.wakeSender()
	return nil
}

// rstStream breaks a stream off (RFC 9113, 6.4).
func (r *reader) rstStream(h frameHeader, p []byte) error {
	c := r.c
	if len(p) != 4 {
		return fault(codeFrameSize, "RST_STREAM of %d octets", len(p))
	}
	code := binary.BigEndian.Uint32(p)
	c.mu.Lock()
	s := c.streams[h.streamID]
	if s == nil {
		defer c.mu.Unlock()
		if h.streamID == 0 || r.idle(h.streamID) {
			return fault(codeProtocol, "RST_STREAM on idle stream %d", h.streamID)
		}
		return r.countControl()
	}
	var err error = &message.ResetError{Code: code, Remote: true}
	if s.q != nil && code == codeRefusedStream {
		err = &message.UnsentError{Err: err} // RFC 9113, 8.7
	}
	answered := s.localEnd
	s.end(err)
	s.settle()
	c.mu.Unlock()
	s.abort()
	if s.x != nil && answered {
		// It was as much work as any request, and the client need not send the rest.
		return nil
	}
	if s.x != nil && time.Since(s.x.begun) < resetSoon {
		return r.countReset()
	}
	return r.countControl()
}

// ping answers PING (RFC 9113, 6.7).
func (r *reader) ping(h frameHeader, p []byte) error {
	c := r.c
	switch {
	case len(p) != 8:
		return fault(codeFrameSize, "PING of %d octets", len(p))
	case h.streamID != 0:
		return fault(codeProtocol, "PING on a stream")
	}
	if err := r.countControl(); err != nil {
		return err
	}
	if h.has(flagAck) {
		if [8]byte(p) == drainMark {
			c.drainAcked()
		}
		return nil
	}
	c.mu.Lock()
	c.out.ping(flagAck, [8]byte(p))
	c.mu.Unlock()
	return r.checkQueue()
}

// errGoAway is the cause of a connection's end that the peer told with GOAWAY.
var errGoAway = errors.New("peer ended the connection with an error")

// goAway stops new requests (RFC 9113, 6.8). Those that the server did not and will
// not look at fail so that they can be sent elsewhere.
func (r *reader) goAway(h frameHeader, p []byte) error {
	c := r.c
	switch {
	case h.streamID != 0:
		return fault(codeProtocol, "GOAWAY on a stream")
	case len(p) < 8:
		return fault(codeFrameSize, "GOAWAY of %d octets", len(p))
	}
	if err := r.countControl(); err != nil {
		return err
	}
	last, code := streamIn(p), binary.BigEndian.Uint32(p[4:])
	cause := error(ErrDraining)
	if code != codeNo {
		cause = errGoAway
	}
	refusal := &message.UnsentError{Err: &ConnError{Code: code, Remote: true, Cause: cause}}
	var refused []*stream
	c.mu.Lock()
	c.draining = true
	for id, s := range c.streams {
		if s.q != nil && id > last {
			refused = append(refused, s)
			s.end(refusal)
		}
	}
	for _, s := range refused {
		s.settle()
	}
	c.endIfDrained()
	c.mu.Unlock()
	for _, s := range refused {
		s.abort()
	}
	if code != codeNo {
		return &ConnError{Code: code, Remote: true, Cause: cause}
	}
	return nil
}

// priority takes PRIORITY, which means nothing any more but must be well-formed (RFC
// 9113, 6.3).
func (r *reader) priority(h frameHeader, p []byte) error {
	switch {
	case h.streamID == 0:
		return fault(codeProtocol, "PRIORITY on stream 0")
	case len(p) != 5:
		return faulty(h.streamID, codeFrameSize, "PRIORITY of another length than 5")
	case streamIn(p) == h.streamID:
		return faulty(h.streamID, codeProtocol, "stream depends on itself")
	}
	return r.countControl()
}
