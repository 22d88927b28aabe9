package certs

import "time"

// Lifetimes. They can be changed per authority in [AuthorityConfig].
const (
	// DefaultRootTTL is the lifetime of a self-signed root: replacing a root
	// touches every proxy, so it outlives any one installation's hardware.
	DefaultRootTTL = 10 * 365 * 24 * time.Hour
	// DefaultIntermediateTTL is the lifetime of an intermediate.
	DefaultIntermediateTTL = 365 * 24 * time.Hour
	// DefaultLeafTTL is given to a request that asks for no lifetime, as
	// Istio's CA does.
	DefaultLeafTTL = 24 * time.Hour
	// DefaultMaxLeafTTL caps what a request may ask for: Istio's 90 days.
	DefaultMaxLeafTTL = 90 * 24 * time.Hour
	// MinLeafTTL is the shortest lifetime issued. Below a few seconds the
	// issuance itself takes a good part of the lifetime.
	MinLeafTTL = 2 * time.Second
	// Backdate is how far in the past a certificate's validity begins, so that
	// a node whose clock is behind accepts it at once. Istio uses 2 minutes.
	Backdate = 2 * time.Minute
)

// Sizes. All inputs beyond them are refused before they are parsed.
const (
	// MaxCSRBytes bounds a certificate signing request in PEM. One with an RSA
	// key of [MaxRSABits] and a SPIFFE ID of 2048 bytes needs about 6 KiB.
	MaxCSRBytes = 16 << 10
	// MaxChainBytes bounds the whole of an issued chain in PEM, root bundle
	// included: some hundred certificates, where a rollover needs two roots.
	MaxChainBytes = 256 << 10
	// MaxChainCertificates bounds the certificates in one PEM text.
	MaxChainCertificates = 64
	// MinRSABits and MaxRSABits bound RSA keys in requests. Below is weak
	// (NIST SP 800-57), above crypto/tls refuses the certificate in handshakes.
	MinRSABits, MaxRSABits = 2048, 8192
	// minRSAExponent is the least public exponent accepted (FIPS 186-5, A.1.1).
	minRSAExponent = 65537
	// maxStateBytes bounds a file of the authority's state when it is read.
	maxStateBytes = 64 << 10
	// serialBits is the randomness in a serial number: RFC 5280, 4.1.2.2 allows
	// 20 octets, of which the first bit must be zero.
	serialBits = 159
)

// renewalReserve: the last 1/renewalReserve of an intermediate's life is left
// for the operator to notice that it could not be renewed.
const renewalReserve = 3

// renewalRetry is the least time between failed attempts to renew the
// intermediate, since they happen while someone waits for a signature.
const renewalRetry = time.Minute
