package h3

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// stream is an hbone.Stream on a bidirectional QUIC stream. HTTP/2 resets a
// stream as a whole where QUIC resets its halves; here, as there, a reset of one
// half ends the other too, except STOP_SENDING with H3_NO_ERROR, which says that
// the peer needs no more bytes but has sent all of its own (RFC 9114 section 4.1.1).
type stream struct {
	qs *quic.Stream
	c  *conn
	// in belongs to the reader.
	in deframer

	// unprocessed tells that the server's GOAWAY excluded this request.
	unprocessed atomic.Bool

	mu                  sync.Mutex
	readDone, writeDone bool
	// broken tells that a half did not end in order, and brokenBy with which code.
	broken   bool
	brokenBy code
}

func newStream(c *conn, qs *quic.Stream) *stream { return &stream{qs: qs, c: c} }

// finish marks halves as done and releases the stream with the second one.
func (s *stream) finish(read, write bool) {
	s.mu.Lock()
	was := s.readDone && s.writeDone
	s.readDone = s.readDone || read
	s.writeDone = s.writeDone || write
	is := s.readDone && s.writeDone
	s.mu.Unlock()
	if is && !was {
		// The client may open its next stream in place of this one.
		s.qs.ReleaseStreamCredit()
		s.c.remove(s)
	}
}

// endedInOrder tells that both halves are done and none was reset.
func (s *stream) endedInOrder() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readDone && s.writeDone && !s.broken
}

func (s *stream) done() (read, write bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readDone, s.writeDone
}

// Read implements hbone.Stream.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := s.readRaw(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// readRaw reads once from the QUIC stream and removes the framing; it may yield
// nothing. It returns an error only without bytes.
func (s *stream) readRaw(p []byte) (int, error) {
	n, err := s.qs.Read(p)
	n, frameErr := s.in.strip(p[:n])
	if frameErr == nil && err == io.EOF {
		frameErr = s.in.end()
	}
	switch {
	case frameErr != nil:
		s.fail(frameErr)
		return 0, toStreamError(frameErr)
	case n > 0:
		// QUIC repeats its error on the next call.
		return n, nil
	case err == io.EOF:
		if reset := s.resetError(); reset != nil {
			return 0, reset
		}
		s.finish(true, false)
	case err != nil:
		s.ended(err)
	}
	return 0, toStreamError(err)
}

// resetError is the error of a stream that this side has reset, nil of others.
// The peer answers a reset with its own, and quic-go takes one that comes while
// Peek waits for the end of the stream.
func (s *stream) resetError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.broken {
		return nil
	}
	return toStreamError(&quic.StreamError{StreamID: s.qs.StreamID(), ErrorCode: quic.StreamErrorCode(s.brokenBy)})
}

// fail ends the stream, and the connection where the error is that grave.
func (s *stream) fail(err error) {
	if pe, ok := errors.AsType[*protocolError](err); ok {
		s.reset(pe.code)
	}
	s.c.fail(err)
}

// ended notes that the peer or the connection ended a half out of order, which
// ends the other half too.
func (s *stream) ended(err error) {
	c := codeRequestCancelled
	if se, ok := errors.AsType[*quic.StreamError](err); ok {
		c = code(se.ErrorCode)
	}
	s.reset(c)
}

// Write implements hbone.Stream.
func (s *stream) Write(p []byte) (int, error) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	written := 0
	for len(p) > 0 {
		n := copy(buf.payload(), p)
		if err := s.writeFrame(buf, n); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

// writeFrame sends the first n bytes of buf's payload as one DATA frame.
func (s *stream) writeFrame(buf *buffer, n int) error {
	_, err := s.qs.Write(buf.frame(n))
	if err == nil {
		return nil
	}
	if se, ok := errors.AsType[*quic.StreamError](err); ok && se.Remote && code(se.ErrorCode) == codeNoError {
		s.finish(false, true)
	} else if !errors.Is(err, quic.ErrStreamClosed) {
		s.ended(err)
	}
	return toStreamError(err)
}

// CloseWrite implements hbone.Stream.
func (s *stream) CloseWrite() error {
	// Close fails only when the half ended already; its context then tells how.
	s.qs.Close()
	s.finish(false, true)
	if err := context.Cause(s.qs.Context()); err != quic.ErrStreamClosed {
		return toStreamError(err)
	}
	return nil
}

// Reset implements hbone.Stream.
func (s *stream) Reset(c hbone.ErrCode) { s.reset(toH3(c)) }

func (s *stream) reset(c code) {
	read, write := s.done()
	if read && write {
		return
	}
	s.mu.Lock()
	if !s.broken {
		s.broken, s.brokenBy = true, c
	}
	s.mu.Unlock()
	s.qs.CancelWrite(quic.StreamErrorCode(c))
	s.qs.CancelRead(quic.StreamErrorCode(c))
	s.finish(true, true)
}

// Close implements hbone.Stream.
func (s *stream) Close() error {
	read, write := s.done()
	switch {
	case !write:
		s.reset(codeRequestCancelled)
	case !read:
		s.qs.CancelRead(quic.StreamErrorCode(codeNoError))
		s.finish(true, false)
	}
	return nil
}

// buffer holds one DATA frame with its header. 64 KiB of payload are the most
// that one read of a socket takes; see dataFrameBytes.
type buffer [dataHeaderBytes + dataFrameBytes]byte

func (b *buffer) payload() []byte { return b[dataHeaderBytes:] }

func (b *buffer) frame(n int) []byte {
	putDataHeader(b[:dataHeaderBytes], n)
	return b[:dataHeaderBytes+n]
}

// buffers are held only while bytes are in them, never while waiting for some.
var buffers = sync.Pool{New: func() any { return new(buffer) }}
