package rootcert

import "time"

const (
	// workers bounds the writes under way.
	workers = 4
	// retryFirst and retryMost are the pauses before a failed write is tried
	// again, for each namespace apart.
	retryFirst = 100 * time.Millisecond
	retryMost  = time.Minute
	// writeTimeout bounds one write.
	writeTimeout = 10 * time.Second
)
