package inbound

import "time"

const (
	// defaultConnectTimeout applies where Config says nothing: how long a client waits
	// for an application that does not answer its SYN.
	defaultConnectTimeout = 10 * time.Second
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
