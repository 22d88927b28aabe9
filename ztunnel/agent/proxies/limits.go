package proxies

import "time"

const (
	// ackTimeout bounds the wait for a proxy's hello and for each of its acks, as
	// in Istio's agent. A proxy that does not answer in time is cut off and may
	// connect again.
	ackTimeout = 5 * time.Second
	// acceptInterval is the pause between two accepted connections: at most five a
	// second, so that a proxy that fails at once cannot keep the agent busy.
	acceptInterval = 200 * time.Millisecond
	// maxConnections bounds how many proxies are connected at once. One is usual,
	// two during an upgrade.
	maxConnections = 8
)
