package http1

import (
	"io"
	"sync"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// stream is what a connection becomes after CONNECT or an upgrade. It implements
// message.Stream: one goroutine may read, another write, and any may close.
type stream struct {
	in  *wire
	out *output

	// mu guards out, for those who close while others write.
	mu sync.Mutex
}

// Read implements message.Stream.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if have := s.in.buffered(); len(have) > 0 {
		n := copy(p, have)
		s.in.skip(n)
		return n, nil
	}
	s.in.relax(true)
	return s.in.readInto(p)
}

// Write implements message.Stream.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.out.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite implements message.Stream. A connection that cannot be closed by halves
// is closed.
func (s *stream) CloseWrite() error {
	if c, ok := s.in.conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return s.in.conn.Close()
}

// Close implements message.Stream.
func (s *stream) Close() error { return s.in.conn.Close() }

// SetLinger with 0 makes Close reset the connection, where that can be, so that the
// peer does not take what it has for the whole.
func (s *stream) SetLinger(sec int) error {
	if c, ok := s.in.conn.(interface{ SetLinger(sec int) error }); ok {
		return c.SetLinger(sec)
	}
	return nil
}

var (
	_ message.Stream = (*stream)(nil)
	_ io.Closer      = (*stream)(nil)
)
