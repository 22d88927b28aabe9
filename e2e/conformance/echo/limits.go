package main

import "time"

const (
	// headTimeout bounds how long a client of the server may take for a request's
	// head; no test is slow on purpose.
	headTimeout = 30 * time.Second
	// drainTimeout bounds how long a server that was told to end waits for requests.
	drainTimeout = 5 * time.Second
	// tcpFirstBytes is how much the server of bytes reads before it answers.
	tcpFirstBytes = 4096
	// maxResponse bounds, in bytes, what the client reads of one response: the
	// server's fields are some hundred bytes.
	maxResponse = 1 << 20
	// maxCount bounds how many requests one client sends; the suite sends 500.
	maxCount = 100_000
	// clientStreams is how many of a batch's requests are under way at once.
	clientStreams = 8
)
