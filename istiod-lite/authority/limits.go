package authority

import "time"

const (
	// requestTimeout bounds one request to the API server.
	requestTimeout = 10 * time.Second
	// retryFirst and retryMost are the pauses between attempts to reach or
	// understand the Secrets: short for the first, as an API server that
	// restarts is back within seconds.
	retryFirst = 200 * time.Millisecond
	retryMost  = 15 * time.Second
)
