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
	// reviewTTL is how long the answer about a token is believed without asking
	// again: a node asks for a burst of certificates when its pods start. It is
	// what a token of a deleted pod outlives it by; what such a caller can get
	// is little, as its pod is looked up apart.
	reviewTTL = 30 * time.Second
	// refusedReviewTTL is the same for a refused token. A token does not become
	// good by waiting, but who holds a bad one may ask often.
	refusedReviewTTL = 5 * time.Second
	// maxReviews bounds the answers that are kept: those of the tokens of ten
	// thousand nodes.
	maxReviews = 10_000
	// maxReviewsUnderWay bounds the questions to the API server at a time; it
	// answers one in about a millisecond.
	maxReviewsUnderWay = 16
	// maxTokenBytes bounds a token; those of service accounts have 1 to 2 KiB.
	maxTokenBytes = 16 << 10
	// authenticationTimeout bounds the check of one token.
	authenticationTimeout = 10 * time.Second
)
