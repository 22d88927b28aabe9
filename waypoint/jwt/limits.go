package jwt

import "time"

const (
	// maxTokenBytes bounds one token: no server takes longer header fields by default.
	maxTokenBytes = 16 << 10
	// maxTokens bounds the tokens of one request, equal ones included. They are compared
	// as text; only one is verified.
	maxTokens = 8
	// maxRules bounds the rules of one resource (Istio's schema has 4096).
	maxRules = 4096
	// maxPlaces bounds the places, output fields and claims of one rule, each.
	maxPlaces = 64
	// maxNameBytes bounds names and prefixes in rules.
	maxNameBytes = 1024

	// maxClaims bounds the members and elements of one token's claims, and
	// maxClaimDepth how deep they nest. 16 KiB of token could hold 6,000.
	maxClaims     = 4096
	maxClaimDepth = 16

	// clockSkew is how far clocks may be apart (seconds; Envoy's default, and RFC 7519,
	// 4.1.4, "no more than a few minutes").
	clockSkew = 60

	// maxDocumentBytes bounds what an issuer's server may send.
	maxDocumentBytes = 1 << 20
	// maxKeys bounds a key set. A token that names no key is held to each of them, at
	// about 30 µs; large issuers have four.
	maxKeys = 64
	// minRSABits is the least that RFC 7518, 3.3, allows.
	minRSABits = 2048
	// maxRedirects of one fetch.
	maxRedirects = 3

	// defaultTimeout is that of one fetch in Istio's documentation; maxTimeout bounds
	// what a rule may set, for requests wait that long.
	defaultTimeout = 5 * time.Second
	maxTimeout     = time.Minute

	// defaultAge is how long keys count as fresh when the server does not say (Istio's
	// setting of Envoy), minAge and maxAge what it may say.
	defaultAge = 5 * time.Minute
	minAge     = time.Minute
	maxAge     = time.Hour
	// maxStale is how long keys count when their server cannot be reached: longer than a
	// night's outage, shorter than a stolen key should work.
	maxStale = 24 * time.Hour
	// renewInterval is the least time between two fetches that unknown keys ask for, so
	// that forged tokens cannot make us a nuisance to the issuer.
	renewInterval = 10 * time.Second
	// retryMin and retryMax are the delays after failed fetches.
	retryMin = time.Second
	retryMax = time.Minute

	// Verified tokens are remembered in shards, each with two generations of at most
	// so many tokens and bytes, counting tokenCost per byte of a token for its claims:
	// 16 MiB and 8,192 tokens in all.
	shards     = 8
	shardSize  = 512
	shardBytes = 1 << 20
	tokenCost  = 4
)
