package http1

import "time"

// What protects this end from its peer. Each bounds memory or time.
const (
	// maxHead bounds the head of a message in octets: 64 KiB, as Istio's proxies and
	// HTTP/2's default here. It is also the largest buffer.
	maxHead = 64 << 10

	// maxTarget bounds the request line in octets, so that 414 can be told from 431;
	// RFC 9112 (3) asks for at least 8,000.
	maxTarget = 32 << 10

	// maxFields is the number of fields in a head or a trailer section; Envoy's default.
	maxFields = 100

	// maxOptions is how many fields Connection may name: each is looked for among all.
	// Senders name one or two.
	maxOptions = 32

	// maxMethod bounds the name of a method in octets; the longest that is registered
	// has 16 (RFC 9110, 9.1).
	maxMethod = 32

	// maxChunkLine bounds a line with the size of a chunk and its extensions in octets,
	// and maxChunkExtensions all extensions of one content (CVE-2023-39326: extensions
	// are octets that no content-length counts). Few senders use them at all.
	maxChunkLine       = 256
	maxChunkExtensions = 4 << 10

	// maxChunkDigits is the number of hexadecimal digits of a chunk's size: 15 stay
	// within 60 bits.
	maxChunkDigits = 15

	// maxLengthDigits is the number of digits of a content-length: 18 fit in 63 bits.
	maxLengthDigits = 18

	// maxTrailer bounds a trailer section in octets.
	maxTrailer = 16 << 10

	// maxInterim is how many interim responses a client takes before the final one.
	// 103 may come more than once; nothing sends dozens.
	maxInterim = 16

	// maxDrain is how many octets of a content that the handler did not read are read
	// to keep the connection, or to let the client read the response (RFC 9112, 9.6). A
	// new connection costs about as much as reading 256 KiB. Who sends more waits, without
	// being read, for the end of drainTime.
	maxDrain = 256 << 10

	// drainTime is the time for that, and the time in which a client reads the last
	// response before the connection is closed.
	drainTime = time.Second

	// drainGrace is how long an idle connection is kept once the server drains, for a
	// request that is on its way: it is answered, and the client told to go. net/http's
	// and Envoy's clients keep connections that were idle for this long apart.
	drainGrace = 5 * time.Second

	// maxEmptyReads is how often a connection may return no octets and no error.
	maxEmptyReads = 100
)

// patience is how long an exchange lasts before anybody looks whether its context has
// ended or its client is still there, and a connection of a client is idle before
// anybody looks whether its server is: it makes these free for requests that are
// quicker. 100 to 200 ms late is early enough to stop work that nobody waits for.
const patience = 100 * time.Millisecond

// directRead is the size in octets from which content is read into the reader's own
// memory, past the buffer: below it a system call costs more than the copy.
const directRead = 4 << 10
