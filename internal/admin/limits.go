package admin

import "time"

const (
	// headerTimeout bounds reading one request's header: an operator's curl needs
	// milliseconds, and a stuck client must not hold a goroutine.
	headerTimeout = 5 * time.Second
	// idleTimeout closes kept-alive connections: Prometheus scrapes every 15-60 s,
	// so one of its connections survives two scrapes.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes is ample for curl and Prometheus; net/http's default is 1 MiB.
	maxHeaderBytes = 16 << 10
	// shutdownTimeout is how long Run waits for requests in flight once its context
	// ended; a 30 s CPU profile does not hold back the process's end.
	shutdownTimeout = time.Second
)
