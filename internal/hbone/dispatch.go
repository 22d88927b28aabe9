package hbone

import (
	"math"
	"time"

	"golang.org/x/net/http2"
)

// dispatch acts on a whole frame that is not DATA.
func (r *reader) dispatch(f http2.Frame) error {
	if !r.settled {
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			return faultf(CodeProtocol, "first frame is an acknowledgement")
		}
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return r.settings(f)
	case *http2.MetaHeadersFrame:
		return r.headers(f)
	case *http2.WindowUpdateFrame:
		return r.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return r.rstStream(f)
	case *http2.PingFrame:
		return r.ping(f)
	case *http2.GoAwayFrame:
		return r.goAway(f)
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return &streamFault{f.StreamID, CodeProtocol}
		}
		return r.countControl()
	case *http2.PushPromiseFrame:
		return faultf(CodeProtocol, "PUSH_PROMISE, which nobody allowed")
	}
	return nil
}

// settings applies the peer's SETTINGS and acknowledges them.
func (r *reader) settings(f *http2.SettingsFrame) error {
	t := r.t
	if f.IsAck() {
		return r.countControl()
	}
	first := !r.settled
	r.settled = true
	if err := r.countControl(); err != nil {
		return err
	}
	t.keep.settled()

	t.mu.Lock()
	defer t.mu.Unlock()
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			return t.moveWindows(int32(s.Val))
		case http2.SettingMaxFrameSize:
			t.peerFrame.Store(int32(s.Val))
			if s.Val >= maxFrame && r.maxFrame < maxFrame {
				// A peer that takes large frames may send them too; others keep to the default.
				r.maxFrame = maxFrame
				_ = t.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxFrame})
			}
		case http2.SettingMaxConcurrentStreams:
			t.peerMaxStreams = s.Val
		case http2.SettingHeaderTableSize:
			t.henc.SetMaxDynamicTableSizeLimit(min(s.Val, 4096))
			t.henc.SetMaxDynamicTableSize(min(s.Val, 4096))
		case http2.SettingEnablePush:
			if t.server == nil && s.Val != 0 {
				return faultf(CodeProtocol, "server enabled push")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if first {
		if _, told := f.Value(http2.SettingMaxConcurrentStreams); !told {
			t.peerMaxStreams = math.MaxUint32
		}
		close(t.settled)
	}
	_ = t.framer.WriteSettingsAck()
	t.queued()
	return r.checkQueue()
}

// checkQueue ends a connection whose peer asks and does not read; mu is held.
func (r *reader) checkQueue() error {
	if len(r.t.control.b) > maxControlQueue {
		return faultf(CodeEnhanceCalm, "peer does not read its answers")
	}
	return nil
}

// moveWindows applies a new SETTINGS_INITIAL_WINDOW_SIZE to all streams (RFC 9113
// section 6.9.2); mu is held.
func (t *tunnel) moveWindows(size int32) error {
	delta := int64(size) - int64(t.peerWindow)
	t.peerWindow = size
	for _, s := range t.streams {
		s.sendWindow += delta
		if s.sendWindow > math.MaxInt32 {
			return faultf(CodeFlowControl, "window of stream %d overflows", s.id)
		}
		s.credit.Broadcast()
	}
	return nil
}

func (r *reader) windowUpdate(f *http2.WindowUpdateFrame) error {
	t := r.t
	if err := r.countControl(); err != nil {
		return err
	}
	n := int64(f.Increment)
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.StreamID == 0 {
		if t.sendWindow+n > math.MaxInt32 {
			return faultf(CodeFlowControl, "window of the connection overflows")
		}
		t.addTunnelCredit(n)
		return nil
	}
	s := t.streams[f.StreamID]
	if s == nil {
		if r.idle(f.StreamID) {
			return faultf(CodeProtocol, "WINDOW_UPDATE on idle stream %d", f.StreamID)
		}
		return nil
	}
	if s.sendWindow+n > math.MaxInt32 {
		return &streamFault{f.StreamID, CodeFlowControl}
	}
	s.sendWindow += n
	s.credit.Signal()
	return nil
}

func (r *reader) rstStream(f *http2.RSTStreamFrame) error {
	t := r.t
	t.mu.Lock()
	s := t.streams[f.StreamID]
	if s == nil {
		defer t.mu.Unlock()
		if f.StreamID == 0 || r.idle(f.StreamID) {
			return faultf(CodeProtocol, "RST_STREAM on idle stream %d", f.StreamID)
		}
		return r.countControl()
	}
	early := t.server != nil && !s.answered
	err := &StreamError{Code: ErrCode(f.ErrCode), Remote: true}
	s.end(err)
	s.settle()
	t.mu.Unlock()
	s.abort(err)
	if early {
		return r.countCancel()
	}
	return nil
}

func (r *reader) ping(f *http2.PingFrame) error {
	t := r.t
	if f.IsAck() {
		t.drainAcked()
		return r.countControl()
	}
	if err := r.countControl(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.framer.WritePing(true, f.Data)
	t.queued()
	return r.checkQueue()
}

// goAway stops new streams. Those that the peer did not and will not look at fail
// so that they can be tried elsewhere.
func (r *reader) goAway(f *http2.GoAwayFrame) error {
	t := r.t
	if err := r.countControl(); err != nil {
		return err
	}
	if f.ErrCode != http2.ErrCodeNo {
		return &TunnelError{Code: ErrCode(f.ErrCode), Remote: true,
			Cause: &goAwayError{code: ErrCode(f.ErrCode), text: string(f.DebugData())}}
	}
	t.mu.Lock()
	t.peerGone = true
	t.draining = true
	var refused []*stream
	for id, s := range t.streams {
		if s.local && id > f.LastStreamID {
			refused = append(refused, s)
			s.end(ErrDraining)
			s.settle()
		}
	}
	t.closeIfDrained()
	t.mu.Unlock()
	for _, s := range refused {
		s.abort(ErrDraining)
	}
	return nil
}

// headers acts on a header block: a request, an answer, or what must not be there.
func (r *reader) headers(f *http2.MetaHeadersFrame) error {
	t := r.t
	id := f.StreamID
	if id == 0 {
		return faultf(CodeProtocol, "HEADERS on stream 0")
	}
	if f.HasPriority() && f.Priority.StreamDep == id {
		if err := r.noteBrokenHeader(id); err != nil {
			return err
		}
		return &streamFault{id, CodeProtocol}
	}
	t.mu.Lock()
	s := t.streams[id]
	t.mu.Unlock()
	if s == nil {
		if err := r.noteBrokenHeader(id); err != nil {
			return err
		}
		if t.server == nil {
			// The answer to a stream that we reset or that ended.
			return nil
		}
		return r.request(f)
	}
	t.mu.Lock()
	closed := s.remoteEnd || s.err != nil
	t.mu.Unlock()
	if closed {
		return &streamFault{id, CodeStreamClosed}
	}
	if s.local && !s.answered {
		return r.answer(s, f)
	}
	return r.trailers(s, f)
}

// noteBrokenHeader checks the number of a stream that a header block names and that
// is not open, and takes note of it, whether the block was valid or not.
func (r *reader) noteBrokenHeader(id uint32) error {
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams[id] != nil {
		return nil
	}
	if id%2 == t.nextID%2 {
		if id >= t.nextID {
			return faultf(CodeProtocol, "HEADERS on idle stream %d", id)
		}
		return nil
	}
	if t.server == nil {
		return faultf(CodeProtocol, "server opened stream %d", id)
	}
	if id <= t.lastID {
		for _, reset := range t.resets {
			if reset == id {
				return &streamFault{id, CodeStreamClosed}
			}
		}
		return faultf(CodeStreamClosed, "HEADERS on closed stream %d", id)
	}
	t.lastID = id
	return nil
}

// trailers judges a second header block. A CONNECT has none (RFC 9113 section 8.5);
// those of another request are dropped, but must be well-formed and end it.
func (r *reader) trailers(s *stream, f *http2.MetaHeadersFrame) error {
	if s.connect || len(f.PseudoFields()) > 0 || !f.StreamEnded() {
		return &streamFault{s.id, CodeProtocol}
	}
	return r.endStream(s)
}

// countCancel counts a request that the peer gave up before it was answered.
func (r *reader) countCancel() error {
	if !r.cancels.allow(time.Now()) {
		return faultf(CodeEnhanceCalm, "too many requests cancelled")
	}
	return nil
}
