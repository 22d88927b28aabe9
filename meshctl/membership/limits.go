package membership

import "time"

const (
	// pollInterval is how often the pods are read while waiting.
	pollInterval = 300 * time.Millisecond
	// pageSize is how many pods are listed at once.
	pageSize = 500
)
