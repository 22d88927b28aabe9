package conformance

import "time"

// Bounds of what a run waits for. Beside each stands what it takes on two cores
// when nothing else runs.
const (
	// UpWithin: 25 s.
	UpWithin = 5 * time.Minute
	// InstallWithin: 30 s.
	InstallWithin = 5 * time.Minute
	// DownWithin: 5 s.
	DownWithin = 2 * time.Minute
	// WaypointWithin bounds the wait for the waypoint to be programmed: 3 s.
	WaypointWithin = 2 * time.Minute
	// GoneWithin bounds how long the namespaces of an earlier run may take to go: 10 s.
	GoneWithin = 2 * time.Minute
	// PollEvery is how often states are looked at.
	PollEvery = 200 * time.Millisecond
)
