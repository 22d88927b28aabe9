package status

import "time"

const (
	// passInterval is the least time between two comparisons of all objects with
	// their status; conditions are for people.
	passInterval = time.Second
	// workers bounds the writes under way.
	workers = 2
	// writeTimeout bounds one write.
	writeTimeout = 10 * time.Second
	// retryFirst and retryMost are the pauses before a failed write is tried again.
	retryFirst = 200 * time.Millisecond
	retryMost  = 2 * time.Minute
	// holdFirst is how long a written condition is left alone: the watch tells of
	// it within that time. When it does not stand there afterwards, somebody
	// else has changed it; then it is written again and left alone for twice as
	// long, up to holdMost.
	holdFirst = 3 * time.Second
	holdMost  = 10 * time.Minute
	// maxMessageBytes bounds a condition's message (Kubernetes API, Condition).
	maxMessageBytes = 32 << 10
)
