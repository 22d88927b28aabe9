package waypoint

import "time"

const (
	// pollInterval is how often a Gateway is looked at while it is waited for.
	pollInterval = 250 * time.Millisecond
	// DefaultTimeout is how long commands wait, as istioctl's do.
	DefaultTimeout = 90 * time.Second
)
