package app

import "time"

const (
	// maxConnections bounds the connections of the control plane's port, as
	// xds bounds its streams: a node has one for xDS and one for the CA.
	maxConnections = 25_000

	// maxStreams bounds the calls of one connection; a node proxy has one
	// stream and asks for a few certificates at a time.
	maxStreams = 128

	// maxHeaderBytes bounds the headers of a call: a token and little else.
	maxHeaderBytes = 32 << 10

	// handshakeTimeout bounds TCP accept to the end of TLS and HTTP/2 preface.
	handshakeTimeout = 10 * time.Second

	// A connection without any frame for keepaliveTime is asked by a PING and
	// closed when that is unanswered for keepaliveTimeout; clients may PING no
	// more often than every minPingInterval (they do every 30 s).
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	minPingInterval  = 15 * time.Second

	// maxConnectionAge ends connections in order, with grace for their calls, so
	// that proxies authenticate again, for a token is checked at the start of a
	// stream only. gRPC spreads it by a tenth. A proxy that comes back is sent
	// what differs, which is nothing.
	maxConnectionAge      = 30 * time.Minute
	maxConnectionAgeGrace = 10 * time.Second

	// maxToldWarnings bounds the lines that one change writes about objects that
	// do not do all they say; a mesh may have one for each policy.
	maxToldWarnings = 20

	// initialWindowBytes is what a client may send of a request before it is
	// read; setting it turns gRPC's growing windows off.
	initialWindowBytes = 1 << 20
)
