package inpod

import "time"

const (
	// startTimeout bounds one start of a proxy. The agent waits 5 s for an ack
	// (interop: ZDS), so the answer must leave before.
	startTimeout = 4 * time.Second
	// retryInterval is the pause before a failed start is tried again, as in
	// Istio's proxy.
	retryInterval = 5 * time.Second
	// portWait is the pause between attempts to start while an older proxy of the
	// same namespace drains and may still hold the ports.
	portWait = 50 * time.Millisecond
	// reconnectMin and reconnectMax bound the pause between connection attempts.
	// The agent is a local socket away: short, so that a restarted agent's pods
	// come back at once, and not so short that a missing one costs anything.
	reconnectMin = 50 * time.Millisecond
	reconnectMax = 5 * time.Second
	// defaultDrainDeadline is how long a proxy's connections may go on after its
	// pod left, when Config says nothing: Kubernetes's default grace period.
	defaultDrainDeadline = 30 * time.Second

	// foreignPortMin and foreignPortMax are the ports of connections that come from a
	// client's address: above those of the proxy itself and of most servers, below
	// what systems choose for their own connections (Linux 32768 to 60999, others from
	// 49152). foreignPortTries is how many of them are tried before the kernel
	// chooses: with half of them taken, by connections of one client to one port, that
	// is one time in 256.
	foreignPortMin, foreignPortMax = 16384, 32767
	foreignPortTries               = 8

	// keepAliveIdle, keepAliveInterval and keepAliveCount find dead peers of
	// connections in pods in about 5 minutes, Istio's times for xDS and HBONE.
	keepAliveIdle     = 180 * time.Second
	keepAliveInterval = 60 * time.Second
	keepAliveCount    = 3
)
