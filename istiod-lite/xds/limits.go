package xds

import "time"

const (
	// MaxRequestBytes bounds a request for the gRPC server's MaxRecvMsgSize. A
	// reconnecting proxy lists the versions that it holds: about 100 bytes for
	// each of 500,000 resources.
	MaxRequestBytes = 64 << 20

	// maxResponseBytes bounds one response. Istio's proxies take 200 MiB. What
	// is beyond goes into a response that follows the acknowledgement.
	maxResponseBytes = 128 << 20

	// maxSubscriptions bounds the keys that one client asks for on demand.
	maxSubscriptions = 100_000

	// maxKnown bounds the versions that a client may claim to hold.
	maxKnown = 1_000_000

	// maxNameBytes bounds a key; see internal/xdsclient.
	maxNameBytes = 1024

	// maxErrorBytes bounds what is kept and logged of a NACK's message.
	maxErrorBytes = 4 << 10

	// defaultMaxClients bounds the streams of one server; a mesh of 5,000 nodes
	// needs as many.
	defaultMaxClients = 10_000

	// maxStarting bounds the streams whose first requests are read at a time: a
	// proxy that comes again lists its versions, some 4 MiB for 10,000 resources
	// once decoded, and after a restart all proxies come at once.
	maxStarting = 4

	// maxTurn bounds how long one of them may take before the next one begins,
	// so that proxies which ask for nothing hold nobody up for long.
	maxTurn = 250 * time.Millisecond

	// defaultSendTimeout is how long a client may take to take and acknowledge a
	// response. A whole mesh of 100 MiB passes in 60 s at 14 Mbit/s.
	defaultSendTimeout = 60 * time.Second
)
