package rotation

import "time"

const (
	// DefaultConcurrency is how many requests are under way at once: issuing
	// takes the authority well under a millisecond, so the round trip is what
	// they share.
	DefaultConcurrency = 8
	// DefaultRequestTimeout bounds one request to the signer.
	DefaultRequestTimeout = 10 * time.Second

	// Delays after failures while there is no valid certificate: a workload
	// waits, and most failures are races of a pod's first moments (the
	// authority has not heard of it yet).
	firstRetryMin, firstRetryMax = 100 * time.Millisecond, 15 * time.Second
	// Delays after failures to renew: half of the life is left.
	renewRetryMin, renewRetryMax = time.Second, 5 * time.Minute

	// jitterFraction is the part of a certificate's life by which the time of
	// renewal scatters around its half: nodes that started together part.
	jitterFraction = 0.05
	// minRenewDelay keeps a signer that issues certificates of next to no life
	// from being asked in a loop.
	minRenewDelay = 100 * time.Millisecond
	// wakeInterval is how often a waiting identity looks at the wall clock:
	// timers follow the monotonic clock, which stops while a machine sleeps and
	// does not see the clock being set.
	wakeInterval = time.Minute
)
