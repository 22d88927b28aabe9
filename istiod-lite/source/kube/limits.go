package kube

import "time"

const (
	// retryFirst and retryMost bound the wait after a list or watch that failed;
	// it doubles from one to the other. The most is short beside client-go's own
	// 30 s: an API server that is back is heard of soon, and a control plane has
	// a dozen watches, not thousands.
	retryFirst = 200 * time.Millisecond
	retryMost  = 5 * time.Second

	// retryReset is how long a watch must have held for the wait to start small
	// again.
	retryReset = time.Minute

	// askTimeout bounds a question beside the watches.
	askTimeout = 10 * time.Second

	// problemAge is how long a kind must be out of reach before Status tells of
	// it: watches end and begin again in ordinary times.
	problemAge = 5 * time.Second

	// maxProblems bounds the problems that Status lists.
	maxProblems = 100

	// maxInterned bounds the strings of one kind that are kept once: some
	// megabytes.
	maxInterned = 65_536

	// maxTemplates bounds the owners of pods whose last pod is remembered.
	maxTemplates = 16_384
)
