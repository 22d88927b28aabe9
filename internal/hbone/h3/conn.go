package h3

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// conn is what client and server have in common: one QUIC connection with its
// streams.
type conn struct {
	qc *quic.Conn
	// control is our control stream.
	control *quic.SendStream
	// onGoAway handles a GOAWAY of the peer.
	onGoAway func(id uint64) error
	// fromServer tells that the peer is the server.
	fromServer bool

	// wg counts the goroutines of this connection; they end with qc.
	wg sync.WaitGroup

	mu sync.Mutex
	// streams holds the requests that are neither finished nor released.
	streams map[quic.StreamID]*stream
	// draining tells that no further stream is wanted.
	draining bool
	// idle is closed when draining and without streams.
	idle chan struct{}
	// excluded is the id of the last GOAWAY received, nil before.
	excluded *uint64
	seenUni  map[uint64]bool
}

func (c *conn) init(qc *quic.Conn, fromServer bool, onGoAway func(uint64) error) {
	c.qc = qc
	c.fromServer = fromServer
	c.onGoAway = onGoAway
	c.streams = map[quic.StreamID]*stream{}
	c.idle = make(chan struct{})
	c.seenUni = map[uint64]bool{}
}

// fail ends the connection because of what the peer did. Errors of streams and
// of the connection itself pass without effect.
func (c *conn) fail(err error) {
	if pe, ok := errors.AsType[*protocolError](err); ok && !pe.onStream {
		c.close(pe.code, pe.text)
	}
}

// close ends the connection. Only the first call has an effect; it does not
// wait, because quic-go would wait for a goroutine that may be the caller's.
func (c *conn) close(code code, reason string) {
	go c.qc.CloseWithError(quic.ApplicationErrorCode(code), reason)
}

// add enters a stream unless the connection drains.
func (c *conn) add(s *stream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return false
	}
	c.streams[s.qs.StreamID()] = s
	return true
}

// remove forgets a stream that is done.
func (c *conn) remove(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.streams[s.qs.StreamID()]; !ok {
		return
	}
	delete(c.streams, s.qs.StreamID())
	if c.draining && len(c.streams) == 0 {
		close(c.idle)
	}
}

// beginDrain marks the connection as draining and tells whether it was not before.
func (c *conn) beginDrain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return false
	}
	c.draining = true
	if len(c.streams) == 0 {
		close(c.idle)
	}
	return true
}

func (c *conn) streamCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}

// untilIdle waits for the last stream of a draining connection; false means that
// the connection ended first.
func (c *conn) untilIdle() bool {
	select {
	case <-c.idle:
		return true
	case <-c.qc.Context().Done():
		return false
	}
}

// untilEnd waits until the connection has ended or signal is closed, at most
// goodbyeTimeout.
func (c *conn) untilEnd(signal <-chan struct{}) {
	timer := time.NewTimer(goodbyeTimeout)
	defer timer.Stop()
	select {
	case <-signal:
	case <-c.qc.Context().Done():
	case <-timer.C:
	}
}

// sendGoAway says on the control stream that id and what comes after it is not
// taken (RFC 9114 section 5.2). A peer that grants no credit is left in the dark.
func (c *conn) sendGoAway(id uint64) {
	c.control.SetWriteDeadline(time.Now().Add(controlWriteTimeout))
	c.control.Write(appendGoAway(nil, id))
}

// openControl opens our control stream and sends SETTINGS on it.
func (c *conn) openControl(maxFieldSectionBytes uint64) (err error) {
	if c.control, err = c.qc.OpenUniStream(); err != nil {
		return err
	}
	c.control.SetWriteDeadline(time.Now().Add(controlWriteTimeout))
	_, err = c.control.Write(appendSettings([]byte{uniControl}, maxFieldSectionBytes))
	return err
}

// acceptUni handles the peer's unidirectional streams until the connection ends.
func (c *conn) acceptUni() {
	for {
		s, err := c.qc.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		c.wg.Go(func() { c.fail(c.serveUni(s)) })
	}
}

// tunnelError tells why the connection ended; it has ended.
func (c *conn) tunnelError() *hbone.TunnelError {
	return toTunnelError(context.Cause(c.qc.Context()))
}

func toTunnelError(err error) *hbone.TunnelError {
	e := &hbone.TunnelError{Cause: err}
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok {
		e.Code, e.Remote = fromH3(code(app.ErrorCode)), app.Remote
	} else if tr, ok := errors.AsType[*quic.TransportError](err); ok {
		e.Code, e.Remote = hbone.CodeProtocol, tr.Remote
	} else {
		e.Code = hbone.CodeInternal
	}
	return e
}

// toStreamError turns an error of a QUIC stream into one of hbone. io.EOF and
// deadlines pass.
func toStreamError(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if se, ok := errors.AsType[*quic.StreamError](err); ok {
		return &hbone.StreamError{Code: fromH3(code(se.ErrorCode)), Remote: se.Remote}
	}
	if pe, ok := errors.AsType[*protocolError](err); ok {
		return &hbone.StreamError{Code: fromH3(pe.code)}
	}
	if errors.Is(err, quic.ErrStreamClosed) {
		return err
	}
	te := toTunnelError(err)
	return &hbone.StreamError{Code: te.Code, Remote: te.Remote}
}
