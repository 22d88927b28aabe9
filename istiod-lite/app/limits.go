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

	// writesPerSecond bounds what this process asks of the API server beside
	// watching; a second's worth more may come at once. At its first start in a
	// cluster of a thousand namespaces, the roots are everywhere after 10 s.
	writesPerSecond = 100
	// conditionsPerSecond bounds the requests about conditions, of which some
	// objects need two.
	conditionsPerSecond = 20
	// unlimited is client-go's value for no limit on requests a second.
	unlimited = -1

	// Publications keep a pause of this many windows between them, at most
	// maxPause. At 100 changes a second and 100 proxies, ten publications a second
	// cost a quarter of the CPU of forty, and nobody waits noticeably longer.
	pausePerWindow = 4
	maxPause       = 100 * time.Millisecond

	// maxToldWarnings bounds the lines that one change writes about objects that
	// do not do all they say; a mesh may have one for each policy.
	maxToldWarnings = 20

	// initialWindowBytes is what a client may send of a request before it is
	// read; setting it turns gRPC's growing windows off. A thousand proxies that
	// come back at once must not have a megabyte each buffered.
	initialWindowBytes = 64 << 10
)
