package main

import "time"

const (
	// writers bounds the writes to the API under way while the mesh is made.
	writers = 24

	// churnWriters bounds them during churn. More would hide an API that is too
	// slow for the rate behind a queue.
	churnWriters = 64

	// restingAge is how long a pod must have been there before it is replaced,
	// so that its coming and its going are two changes to every proxy.
	restingAge = 5 * time.Second

	// changeTimeout is when a change counts as lost.
	changeTimeout = 30 * time.Second

	// phaseTimeout bounds a wait of the benchmark.
	phaseTimeout = 3 * time.Minute

	// pollInterval is how often such a wait looks.
	pollInterval = 5 * time.Millisecond

	// signers is how many proxies ask for certificates at once.
	signers = 8
)
