package http2

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// serverExchange is one request and its response. It implements message.Exchange.
// All that a usual request needs lies in this one piece of memory, but for the text
// of its head.
type serverExchange struct {
	stream
	request message.Request
	fields  [16]message.Field // what request.Header usually lies in
	ctx     requestContext
	begun   time.Time
	bare    bool // END_STREAM came with the head

	responded bool // the final head was put into out; guarded by c.mu
	continued bool // 100 was sent, or is not wanted any more; guarded by c.mu
	declined  bool // the final head's status is 300 or above; guarded by c.mu
}

// run calls the handler and breaks off what it left unfinished.
func (x *serverExchange) run() {
	c := x.c
	c.server.srv.Handler(&x.ctx, x)
	early := false
	c.mu.Lock()
	c.server.running--
	switch {
	case x.gone || x.err != nil:
	case !x.localEnd:
		c.queueReset(x.id, codeInternal)
		x.end(errDone)
	case x.declined:
		early = true
		c.discard(&x.stream)
	default:
		// The response is complete, and nobody wants the rest of the request (8.1).
		c.queueReset(x.id, codeNo)
		x.end(errDone)
	}
	x.settle()
	c.kick()
	c.mu.Unlock()
	x.abort()
	if early {
		x.concede()
	}
}

// Request implements message.Exchange.
func (x *serverExchange) Request() *message.Request { return &x.request }

// Body implements message.Exchange.
func (x *serverExchange) Body() message.Body {
	if x.bare {
		return message.NoBody
	}
	return (*requestBody)(x)
}

// requestBody is the content of a request.
type requestBody serverExchange

// Read implements message.Body. The last octets may come together with io.EOF.
func (b *requestBody) Read(p []byte) (int, error) {
	x := (*serverExchange)(b)
	if x.request.ExpectContinue {
		x.carryOn()
	}
	return x.read(p)
}

// Buffered returns how many octets Read returns without waiting.
func (b *requestBody) Buffered() int { return (*serverExchange)(b).buffered() }

// Trailer implements message.Body.
func (b *requestBody) Trailer() message.Header { return (*serverExchange)(b).receivedTrailer() }

// carryOn sends 100, once, unless the client did not wait or has an answer, which
// then must leave.
func (x *serverExchange) carryOn() {
	if x.buffered() > 0 {
		return
	}
	c := x.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case x.continued || x.remoteEnd || x.err != nil:
		return
	case x.responded:
		c.kick()
		return
	}
	x.interim(&message.Response{Status: http.StatusContinue}, 0)
}

// Inform implements message.Exchange.
func (x *serverExchange) Inform(r *message.Response) error {
	if !r.Interim() {
		return fmt.Errorf("status %d is not that of an interim response", r.Status)
	}
	octets, err := checkFields(r.Header)
	if err != nil {
		return err
	}
	c := x.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.responded {
		return errResponded
	}
	if err := x.awaitRoom(); err != nil {
		return err
	}
	x.interim(r, octets)
	return nil
}

// interim sends an interim response; c.mu is held.
func (x *serverExchange) interim(r *message.Response, octets int) {
	if r.Status == http.StatusContinue {
		x.continued = true
	}
	c := x.c
	start := c.beginHead(octets + 32)
	c.field(":status", statusText(r.Status))
	c.appendFields(r.Header)
	c.endHead(&x.stream, start, false)
	x.lastAt = -1
	c.kick()
}

// Respond implements message.Exchange. Fields that frame a message are left out,
// whoever put them there. A CONNECT, extended or not, cannot be answered with 2xx, as
// an upgrade of HTTP/1.1 can that the server does not want: it would mean that what
// follows is the other protocol. That is for Switch to say.
func (x *serverExchange) Respond(r *message.Response, end bool) error {
	switch {
	case r.Status < 200 || r.Status > 599:
		return fmt.Errorf("status %d is not that of a final response", r.Status)
	case x.tunnel && r.Status < 300:
		return errAccepts
	}
	err := x.respond(r, end)
	if err == nil && end {
		x.stopReading()
	}
	return err
}

// stopReading ends the reading of a request whose response is complete: else a client
// that neither sends the rest nor ends it would hold up whoever reads, for ever.
func (x *serverExchange) stopReading() {
	x.rmu.Lock()
	defer x.rmu.Unlock()
	if !x.eof {
		x.drop(errEnded)
	}
}

func (x *serverExchange) respond(r *message.Response, end bool) error {
	octets, err := checkFields(r.Header)
	if err != nil {
		return err
	}
	c := x.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.responded {
		return errResponded
	}
	if err := x.awaitRoom(); err != nil {
		return err
	}
	x.responded = true
	x.head(r, octets, end)
	if end {
		c.kick()
	}
	return nil
}

// head puts the head of a final response into out; c.mu is held.
func (x *serverExchange) head(r *message.Response, octets int, end bool) {
	c := x.c
	length := r.Length
	x.declined = r.Status >= 300
	switch {
	case x.tunnel && r.Status < 300:
		length, x.sendLeft = -1, -1
	case x.request.Method == http.MethodHead, r.Status == http.StatusNotModified:
		x.sendLeft = 0
	case r.Status == http.StatusNoContent:
		length, x.sendLeft = -1, 0
	case end:
		length, x.sendLeft = -1, 0 // END_STREAM says it; gRPC takes fields for metadata
	default:
		x.sendLeft = length
	}
	start := c.beginHead(octets + 128)
	c.field(":status", statusText(r.Status))
	c.appendFields(r.Header)
	if length >= 0 {
		c.out.b = c.enc.AppendInt(c.out.b, "content-length", length)
	}
	if !r.Header.Has("date") {
		c.field("date", message.Date(time.Now()))
	}
	c.endHead(&x.stream, start, end)
	x.putOff += octets
	if end {
		x.sent()
	}
}

// Write implements message.Exchange.
func (x *serverExchange) Write(p []byte) (int, error) {
	if !x.answered() {
		return 0, errNotResponded
	}
	return x.write(p)
}

func (x *serverExchange) answered() bool {
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	return x.responded
}

// Flush implements message.Exchange.
func (x *serverExchange) Flush() error { return x.flush() }

// Close implements message.Exchange.
func (x *serverExchange) Close(trailer message.Header) error {
	if !x.answered() {
		return errNotResponded
	}
	err := x.closeWrite(trailer)
	switch {
	case err == nil:
		x.stopReading()
	case errors.Is(err, errEnded):
		return nil // Respond said so already
	case errors.Is(err, errTooShort), errors.Is(err, errBadField), errors.Is(err, errHeadTooLarge):
		x.Abort(err)
	}
	return err
}

// Abort implements message.Exchange.
func (x *serverExchange) Abort(reason error) {
	code := uint32(codeInternal)
	var r *message.ResetError
	if errors.As(reason, &r) && r.Code != codeNo {
		code = r.Code
	}
	x.reset(code, &message.ResetError{Code: code})
}

// Switch implements message.Exchange. The upgrade of an extended CONNECT is told by
// 200, whatever r says (RFC 8441, 5), and without what proves it in HTTP/1.1.
func (x *serverExchange) Switch(r *message.Response) (message.Stream, error) {
	if !x.tunnel {
		return nil, errNoSwitch
	}
	answer := *r
	if answer.Status < 200 || answer.Status > 299 || x.request.Protocol != "" {
		answer.Status = http.StatusOK
	}
	if answer.Header.Has("sec-websocket-accept") {
		answer.Header = answer.Header.Clone()
		answer.Header.Del("sec-websocket-accept")
	}
	if err := x.respond(&answer, false); err != nil {
		return nil, err
	}
	if err := x.flush(); err != nil {
		return nil, err
	}
	return (*tunnelStream)(&x.stream), nil
}

// tunnelStream is what an exchange becomes after CONNECT.
type tunnelStream stream

// Read implements message.Stream.
func (t *tunnelStream) Read(p []byte) (int, error) { return (*stream)(t).read(p) }

// Write implements message.Stream. Nothing is put off.
func (t *tunnelStream) Write(p []byte) (int, error) {
	s := (*stream)(t)
	n, err := s.write(p)
	if err != nil {
		return n, err
	}
	return n, s.flush()
}

// CloseWrite implements message.Stream.
func (t *tunnelStream) CloseWrite() error {
	err := (*stream)(t).closeWrite(nil)
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

// Close implements message.Stream. What is not finished is broken off.
func (t *tunnelStream) Close() error {
	(*stream)(t).reset(codeCancel, errCancelled)
	return nil
}
