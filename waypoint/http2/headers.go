package http2

import (
	"errors"
	"fmt"
	"sync"

	"github.com/tulle-mesh/tulle/waypoint/http2/hpack"
)

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
	} else {
		r.late = s.late()
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
