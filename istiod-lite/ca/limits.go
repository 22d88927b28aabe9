package ca

import "time"

const (
	// DefaultPlacementWait is how long a request waits for the pod it is for to
	// become known: a ztunnel may hear of a pod from its node's agent some
	// hundred milliseconds before the control plane has from its source.
	DefaultPlacementWait = 2 * time.Second
	// placementPoll is how often the placement is looked up meanwhile.
	placementPoll = 50 * time.Millisecond
	// maxPlacementWaiters bounds the requests that wait; more are answered at
	// once. A node's manager has eight requests under way.
	maxPlacementWaiters = 1024
	// maxIdentityBytes bounds a SPIFFE ID (SPIFFE-ID standard, 2.3).
	maxIdentityBytes = 2048
	// authenticationTimeout bounds the check of one token.
	authenticationTimeout = 10 * time.Second
)
