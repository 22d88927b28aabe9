package handshake

import "time"

const (
	// maxInProgress bounds the handshakes in progress at one Gate: each costs about a
	// millisecond of CPU and 30 KiB, and anyone who reaches the port may start one.
	maxInProgress = 256
	// maxPerSource is how many of the connections in and before the handshake may
	// come from one address, so that one silent client leaves room for others. A
	// proxy dials a peer once at a time and for each few hundred streams.
	maxPerSource = 64
	// maxWaiting bounds the connections in and before the handshake, of a few KiB and
	// one descriptor each: thousands of clients may come back at once.
	maxWaiting = 4096
	// defaultTimeout applies where a Gate says nothing: room for a few lost packets.
	defaultTimeout = 10 * time.Second
)
