package trace

const (
	// maxAttempts bounds the attempts of a request that get spans of their own: more are
	// sent only to endpoints that do not answer.
	maxAttempts = 32
	// maxStateBytes bounds the tracestate that is told of; the specification asks for 512
	// to be carried on at least (Trace Context, 3.3.1.5), and longer ones go on untold.
	maxStateBytes = 512
	// hundredths is the whole that Sampling is a part of.
	hundredths = 10000
)
