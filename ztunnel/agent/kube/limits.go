package kube

import "time"

const (
	// Settle is how long a pod that leaves stays in the mesh after its annotation
	// went: the control plane tells all proxies within some tens of milliseconds,
	// and a slow one has this long.
	Settle = 2 * time.Second
	// resync is the time between two looks at all pods, for what no event tells: a
	// namespace that was made anew, a removal that was missed.
	resync = 30 * time.Second
	// workers look after pods at once; each may wait for a proxy.
	workers = 8
	// joinWait is how long a worker waits for a proxy's ack before it goes on with
	// other pods. The pod's enrolment goes on without it.
	joinWait = 500 * time.Millisecond
	// retryMin and retryMax bound the pause before a pod is looked at again.
	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
	// scanAge is for how long a look at all processes serves other pods as well.
	scanAge = 200 * time.Millisecond
	// rewritePause is the least time between two writings of the same annotation
	// that somebody takes away.
	rewritePause = time.Second
	// callTimeout bounds one call of the API server.
	callTimeout = 10 * time.Second
	// releaseDrain is how long captured connections may go on when the agent is
	// uninstalled. The DaemonSet's grace period has to be longer than all of that.
	releaseDrain = 10 * time.Second
	// releaseWorkers release pods at once when the agent is uninstalled.
	releaseWorkers = 32
	// QPS and Burst of the calls to the API server: the annotations of a node full
	// of pods within some seconds.
	qps, burst = 50, 100
)
