package forward

import (
	"errors"
	"io"
	"sync"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// contentKind is what is known of a request's content.
type contentKind uint8

const (
	// noContent: the head is all.
	noContent contentKind = iota
	// whole content is in memory, to be sent as often as need be.
	whole
	// streamed content passes as it comes, once.
	streamed
	// switching requests have no content: what follows is no message.
	switching
)

// content is that of a request, on its way to the application.
type content struct {
	kind    contentKind
	bytes   []byte         // whole
	trailer message.Header // whole
	body    message.Body   // streamed
	// received counts what came from the client, and messages those of gRPC in it.
	received int64
	messages messages

	mu      sync.Mutex
	started bool  // streamed: some of it is gone
	failed  error // what the client did wrong
}

// switches reports whether a request asks for bytes instead of messages.
func switches(r *message.Request) bool { return r.Protocol != "" || r.Method == "CONNECT" }

// take looks at the content and reads it whole where it is short, which lets it be sent
// again. The error is the client's body's.
func (c *content) take(r *message.Request, x message.Exchange) error {
	switch {
	case switches(r):
		c.kind = switching
		return nil
	case r.Length == 0:
		c.kind = noContent
		return nil
	}
	if c.body == nil { // else some of it was read for an authorizer
		c.body = x.Body()
	}
	length := r.Length
	if length < 0 {
		b, ok := c.body.(message.BufferedBody)
		if !ok {
			c.kind = streamed
			return nil
		}
		n, end := b.Buffered()
		if !end {
			c.kind = streamed
			return nil
		}
		length = int64(n)
	}
	if length > maxReplayBytes {
		c.kind = streamed
		return nil
	}
	c.kind, c.bytes = whole, make([]byte, 0, length+1)
	for {
		n, err := c.body.Read(c.bytes[len(c.bytes):cap(c.bytes)])
		c.bytes = c.bytes[:len(c.bytes)+n]
		switch {
		case errors.Is(err, io.EOF):
			c.trailer, c.received = c.body.Trailer(), int64(len(c.bytes))
			c.messages.count(c.bytes)
			return nil
		case err != nil:
			return err
		case len(c.bytes) == cap(c.bytes):
			return message.Malformed("content is longer than announced")
		}
	}
}

// send sends the content of an attempt, or starts to.
func (c *content) send(a *attempt) error {
	switch c.kind {
	case whole:
		if _, err := a.x.Write(c.bytes); err != nil {
			return err
		}
		return a.x.CloseWrite(c.trailer)
	case streamed:
		c.mu.Lock()
		c.started = true
		c.mu.Unlock()
		a.upload.Go(func() { c.stream(a) })
	}
	return nil
}

// stream passes the content as it comes, until its end or that of the attempt.
func (c *content) stream(a *attempt) {
	defer a.uploaded.Store(true)
	counted := c.messages
	n, err := pump(&a.x, c.body, &counted)
	c.mu.Lock()
	c.received += n
	c.messages = counted
	c.mu.Unlock()
	if err == nil {
		// A failure shows in the response.
		_ = a.x.CloseWrite(c.body.Trailer())
		return
	}
	var broken readError
	if errors.As(err, &broken) {
		c.mu.Lock()
		c.failed = broken.error
		c.mu.Unlock()
		// The application must not take what it has for the whole.
		a.limit.end()
	}
}

// replayable tells whether the content can be sent from its beginning.
func (c *content) replayable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kind != streamed || !c.started
}

// failure is what the client did wrong, nil for nothing.
func (c *content) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// total is how much came from the client, and how many messages of gRPC.
func (c *content) total() (bytes, messages int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received, c.messages.seen
}

// refuseContent answers a request whose content could not be read.
func (e *exchange) refuseContent(err error) {
	e.rec.fail(flagDownstream, err)
	var bad *message.ProtocolError
	if errors.As(err, &bad) && e.rec.Status == 0 {
		e.reply(reply{status: bad.Status, text: bad.Reason})
		return
	}
	e.x.Abort(err)
}
