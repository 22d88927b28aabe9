package app

import "time"

const (
	// windowBudgetBytes bounds what the receive windows of all tunnels may grow by
	// together: applications and clients that stop reading must not cost more.
	windowBudgetBytes = 64 << 20
	// headTimeout is how long the head of a request may take from its first byte on:
	// slow enough for any honest client, and no hold for one that trickles.
	headTimeout = 30 * time.Second
	// sniffBytes is read at first of a connection: most heads of requests fit.
	sniffBytes = 1 << 10
)
