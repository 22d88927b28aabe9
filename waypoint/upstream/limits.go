package upstream

import "time"

const (
	// maxEndpoints bounds the endpoints of one backend, so that Maglev's table holds
	// indexes of two bytes. Kubernetes is tested with 5,000 pods behind a service.
	maxEndpoints = 1 << 16
	// ringPoints is how many points a target has on a ring: their shares differ by about
	// 1/sqrt(128), 9 %. maxRing bounds the points of all, 640 KiB per tier.
	ringPoints, maxRing = 128, 1 << 16
	// maglevSize is the number of entries of a Maglev table: a prime, so that every
	// step visits all of them, and Envoy's figure (the paper, section 3.4, takes the
	// same for "small" tables). Hosts differ by at most n/maglevSize of their share.
	maglevSize = 65537
	// maxTable bounds the places of a Maglev table, Envoy's figure: 10 MB per tier.
	maxTable = 5_000_011
	// stride is the largest weight of the weighted round robin; others are scaled to
	// it, so that one is exact to 1/65535.
	stride = 1<<16 - 1
	// redraws is how often the balancer is asked again for a target that was not
	// tried yet and is warm, before all are looked at in turn. With one of eight
	// avoided, four draws fail once in 4,096.
	redraws = 4
	// maxRequestsWaiting bounds those that wait for a connection to one target where
	// the circuit sets no limit, so that a dead endpoint cannot hold every goroutine.
	maxRequestsWaiting = 1 << 14
	// staleTries is how many pooled connections may turn out to be closed before a
	// request gets one that is new.
	staleTries = 2
	// fullTries is how many HTTP/2 connections may turn out to be full before a request
	// is refused: a server tells how many streams it takes only after the first ones
	// came, so a hundred that waited for one connection come to know together. Each
	// time all but those that found room move on to the next connection.
	fullTries = 32
	// maxHealthBody bounds what is read of the answer to a health check, in bytes: a
	// gRPC HealthCheckResponse has two.
	maxHealthBody = 4 << 10
	// maxSessionToken bounds a session token that a client sends back, in bytes: two
	// numbers of 64 bits in hex and base 36 and separators.
	maxSessionToken = 64
	// maxRetryAfter bounds the delay that a server may ask for; who asks for more is
	// not asked again within this request.
	maxRetryAfter = 10 * time.Second
)
