package sockdiag

import "time"

const (
	// maxSockets bounds how many connections of one pod are taken from the kernel:
	// twice what a pod has with all its ports in use towards one destination. The
	// rest is not looked at, and the list says so.
	maxSockets = 131072
	// answerTimeout bounds the wait for the kernel, which answers at once.
	answerTimeout = 5 * time.Second
)
