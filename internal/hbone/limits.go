package hbone

import "time"

// Limits that protect this end from its peer. The peer is authenticated, but it
// may be a compromised pod; every one bounds memory, goroutines or time.
const (
	// maxStreamsDefault is how many streams a server lets one tunnel carry at once
	// (SETTINGS_MAX_CONCURRENT_STREAMS). RFC 9113 section 6.5.2 advises at least 100;
	// 1,000 lets a busy pod share few tunnels while a stream costs a few KiB.
	maxStreamsDefault = 1000

	// maxStreamsUnknown is how many streams a client opens before the peer's SETTINGS
	// told its limit (RFC 9113 section 6.5.2: "no smaller than 100").
	maxStreamsUnknown = 100

	// maxHeaderListServer and maxHeaderListClient bound the decoded header list in
	// octets as RFC 9113 section 6.5.2 counts them (32 more per field). Istio's
	// ztunnel accepts 64 KiB as a server and 16 KiB as a client.
	maxHeaderListServer = 64 << 10
	maxHeaderListClient = 16 << 10

	// maxHeaderBlockSlack is how many octets of HEADERS and CONTINUATION frames are
	// taken beyond the header list limit before the connection is ended: encoded
	// fields are rarely longer than decoded ones (CVE-2024-27316: CONTINUATION flood).
	maxHeaderBlockSlack = 16 << 10

	// maxHeaderFrames is the number of frames that one header block may span. 64 KiB
	// fit in 5 default-sized frames; empty CONTINUATION frames are of no use.
	maxHeaderFrames = 32

	// maxSentHeaders bounds the encoded header block that we send, in octets, so that
	// it fits in one HEADERS frame of the size that every peer must take (RFC 9113
	// section 4.2).
	maxSentHeaders = 16 << 10

	// maxAuthority bounds :authority in octets: a DNS name (253), a colon, a port.
	maxAuthority = 260

	// maxControlFrame bounds SETTINGS, GOAWAY and the like in octets. SETTINGS knows
	// seven parameters of 6 octets; GOAWAY carries free text.
	maxControlFrame = 16 << 10

	// maxControlQueue bounds the octets of answers (acks, resets) waiting for a peer
	// that asks but does not read (CVE-2019-9512, 9514, 9515).
	maxControlQueue = 256 << 10

	// controlBurst and controlPerSecond bound frames that cost us work and carry
	// nothing: PING, SETTINGS, PRIORITY, unknown types, empty DATA, WINDOW_UPDATE
	// beyond two for each DATA frame that we sent. x/net/http2 queues 10,000.
	controlBurst     = 10_000
	controlPerSecond = 1_000

	// resetBurst and resetPerSecond bound the requests that the peer cancels before
	// they were answered, or that it makes us reset or refuse (CVE-2023-44487 rapid
	// reset, CVE-2025-8671 MadeYouReset). Applications that give up while their
	// connection is being made stay far below.
	resetBurst     = 1_000
	resetPerSecond = 100

	// recentResets is the number of streams that we remember having reset, so that
	// what the peer sent before it knew is ignored in silence (RFC 9113 section 5.4.2).
	recentResets = 64

	// handshakeTimeout is the time to finish TLS and the exchange of SETTINGS. ztunnel
	// allows 10 s for TLS.
	handshakeTimeout = 10 * time.Second

	// lingerTimeout is the time given to a peer to read our GOAWAY before the
	// connection is closed: closing with unread data in the socket would send a TCP
	// reset that destroys it on the way.
	lingerTimeout = time.Second

	// farewellTime is how long what a peer, or an application, sent before it broke its
	// connection may take to arrive. It is there already, unless who wants it is slow.
	farewellTime = time.Second

	// drainNotice is the time a peer gets to answer the PING after a first GOAWAY,
	// before the second one names the last stream (RFC 9113 section 6.8).
	drainNotice = time.Second

	// keepAliveInterval is the silence after which the peer is asked for a sign of
	// life, and keepAliveTimeout the wait for it: a dead path is noticed after 30 to 50 s.
	keepAliveInterval = 20 * time.Second
	keepAliveTimeout  = 10 * time.Second
)

// Sizes of flow control and of buffers, in octets.
const (
	// maxFrame is our SETTINGS_MAX_FRAME_SIZE, a server's only towards clients that take
	// as much. DATA is handed on as it arrives, so
	// large frames cost no memory; a sender's frames stay within one large buffer.
	maxFrame = 1 << 20

	// defaultFrame and defaultWindow are what a peer has before it says otherwise
	// (RFC 9113 section 6.5.2).
	defaultFrame  = 16 << 10
	defaultWindow = 65535

	// tunnelWindow is what the peer may have in flight on the whole connection. Its
	// credit is given back on receipt, so it never limits what stalled streams leave
	// to the others; 16 MiB fill 1.3 Gbit/s at 100 ms.
	tunnelWindow = 16 << 20

	// maxUnsent bounds what the streams of one tunnel hold, read from their sockets and
	// waiting to be written: a peer that grants credit and stops reading would
	// otherwise pin a large buffer for each of its streams. Sixteen large buffers keep
	// the writer busy.
	maxUnsent = 4 << 20

	// maxStreamWindow is the largest receive window that a stream grows to, by factors of
	// windowGrowth, while its reader keeps up: 4 MiB fill 1.6 Gbit/s at 20 ms.
	maxStreamWindow = 4 << 20
	windowGrowth    = 4

	// windowGrowthTime is the time in which a whole window must have been delivered
	// for it to grow; slower streams gain nothing from more.
	windowGrowthTime = time.Second

	// budgetDefault is what the windows of one tunnel's streams may grow by together.
	budgetDefault = 32 << 20
)
