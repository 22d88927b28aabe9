package http2

import "time"

// What protects this end from its peer, which is authenticated but may be a
// compromised pod. Each bounds memory, goroutines or time.
const (
	// maxStreamsDefault is how many requests a client may have under way on a
	// connection (SETTINGS_MAX_CONCURRENT_STREAMS). RFC 9113 (6.5.2) advises at least
	// 100; 250 is what Go's server allows. Each may hold a window of 64 KiB and a head.
	maxStreamsDefault = 250

	// maxStreamsUnknown is how many requests a client sends before the server told its
	// limit (RFC 9113, 6.5.2: "no smaller than 100").
	maxStreamsUnknown = 100

	// maxHeadList bounds a head or a trailer section in octets as RFC 9113 (6.5.2)
	// counts them, 32 more per field: 64 KiB, as http1 and Istio's proxies.
	maxHeadList = 64 << 10

	// maxFields is the number of fields in a head or a trailer section; Envoy's default.
	maxFields = 100

	// maxHeadBlock bounds the octets of HEADERS and CONTINUATION frames; encoded
	// fields are rarely longer than decoded ones. Beyond, the connection ends
	// (CVE-2024-27316: CONTINUATION flood).
	maxHeadBlock = maxHeadList + 16<<10

	// maxHeadFrames is the number of frames that a head may span. 80 KiB fit in 5 of
	// the default size; empty CONTINUATION frames are of no use.
	maxHeadFrames = 32

	// maxSentHead bounds the fields of a head that we send, in octets as above: more
	// than a waypoint takes in, since filters add to it.
	maxSentHead = 2 * maxHeadList

	// maxMethod bounds the name of a method in octets, as in http1.
	maxMethod = 32

	// maxLengthDigits is the number of digits of a content-length: 18 fit in 63 bits.
	maxLengthDigits = 18

	// maxInterim is how many interim responses a client takes before the final one.
	// 103 may come more than once; nothing sends dozens.
	maxInterim = 16

	// maxSettings is the number of parameters in one SETTINGS. Nine are registered; a
	// new window size costs as much as there are streams.
	maxSettings = 32

	// maxControlQueue bounds the octets of answers (acknowledgements, resets) waiting
	// for a peer that asks and does not read (CVE-2019-9512, 9514, 9515).
	maxControlQueue = 256 << 10

	// controlBurst and controlPerSecond bound frames that cost work and carry nothing:
	// PING, SETTINGS, PRIORITY, unknown types, empty DATA, and WINDOW_UPDATE beyond two
	// for each DATA frame that we sent. x/net/http2 queues 10,000.
	controlBurst     = 10_000
	controlPerSecond = 1_000

	// resetBurst and resetPerSecond bound the requests that the client cancels soon
	// after it sent them, or that it makes us reset or refuse (CVE-2023-44487 rapid
	// reset, CVE-2025-8671 MadeYouReset). Each request that ends in order allows one
	// more. A request counts as running until its handler has returned, so that no
	// flood makes more handlers run than there may be requests.
	resetBurst     = 1_000
	resetPerSecond = 100

	// resetSoon is the age up to which a cancelled request counts. Deadlines that
	// expire under overload are longer, and maxStreamsDefault requests that live for
	// longer are no flood.
	resetSoon = 100 * time.Millisecond

	// recentResets is the number of streams that we remember having reset, so that
	// what the peer sent before it knew is ignored in silence (RFC 9113, 5.4.2).
	recentResets = 64

	// discardTime is how long the rest of a request may still come, and is dropped, after
	// its response was complete: as long as nginx waits for it (lingering_timeout), enough
	// for clients to see the response first. Then the stream is reset (RFC 9113, 8.1).
	discardTime = 5 * time.Second

	// maxDiscard is how many octets of one such rest the client gets credit for, besides
	// the window that it has: as many as http1 reads. Clients that look at a response only
	// when all is sent so reach the end of most requests. Beyond, they wait for the reset.
	maxDiscard = 256 << 10

	// discardShare is which part of a connection's streams may be such ones: a fourth,
	// so that they leave room for requests. Beyond, the oldest is reset.
	discardShare = 4

	// settingsTimeout is the time in which a client waits for the server's SETTINGS
	// where it needs them; a server's own is ServerConfig.HeadTimeout.
	settingsTimeout = 10 * time.Second

	// lingerTimeout is the time given to a peer to read our GOAWAY before the
	// connection is closed: closing a socket with unread data in it would send a TCP
	// reset that destroys it on the way.
	lingerTimeout = time.Second

	// drainNotice is the time a client gets to answer the PING after a first GOAWAY,
	// before the second one names the last stream (RFC 9113, 6.8).
	drainNotice = time.Second
)

// Sizes of flow control and of buffers, in octets.
const (
	// defaultFrame and defaultWindow are what either end has before it says otherwise
	// (RFC 9113, 6.5.2). We never raise the frame: larger ones save nothing that can be
	// measured, since DATA is handed on as it arrives.
	defaultFrame  = 16 << 10
	defaultWindow = 65535

	// maxWindow bounds every window (RFC 9113, 6.9.1).
	maxWindow = 1<<31 - 1

	// connWindow is what the peer may have in flight on the whole connection. Its
	// credit is given back on receipt, so it never limits what stalled streams leave to
	// the others; 16 MiB fill 1.3 Gbit/s at 100 ms.
	connWindow = 16 << 20

	// maxStreamWindow is the largest receive window that a stream grows to, by factors
	// of windowGrowth, while its reader keeps up: 4 MiB fill 1.6 Gbit/s at 20 ms.
	maxStreamWindow = 4 << 20
	windowGrowth    = 4

	// windowGrowthTime is the time in which a whole window must have been read for it
	// to grow; slower streams gain nothing from more.
	windowGrowthTime = time.Second

	// budgetDefault is what the windows of one connection's streams may grow by together.
	budgetDefault = 32 << 20

	// maxGathered is how much waits to be written before senders have to wait, while
	// as much may be on its way into the socket.
	maxGathered = 128 << 10

	// enough is how much of one stream may be put off: a full frame.
	enough = defaultFrame

	// maxIdleWorkers is how many goroutines of a connection wait for requests, with some
	// 8 KiB of stack each: as many as clients commonly send at a time. idleWorker is for
	// how long at least; twice as long at most.
	maxIdleWorkers = 64
	idleWorker     = time.Second
)
