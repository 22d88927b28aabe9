package relay

import "sync/atomic"

// Counters holds the bytes carried by one connection, readable while it runs.
// The zero value is ready; it must not be copied after first use. It is safe
// for concurrent use.
type Counters struct {
	// Sent counts bytes from the first (local) side to the second (remote) one.
	Sent atomic.Uint64
	// Received counts bytes from the second side to the first.
	Received atomic.Uint64
}
