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
	idle     chan struct{}
	lastDone time.Time
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
	c.lastDone = time.Now()
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

// closeWhenIdle waits for the last stream of a draining connection, then as
// long as its last bytes may need to arrive, and closes the connection.
func (c *conn) closeWhenIdle() {
	select {
	case <-c.idle:
	case <-c.qc.Context().Done():
		return
	}
	stats := c.qc.ConnectionStats()
	// The probe timeout of RFC 9002 section 6.2.1 with the default max_ack_delay of 25 ms.
	pto := stats.SmoothedRTT + max(4*stats.MeanDeviation, time.Millisecond) + 25*time.Millisecond
	linger := min(max(lingerPTOs*pto, minLinger), maxLinger)
	c.mu.Lock()
	if c.lastDone.IsZero() {
		linger = 0
	} else {
		linger -= time.Since(c.lastDone)
	}
	c.mu.Unlock()
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.qc.Context().Done():
		return
	}
	c.close(codeNoError, "")
}

// openControl opens our control stream and sends SETTINGS on it.
func (c *conn) openControl(maxFieldSectionBytes uint64) (*quic.SendStream, error) {
	control, err := c.qc.OpenUniStream()
	if err != nil {
		return nil, err
	}
	control.SetWriteDeadline(time.Now().Add(controlWriteTimeout))
	_, err = control.Write(appendSettings([]byte{uniControl}, maxFieldSectionBytes))
	return control, err
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
