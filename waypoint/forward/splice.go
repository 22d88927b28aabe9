package forward

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// splice carries bytes between both until both directions have ended. What breaks one
// side, or ctx, breaks the other by a reset: an orderly end would make a part of the
// bytes pass for the whole.
func splice(ctx context.Context, client, server message.Stream) (received, sent int64, err error) {
	stop := context.AfterFunc(ctx, func() {
		breakOff(client)
		breakOff(server)
	})
	defer stop()
	var up error
	var upWhole, downWhole atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() { received, up = oneWay(server, client, &upWhole, &downWhole) })
	sent, err = oneWay(client, server, &downWhole, &upWhole)
	wg.Wait()
	_ = client.Close()
	_ = server.Close()
	return received, sent, errors.Join(up, err)
}

// oneWay carries bytes until the end of from, which is then that of to, and sets whole;
// otherWhole tells the same of the other direction.
func oneWay(to, from message.Stream, whole, otherWhole *atomic.Bool) (int64, error) {
	buf := buffers.Get().(*[bufferBytes]byte)
	defer buffers.Put(buf)
	source := &source{from: from}
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, source, buf[:])
	switch {
	case err == nil:
		whole.Store(true)
		return n, to.CloseWrite()
	case source.err == nil && otherWhole.Load():
		// Who has said all that it had to say takes no more. It may not have been read
		// yet, and a reset would take it away.
		_ = to.Close()
		_ = from.Close()
	default:
		breakOff(to)
		breakOff(from)
	}
	return n, err
}

// source notes the error of reading.
type source struct {
	from io.Reader
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// breakOff closes s so that its peer sees that it did not end in order.
func breakOff(s message.Stream) {
	if c, ok := s.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
	_ = s.Close()
}
