package nodetoken

import "time"

const (
	// MaxTokenBytes bounds a token before it is parsed. Kubernetes's bound
	// tokens are about 1 KiB; gRPC's header list ends at 16 KiB.
	MaxTokenBytes = 8 << 10
	// Leeway is the difference of clocks tolerated for all times in a token.
	Leeway = time.Minute
	// MaxTTL is the longest lifetime minted and accepted: a token is bound to
	// a node's life, and a laptop's demo may run for days.
	MaxTTL = 365 * 24 * time.Hour
	// maxKeyBytes bounds a key file in PEM.
	maxKeyBytes = 16 << 10
)
