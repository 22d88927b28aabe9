package hbone

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/internal/relay"
)

// Request is what a CONNECT carries: the authority and the only other header
// fields that HBONE knows. Empty fields are not sent.
type Request struct {
	// Authority is "IP:port" or "hostname:port" of the target (RFC 9113 section 8.5).
	Authority string
	// Baggage describes the workload that asks (W3C Baggage).
	Baggage string
	// Forwarded names the original client (RFC 7239).
	Forwarded string
	// Traceparent is the W3C trace context.
	Traceparent string
	// ForwardedNetwork is the network that the request came from, in x-forwarded-network.
	ForwardedNetwork string
}

// Response is the answer to a CONNECT.
type Response struct {
	// Status is the HTTP status: 200 opens the stream, everything else refuses it.
	Status int
	// Baggage describes the workload that answered; empty when it was not sent.
	Baggage string
}

// Stream is one CONNECT stream, a full-duplex byte pipe with half-close. One
// goroutine may read while another writes; no two may read or write at once.
type Stream interface {
	// Read returns io.EOF after the peer's half-close, and a *StreamError when the
	// stream was reset or its tunnel broke.
	Read(p []byte) (int, error)
	// Write blocks while flow control holds it back.
	Write(p []byte) (int, error)
	// CloseWrite tells the peer that no more bytes follow.
	CloseWrite() error
	// Reset ends both halves at once; the peer sees a reset with code. Idempotent.
	Reset(code ErrCode)
	// Close releases the stream; it resets whatever half is not finished.
	Close() error
	// Join carries bytes, half-closes and resets between sock and the stream, both
	// ways, until both ends are finished, and closes both. Bytes from sock to the
	// stream count as Sent, the others as Received. It returns nil when both halves
	// ended in order, else the first cause; ending ctx resets both sides and
	// returns context.Cause(ctx). Nothing else may use sock or the stream meanwhile.
	Join(ctx context.Context, sock *net.TCPConn, c *relay.Counters) error
}

// Tunnel is the client's side of one connection to a peer, carrying many
// streams. It is safe for concurrent use.
type Tunnel interface {
	// Open sends a CONNECT and waits for its answer. It returns *StatusError for an
	// answer other than 200, ErrDraining or ErrTooManyStreams when another tunnel
	// should be tried, and a *TunnelError when the connection broke.
	Open(ctx context.Context, r Request) (Stream, Response, error)
	// Streams tells how many streams are open or being opened.
	Streams() int
	// Usable tells whether Open may still succeed: neither draining, broken, expired nor full.
	Usable() bool
	// ExpiresAt is the moment from which no new stream may be opened, because a
	// certificate of the connection is no longer valid then; zero means never.
	ExpiresAt() time.Time
	// Done is closed when the connection has ended; Err then tells why.
	Done() <-chan struct{}
	Err() error
	// Drain refuses new streams and closes the connection after the last one ended. It does not block.
	Drain()
	// Close breaks all streams and the connection.
	Close() error
}

// Handler answers the requests of a server. It runs on a goroutine of its own,
// must call exactly one of Accept and Refuse, and may use the accepted stream
// after it returned. ctx ends when the handler returns and when the stream can carry
// nothing any more: by a reset, by the end of its connection, unless both halves had
// ended in order before, and by the end of the server.
type Handler func(ctx context.Context, r *ServerRequest)

// Conn describes the connection that a request came on.
type Conn struct {
	// Local and Remote are the transport addresses; Remote tells the original source.
	Local, Remote netip.AddrPort
	// Value is whatever the server's owner attached to the connection, such as the
	// peer's identity. hbone does not look into it.
	Value any
}

// Responder answers one request; each carrier brings its own.
type Responder interface {
	// Accept answers 200 and opens the stream.
	Accept(Response) (Stream, error)
	// Refuse answers with status and ends the stream at once.
	Refuse(status int) error
}

// ServerRequest is one request as the server received it.
type ServerRequest struct {
	Request
	// Method is CONNECT unless the peer is wrong.
	Method string
	// Conn is the connection that it came on.
	Conn Conn
	Responder
}
