package zds

import "time"

const (
	// sendTimeout bounds one send: how long a peer may leave its socket unread
	// with a full buffer. Istio's agent uses the same time.
	sendTimeout = 5 * time.Second
	// maxMessage is the size in bytes of the largest datagram. Istio's agent and
	// proxy both read into buffers of this size, a longer message is cut there.
	maxMessage = 1024
	// maxDescriptors bounds how many descriptors are taken from one datagram in
	// order to close them; one is the most that is allowed, the kernel drops what
	// does not fit and says so.
	maxDescriptors = 8
	// maxName is the length in bytes of a Kubernetes object name or namespace
	// (RFC 1123 subdomain); the service account likewise.
	maxName = 253
	// maxUID bounds a pod's uid. Kubernetes uses 36 bytes, static pods 32.
	maxUID = 128
	// maxAckError is how much of an error's text fits an ack with its framing.
	maxAckError = 960
	// maxPath is the longest path a unix socket can have (sun_path less its final
	// zero); longer ones go through /proc/self/fd.
	maxPath = 107
)
