package xdsclient

import "time"

const (
	// maxMessageBytes bounds one response. It is the bound of Istio's proxies,
	// so whatever an Istio control plane sends fits.
	maxMessageBytes = 200 << 20

	// maxNameBytes bounds a resource name and an alias. Kubernetes bounds a
	// namespace to 63 and a name to 253 bytes; the rest of a workload's UID is
	// short.
	maxNameBytes = 1024

	// maxNackBytes bounds the message of a NACK. gRPC servers commonly refuse
	// more than a few kilobytes of header or log line; the operator needs the
	// first failures, not all of ten thousand.
	maxNackBytes = 4 << 10

	// maxTokenBytes bounds the bearer token file. Projected service account
	// tokens are about 1 KiB; gRPC servers take 16 KiB of headers by default.
	maxTokenBytes = 12 << 10

	// defaultMinBackoff and defaultMaxBackoff space the attempts to open the
	// stream, as Istio's proxies do: a restarted control plane is found again
	// within milliseconds, an absent one is asked four times a minute.
	defaultMinBackoff = 10 * time.Millisecond
	defaultMaxBackoff = 15 * time.Second

	// stableSession is how long a stream must have served before the back-off
	// starts over. Without it a server which answers and hangs up would be
	// dialled a hundred times a second.
	stableSession = time.Second

	// connectTimeout bounds TCP and TLS of one attempt.
	connectTimeout = 5 * time.Second

	// There is no bound on the wait for the first response: a control plane
	// without a first state lets its clients wait. Keepalive finds a dead one:
	// keepaliveTime without any frame sends a PING, keepaliveTimeout without
	// its answer ends the connection.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second

	// TCP keepalive, for the case that the HTTP/2 level is stuck behind a full
	// send buffer.
	tcpKeepaliveIdle     = 300 * time.Second
	tcpKeepaliveInterval = 75 * time.Second
	tcpKeepaliveCount    = 9
)
