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
	// maxShadows bounds the mirrored requests under way at a waypoint: their backend
	// may be slow, and nobody waits for them.
	maxShadows = 256
	// shadowTimeout ends a mirrored request, Envoy's default for routes.
	shadowTimeout = 15 * time.Second
)
