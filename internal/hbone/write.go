package hbone

import (
	"golang.org/x/net/http2"
)

// controlBuffer gathers the frames that carry no data until somebody holds the
// write lock. Its content is in the order in which the frames leave.
type controlBuffer struct{ b []byte }

// Write implements io.Writer for the Framer.
func (c *controlBuffer) Write(p []byte) (int, error) {
	c.b = append(c.b, p...)
	return len(p), nil
}

// queued notes that control has something; mu is held.
func (t *tunnel) queued() { t.controlReady.Store(true) }

func (t *tunnel) queueFrame(length int, kind http2.FrameType, flags http2.Flags, streamID uint32) {
	var h [frameHeaderLen]byte
	putFrameHeader(h[:], length, kind, flags, streamID)
	t.control.Write(h[:])
	t.queued()
}

// queueReset queues RST_STREAM and remembers it; mu is held.
func (t *tunnel) queueReset(id uint32, code ErrCode) {
	_ = t.framer.WriteRSTStream(id, http2.ErrCode(code))
	t.resets[t.resetNext] = id
	t.resetNext = (t.resetNext + 1) % len(t.resets)
	t.queued()
}

// queueGoAway queues GOAWAY; mu is held.
func (t *tunnel) queueGoAway(last uint32, code ErrCode, text string) {
	_ = t.framer.WriteGoAway(last, http2.ErrCode(code), []byte(text))
	t.queued()
}

// returnCredit queues WINDOW_UPDATE for a stream. The caller pushes it out.
func (t *tunnel) returnCredit(s *stream, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.gone || s.remoteEnd || t.err != nil {
		return
	}
	_ = t.framer.WriteWindowUpdate(s.id, uint32(n))
	t.queued()
}

// moveControl gives the queued frames to the link; wmu is held.
func (t *tunnel) moveControl() {
	if !t.controlReady.Load() {
		return
	}
	t.mu.Lock()
	b := t.control.b
	t.control.b = t.spare[:0]
	t.controlReady.Store(false)
	t.mu.Unlock()
	if len(b) > 0 {
		_ = t.link.write(b) // the error sticks and shows at the next flush
	}
	// Nothing is kept while idle.
	if cap(b) > 256 {
		b = nil
	}
	t.spare = b
}

// writeData sends n octets of b behind frameHeaderLen octets of room, for which
// credit was reserved. b is overwritten. Who finds others waiting for the write lock
// leaves the flush to them.
func (t *tunnel) writeData(s *stream, b []byte, n int) error {
	t.waiting.Add(1)
	t.wmu.Lock()
	more := t.waiting.Add(-1) > 0
	t.moveControl()
	var err error
	alive := !s.dead.Load()
	if alive {
		err = t.gatherData(s.id, b, n)
		t.dataFramesSent.Add(1)
		t.load.count(n)
	}
	if err == nil && (!more || t.link.wire.pendingOut() >= maxHeldOutput/2) {
		_, err = t.link.wire.flush(true)
	}
	t.unlockWrite()
	if err != nil {
		t.writeFailed(err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !alive {
		// Nothing was sent, and the others may use what was reserved of their window.
		t.sendWindow += int64(n)
	}
	t.released(int64(n))
	if s.err != nil {
		return s.err
	}
	return err
}

// gatherData cuts n octets into frames that the peer takes. The header of each frame
// overwrites the end of the one before, which the link has copied already.
func (t *tunnel) gatherData(id uint32, b []byte, n int) error {
	// This fills whole TLS records together with the header.
	limit := int(t.peerFrame.Load()) - frameHeaderLen
	for at := 0; at < n; {
		size := min(n-at, limit)
		putFrameHeader(b[at:], size, http2.FrameData, 0, id)
		if err := t.link.write(b[at : at+frameHeaderLen+size]); err != nil {
			return err
		}
		at += size
	}
	return nil
}

// kick pushes queued frames out without ever blocking: somebody holding the write
// lock does it on leaving, and what the socket does not take is left to a goroutine.
func (t *tunnel) kick() {
	for t.controlReady.Load() || t.link.wire.pendingOut() > 0 {
		if !t.wmu.TryLock() {
			return
		}
		t.moveControl()
		done, err := t.link.wire.flush(false)
		t.wmu.Unlock()
		if err != nil {
			t.writeFailed(err)
			return
		}
		if !done {
			t.push()
			return
		}
	}
}

// push starts the goroutine that flushes what the socket did not take at once,
// unless it runs.
func (t *tunnel) push() {
	t.mu.Lock()
	start := !t.closing && !t.pusherOn.Swap(true)
	if start {
		t.background.Add(1)
	}
	t.mu.Unlock()
	if !start {
		return
	}
	go func() {
		defer t.background.Done()
		t.wmu.Lock()
		t.pusherOn.Store(false)
		t.moveControl()
		_, err := t.link.wire.flush(true)
		t.unlockWrite()
		if err != nil {
			t.writeFailed(err)
		}
	}()
}

// unlockWrite leaves the write lock and sends what was queued meanwhile by
// goroutines that do not wait for it.
func (t *tunnel) unlockWrite() {
	t.wmu.Unlock()
	if t.controlReady.Load() && t.waiting.Load() == 0 {
		t.kick()
	}
}
