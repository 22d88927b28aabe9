package h3

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/quic-go/quic-go"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/relay"
)

// Join implements hbone.Stream. It costs one goroutine besides the caller's.
func (s *stream) Join(ctx context.Context, sock *net.TCPConn, c *relay.Counters) error {
	if c == nil {
		c = new(relay.Counters)
	}
	j := &joint{s: s, sock: sock, counters: c}
	stopCtx := context.AfterFunc(ctx, func() {
		// The end of the last stream may end the connection, and ctx with it, before
		// this returns; what the socket was given must stay with it then.
		if !s.endedInOrder() {
			j.abort(context.Cause(ctx), codeRequestCancelled)
		}
	})
	defer stopCtx()
	// A peer that stops reading shows nowhere else while sock is silent.
	stopWrite := context.AfterFunc(s.qs.Context(), j.writeEnded)
	defer stopWrite()

	var wg sync.WaitGroup
	wg.Go(j.outbound)
	j.inbound()
	wg.Wait()
	// Nothing is left for these to do, and they shall not run after the return.
	s.Close()
	sock.Close()
	return j.firstError()
}

// joint is one stream tied to one socket.
type joint struct {
	s        *stream
	sock     *net.TCPConn
	counters *relay.Counters

	mu  sync.Mutex
	err error
}

func (j *joint) firstError() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// abort resets both sides. Only the first cause counts.
func (j *joint) abort(err error, c code) {
	j.mu.Lock()
	first := j.err == nil
	if first {
		j.err = err
	}
	j.mu.Unlock()
	if !first {
		return
	}
	j.s.reset(c)
	// A close without lingering sends RST.
	j.sock.SetLinger(0)
	j.sock.Close()
}

// socketFailed tells the peer that its TCP connection broke (RFC 9114 section 4.4).
func (j *joint) socketFailed(err error) { j.abort(err, codeConnect) }

func (j *joint) streamFailed(err error) { j.abort(err, codeRequestCancelled) }

// writeEnded runs when the stream's sending half ended, by FIN or otherwise.
func (j *joint) writeEnded() {
	err := context.Cause(j.s.qs.Context())
	se, ok := errors.AsType[*quic.StreamError](err)
	switch {
	case ok && se.Remote && code(se.ErrorCode) == codeNoError:
		// The peer needs no more, but its own bytes may still come.
		j.s.finish(false, true)
		j.sock.CloseRead()
	case ok && se.Remote:
		j.streamFailed(toStreamError(err))
	}
}

// outbound carries bytes from the socket to the stream.
func (j *joint) outbound() {
	raw, err := j.sock.SyscallConn()
	if err != nil {
		j.socketFailed(err)
		return
	}
	for {
		buf, n, err := readWhenReady(raw)
		if err != nil {
			j.socketFailed(err)
			return
		}
		if n == 0 {
			if err := j.s.CloseWrite(); err != nil {
				j.outboundFailed(err)
			}
			return
		}
		err = j.s.writeFrame(buf, n)
		buffers.Put(buf)
		if err != nil {
			j.outboundFailed(err)
			return
		}
		j.counters.Sent.Add(uint64(n))
	}
}

func (j *joint) outboundFailed(err error) {
	se, ok := errors.AsType[*hbone.StreamError](err)
	if ok && se.Remote && se.Code == hbone.CodeNo {
		return
	}
	j.streamFailed(err)
}

// inbound carries bytes from the stream to the socket.
func (j *joint) inbound() {
	var one [1]byte
	for {
		// Wait without a buffer; what there is to wait for shows in the Read below.
		j.s.qs.Peek(one[:])
		buf := buffers.Get().(*buffer)
		n, err := j.s.readRaw(buf[:])
		if n > 0 {
			var m int
			m, sockErr := j.sock.Write(buf[:n])
			j.counters.Received.Add(uint64(m))
			buffers.Put(buf)
			if sockErr != nil {
				j.socketFailed(sockErr)
				return
			}
			continue
		}
		buffers.Put(buf)
		switch {
		case err == io.EOF:
			// It fails when the peer of the socket is gone, which outbound learns too.
			j.sock.CloseWrite()
			return
		case err != nil:
			j.streamFailed(err)
			return
		}
	}
}

// readWhenReady reads what the socket has, waiting until it has something. It
// returns no buffer and 0 at the end of the stream. No buffer is held while it
// waits, so that a silent connection costs none.
func readWhenReady(raw syscall.RawConn) (buf *buffer, n int, err error) {
	waitErr := raw.Read(func(fd uintptr) bool {
		b := buffers.Get().(*buffer)
		for {
			n, err = syscall.Read(int(fd), b.payload())
			if err != syscall.EINTR {
				break
			}
		}
		if n > 0 {
			buf = b
			return true
		}
		buffers.Put(b)
		n = 0
		return err != syscall.EAGAIN
	})
	if waitErr != nil {
		return nil, 0, waitErr
	}
	return buf, n, os.NewSyscallError("read", err)
}
