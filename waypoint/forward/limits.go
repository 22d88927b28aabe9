package forward

import "time"

const (
	// bufferBytes is what passes at once: two full TLS records, so that a body in
	// transit costs few system calls; held only while content passes.
	bufferBytes = 32 << 10
	// maxReplayBytes is how much of a request's content is kept to be sent again: most
	// calls of APIs fit. A longer one is sent once.
	maxReplayBytes = 64 << 10
	// connectAttempts is how many endpoints are tried for a connection of bytes.
	connectAttempts = 3
	// maxPeekedBytes of content are held for external authorizers at a time, over all
	// requests, with the copies that questions make: five contents of the largest size
	// that a provider may ask for over gRPC, or thousands of usual ones.
	maxPeekedBytes = 64 << 20
	// maxMessageBytes of an authorizer's page go into a grpc-message, where each may take
	// three: clients take 8 KiB of trailers.
	maxMessageBytes = 1 << 10
	// maxShadows bounds the mirrored requests under way at a waypoint: their backend
	// may be slow, and nobody waits for them.
	maxShadows = 256
	// shadowTimeout ends a mirrored request, Envoy's default for routes.
	shadowTimeout = 15 * time.Second
)

const (
	// helloTimeout is how long a client of TLS may take for its first message.
	helloTimeout = 10 * time.Second
	// maxRecordBytes of one record (RFC 8446, 5.1).
	maxRecordBytes = 1 << 14
	// maxHelloBytes of a ClientHello: with post-quantum keys they have 2 KiB, with large
	// tickets some more. Go's and BoringSSL's servers take 16 to 64 KiB.
	maxHelloBytes = 1 << 16
)
