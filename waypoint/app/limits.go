package app

import "time"

const (
	// issuerAttempts is how many endpoints of a service are tried for an issuer's keys.
	issuerAttempts = 3
	// windowBudgetBytes bounds what the receive windows of all tunnels may grow by
	// together: applications and clients that stop reading must not cost more.
	windowBudgetBytes = 64 << 20
	// headTimeout is how long the head of a request may take from its first byte on:
	// slow enough for any honest client, and no hold for one that trickles.
	headTimeout = 30 * time.Second
	// idleTimeout is how long a client's connection may wait for a request. Clients close
	// theirs long before; this is for those that are gone without a word.
	idleTimeout = time.Hour
	// stallTimeout is how long a client may take nothing of a response, or send nothing of
	// the content that it announced over HTTP/1.1: nobody honest is so slow, and streams
	// without end go on as long as anything moves.
	stallTimeout = 5 * time.Minute
	// leaseInterval is how often demand is told to the control plane, which thinks shares
	// over as often.
	leaseInterval = 250 * time.Millisecond
	// maxKeysShown bounds the keys of a rule that are shown at once.
	maxKeysShown = 10_000
	// passwordDir has a directory for each namespace with password files of Redis, which an
	// author of RateLimitPolicies there may name and have sent to an address of his: nothing
	// else may be read so.
	passwordDir = "/etc/redis"
	// dialAttempts is how many endpoints of a backend of rate limits are tried: one that
	// is just going away must not matter.
	dialAttempts = 3
	// silentTimeout is how long a connection may be silent in a drain that has never said
	// anything: a client that has just opened it sends its request at once.
	silentTimeout = 2 * time.Second
	// sniffBytes is read at first of a connection: most heads of requests fit.
	sniffBytes = 1 << 10
	// leaveTime is how long a waypoint that ends goes on as if it did not: the control
	// plane needs up to 100 ms to tell node proxies, and a busy machine several times
	// that. It is a quarter of the drain's deadline at most.
	leaveTime = 2 * time.Second
	// tapSession is how long live requests are kept for one who asks for them again and
	// again, after his last question, and tapAnswer how many he gets at once.
	tapSession, tapAnswer = 10 * time.Second, 1000
)
