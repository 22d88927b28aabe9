package otlp

import "time"

const (
	// queueItems bounds what waits to be sent, and batchItems what is sent at once:
	// OpenTelemetry's own defaults for batches.
	queueItems, batchItems = 2048, 512
	// flushAfter is how long the first of a batch waits for others.
	flushAfter = time.Second
	// sendTimeout bounds one try, sendTries how many there are for a batch, and
	// firstPause the wait after the first, which doubles.
	sendTimeout = 5 * time.Second
	sendTries   = 3
	firstPause  = 200 * time.Millisecond
	// closeTimeout bounds sending what is queued at the end: a waypoint that drains has
	// more to do.
	closeTimeout = 3 * time.Second
	// maxAnswerBytes bounds what a collector may answer.
	maxAnswerBytes = 64 << 10
)
