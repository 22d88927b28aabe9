package listener

import "time"

const (
	// acceptPause is the wait after a failure to accept, which the end of other
	// connections mends.
	acceptPause = 50 * time.Millisecond
	// lastHandshakes is how long a drain waits for handshakes that were under way.
	lastHandshakes = 500 * time.Millisecond
)
