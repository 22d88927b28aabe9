package api

import "time"

const (
	// maxBody is the size in bytes of the largest request: a path of 4096 bytes
	// and three names fit several times.
	maxBody = 32 << 10
	// headerTimeout and idleTimeout bound what a client may make us wait for.
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	// shutdownTimeout bounds how long running requests may go on when the agent
	// ends. Those who wait for a proxy's ack would wait longer for nothing.
	shutdownTimeout = 2 * time.Second
)
