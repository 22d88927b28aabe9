package h3

import "time"

const (
	// maxRequestFieldsBytes bounds the field section of a request, encoded and
	// decoded (RFC 9114 section 4.2.2): ztunnel accepts 64 KiB as a server.
	maxRequestFieldsBytes = 64 << 10
	// maxResponseFieldsBytes bounds the field section of an answer: ztunnel accepts 16 KiB as a client.
	maxResponseFieldsBytes = 16 << 10
	// maxInterimResponses bounds the 1xx answers before the final one; none is
	// expected, and net/http allows five.
	maxInterimResponses = 5
	// maxControlBytes bounds what a peer may send on its control stream in the life
	// of a connection. SETTINGS and GOAWAY take some dozen bytes; the rest is
	// greasing (RFC 9114 section 7.2.8).
	maxControlBytes = 1 << 20
	// maxSettingsBytes bounds a SETTINGS frame: a few hundred settings.
	maxSettingsBytes = 4 << 10
	// maxIgnoredBytes bounds the bytes of a stream that carry nothing: frames of
	// unknown type and the headers of empty DATA frames.
	maxIgnoredBytes = 1 << 20

	// dataFrameBytes is the largest DATA frame that we write, and the size of the
	// copy buffers. A QUIC packet carries about 1400 bytes, so frames beyond some
	// kilobytes save nothing on the wire; 64 KiB lets one read of the socket take
	// what the kernel gathered meanwhile.
	dataFrameBytes = 64 << 10

	// DefaultMaxStreams is how many streams a client may have open on one
	// connection. The client opens another connection beyond that.
	DefaultMaxStreams = 256
	// maxUniStreams is how many unidirectional streams a peer may have open: control,
	// QPACK encoder and decoder, and a few of reserved types (RFC 9114 section 6.2).
	maxUniStreams = 8
	// DefaultMaxConns is how many connections one server carries, those in
	// handshake included.
	DefaultMaxConns = 4096
	// retryHandshakes is how many handshakes may be unfinished before a new client
	// must first prove its address (RFC 9000 section 8.1.2), which costs it one round trip.
	retryHandshakes = 64

	// initialStreamWindowBytes and maxStreamWindowBytes bound what a peer may send on
	// one stream ahead of the application: the first from the start, the second when
	// the application keeps up. 2 MiB carry 800 Mbit/s over 20 ms.
	initialStreamWindowBytes = 256 << 10
	maxStreamWindowBytes     = 2 << 20
	// connWindowBytes bounds the same for one connection. QUIC returns this credit
	// only as the application reads, so stalled streams hold it; the window is
	// therefore as large as all streams that never got going, and does not grow.
	connWindowBytes = DefaultMaxStreams * initialStreamWindowBytes

	// handshakeTimeout bounds the QUIC and TLS handshake as a whole.
	handshakeTimeout = 10 * time.Second
	// requestTimeout bounds the time from the first byte of a request to the end of its fields.
	requestTimeout = 10 * time.Second
	// idleTimeout ends a connection that heard nothing from its peer (RFC 9000 section 10.1).
	idleTimeout = 30 * time.Second
	// keepAlivePeriod is how often the client sends a PING on a silent connection:
	// thrice per idle timeout, so that two may get lost.
	keepAlivePeriod = 10 * time.Second
	// controlWriteTimeout bounds a write on the control stream, which waits only for
	// a peer that grants no flow control credit there.
	controlWriteTimeout = 5 * time.Second

	// goodbyeTimeout is how long a drained connection without streams waits for the
	// other end, which may still be handing over what it received: CONNECTION_CLOSE
	// discards that (RFC 9000 section 10.2). Our own ends need a round trip, or as
	// long as their application takes to read; a foreign one may never say goodbye.
	goodbyeTimeout = 10 * time.Second
)
