package message

import (
	"context"
	"io"
)

// Body is the content of a message and what follows it. One goroutine may read.
type Body interface {
	// Read returns io.EOF at the end that the message's framing tells. Any other error
	// is a *ProtocolError when the peer framed it wrongly, a *ResetError when it gave
	// up, else the connection's: the content is then incomplete, and must not pass for
	// a whole one.
	Read(p []byte) (int, error)
	// Trailer returns the fields after the content. It is empty before io.EOF.
	Trailer() Header
}

// BufferedBody is a Body that knows what has come already. Both codecs' are.
type BufferedBody interface {
	Body
	// Buffered returns how many octets Read returns without waiting for the peer, and
	// whether nothing follows them but the trailers. It may tell too few, never too many.
	// The goroutine that reads may call it.
	Buffered() (n int, whole bool)
}

// NoBody is the content of messages that have none.
var NoBody Body = noBody{}

type noBody struct{}

func (noBody) Read([]byte) (int, error) { return 0, io.EOF }
func (noBody) Trailer() Header          { return nil }
func (noBody) Buffered() (int, bool)    { return 0, true }

// Stream is what an exchange becomes after CONNECT or an upgrade: bytes both ways.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite tells the peer that no more bytes follow.
	CloseWrite() error
}

// Handler answers one request of a server. It returns when it has done all it wants
// with the exchange; the codec then breaks off whatever is not finished, and reading
// the body fails from then on. ctx ends when the client is gone.
type Handler func(ctx context.Context, x Exchange)

// Exchange is one request and its response as a server sees it. One goroutine may
// read the body while another responds.
type Exchange interface {
	Request() *Request
	Body() Body
	// Inform sends an interim response (RFC 9110, 15.2), in HTTP/1.0 nothing. The first
	// read of the body does it with 100 by itself where the client waits for that.
	Inform(r *Response) error
	// Respond sends the head. With end no content follows, whatever r.Length says. It
	// may be put off until Flush, Close or enough content.
	Respond(r *Response, end bool) error
	// Write sends content. More or less of it than the head's Length is an error, and
	// Close then breaks the response off.
	Write(p []byte) (int, error)
	// Flush sends what was put off.
	Flush() error
	// Close ends the response in order. Trailers are left out where the version or the
	// framing has no place for them. Reading a body of which the end has not come fails
	// from then on, at once or soon.
	Close(trailer Header) error
	// Abort breaks the response off, so that the client sees it is not whole. reason is
	// for logs; its code, if it is a *ResetError, is sent where there is a place for it.
	Abort(reason error)
	// Switch answers CONNECT or an upgrade with the head r and returns what follows. The
	// exchange is the Stream from then on, but the handler still must not return before
	// it is done with it.
	Switch(r *Response) (Stream, error)
}

// Client is one connection to a server, on which requests are sent. It is safe for
// concurrent use.
type Client interface {
	// Open sends the head of a request; with end no content follows. It returns an
	// error for which Unsent is true when the request reached nobody.
	Open(ctx context.Context, r *Request, end bool) (ClientExchange, error)
	// Usable reports whether Open may succeed: there is room for another request, and
	// the server has not said that it will close.
	Usable() bool
	// Active is how many requests are under way.
	Active() int
	// Done is closed when the connection has ended.
	Done() <-chan struct{}
	// Close ends it, and what is under way on it.
	Close() error
}

// ClientExchange is one request and its response as a client sees it. One goroutine
// may write while another reads.
type ClientExchange interface {
	// Write sends content.
	Write(p []byte) (int, error)
	Flush() error
	// CloseWrite ends the content.
	CloseWrite(trailer Header) error
	// Response returns the next head: interim ones as they come, then the final one. It
	// sends first what was put off. After 101, or a 2xx to CONNECT, Stream has what
	// follows. An error for which Unsent is true says that the server did not look at
	// the request (RFC 9113, 8.7).
	Response(ctx context.Context) (*Response, error)
	// Body is that of the final response.
	Body() Body
	Stream() (Stream, error)
	// Close releases the exchange; what is not finished is broken off, which ends the
	// connection in HTTP/1.1.
	Close() error
}
