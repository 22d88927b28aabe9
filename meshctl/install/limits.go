package install

import "time"

const (
	// pollInterval is how often the state of a rollout is read: a dozen requests, which
	// an API server answers in milliseconds.
	pollInterval = 500 * time.Millisecond
	// settle is how long a trouble has to stand before it is told: readiness probes fail
	// for a second or two while something starts.
	settle = 3 * time.Second
	// establishTimeout bounds how long the API server may take to serve a new kind. It
	// takes some 100 ms.
	establishTimeout = 30 * time.Second
	// maxAttempts and retryPause (which grows with each attempt) bound how often an API
	// server that is too busy is asked again: for ten seconds, beside what it takes itself.
	maxAttempts = 5
	retryPause  = time.Second
	// maxPaths is how many changed fields of an object are shown.
	maxPaths = 8
	// maxReasons is how many pods of a component are asked for their events, and how many
	// objects of others are named: the rest have the same trouble as a rule.
	maxReasons = 3
	// maxReason is how much of a pod's trouble is shown, in bytes. An image that cannot
	// be pulled comes with five lines of it.
	maxReason = 240
	// maxValue is how much of a field's value is shown, in bytes.
	maxValue = 60
	// eventsPerPod bounds how many events of a pod are read.
	eventsPerPod = 50
	// pageSize is how many objects are listed at once.
	pageSize = 500
)
