package forward

import (
	"context"
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
	started bool // streamed: some of it is gone
	// sent is what has passed of streamed content, for as long as it is short: what
	// ended before all was there is sent again from its beginning.
	sent    []byte
	tooLong bool
	sending bool  // an attempt reads the body
	ended   bool  // all of it was read
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
		c.started, c.sending = true, true
		c.mu.Unlock()
		a.upload.Go(func() { c.stream(a) })
	}
	return nil
}

// stream passes the content as it comes, until its end or that of the attempt.
func (c *content) stream(a *attempt) {
	defer a.uploaded.Store(true)
	_, err := pump(&a.x, &replay{content: c}, nil)
	c.mu.Lock()
	c.sending = false
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

// replay reads streamed content from its beginning: what was sent already, then what
// comes. It counts what comes, and keeps it as long as it may be sent again.
type replay struct {
	*content
	at int
}

func (r *replay) Read(p []byte) (int, error) {
	c := r.content
	c.mu.Lock()
	if n := copy(p, c.sent[min(r.at, len(c.sent)):]); n > 0 {
		r.at += n
		c.mu.Unlock()
		return n, nil
	}
	if c.ended {
		c.mu.Unlock()
		return 0, io.EOF
	}
	c.mu.Unlock()
	n, err := c.body.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received += int64(n)
	c.messages.count(p[:n])
	c.ended = errors.Is(err, io.EOF)
	if c.tooLong = c.tooLong || len(c.sent)+n > maxReplayBytes; c.tooLong {
		c.sent = nil
	} else {
		c.sent = append(c.sent, p[:n]...)
		r.at = len(c.sent)
	}
	return n, err
}

// Trailer implements message.Body.
func (r *replay) Trailer() message.Header { return r.body.Trailer() }

// settle says that the content is not sent again.
func (c *content) settle() {
	if c.kind != streamed {
		return
	}
	c.mu.Lock()
	c.tooLong, c.sent = true, nil
	c.mu.Unlock()
}

// replayable tells whether the content can be sent from its beginning.
func (c *content) replayable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kind != streamed || !c.started || !c.sending && !c.tooLong && c.failed == nil
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

// takeInTime takes the content, and answers when ctx ends before it has come.
func (e *exchange) takeInTime(ctx context.Context) (late bool, err error) {
	answered := make(chan struct{})
	// Reading does not know the context; an answer ends it.
	stop := context.AfterFunc(ctx, func() {
		defer close(answered)
		if errors.Is(context.Cause(ctx), errRequestTimeout) {
			late = true
			e.reply(reply{status: 408, flag: flagSlow, text: "the request's content did not come in time", grpc: grpcDeadlineExceeded})
		}
	})
	err = e.body.take(e.r, e.x)
	if !stop() {
		<-answered
	}
	return late, err
}

// takeContent takes the content within the request's time, and answers where that is not
// to be.
func (e *exchange) takeContent(ctx context.Context) bool {
	var err error
	late := false
	if e.until.IsZero() || e.r.Length == 0 {
		err = e.body.take(e.r, e.x)
	} else {
		late, err = e.takeInTime(ctx)
	}
	switch {
	case late:
		e.rec.Err = errRequestTimeout
		return false
	case err != nil:
		e.refuseContent(err)
		return false
	}
	return true
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
