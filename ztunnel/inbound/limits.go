package inbound

import "time"

const (
	// maxHandshakes bounds TLS handshakes in progress of one pod: each costs about
	// a millisecond of CPU and 30 KiB, and anyone who reaches the pod may start one.
	maxHandshakes = 256
	// maxPerSource is how many of the connections in and before the handshake may
	// come from one address, so that one silent client leaves room for others. A
	// proxy dials a pod once at a time and for each few hundred streams.
	maxPerSource = 64
	// maxWaiting bounds the connections in and before the handshake, of a few KiB and
	// one descriptor each: thousands of clients may come back at once.
	maxWaiting = 4096
	// defaultHandshakeTimeout and defaultConnectTimeout apply where Config says
	// nothing. The first leaves room for a few lost packets; the second is how long
	// a client waits for an application that does not answer its SYN.
	defaultHandshakeTimeout = 10 * time.Second
	defaultConnectTimeout   = 10 * time.Second
	// joinSettle is how long after one node has heard that a pod joined or left the
	// mesh another one may not have heard it: the control plane sends to all nodes
	// within some tens of milliseconds, and a node applies it in as many.
	joinSettle = time.Second
	// lastHandshakes is how long a drain waits for handshakes that were under way.
	lastHandshakes = 500 * time.Millisecond
	// maxAuthorityBytes bounds what is quoted of a peer's authority: the longest
	// IP:port has 47 bytes, a DNS name with port 259.
	maxAuthorityBytes = 260
)
