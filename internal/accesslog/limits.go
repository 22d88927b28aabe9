package accesslog

import "time"

const (
	// gatherTime is how long a line waits for others at most, so that a thousand lines
	// a second are a hundred writes.
	gatherTime = 10 * time.Millisecond
	// queueLines bounds lines that wait to be written, as in Istio's node proxy:
	// about 5 MiB when full, at some 500 bytes a line.
	queueLines = 10000
	// batchLines bounds lines of one write, so that a line waits for few others.
	batchLines = 64
	// keptBytes bounds what a line's buffer may keep for the next line; a long
	// error must not be remembered for ever.
	keptBytes = 4096
	// maxErrorBytes bounds the error and policy of a line, which may quote a peer.
	maxErrorBytes = 1024
)
