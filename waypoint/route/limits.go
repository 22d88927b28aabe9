package route

import "time"

const (
	// maxTrustedProxies bounds how far back x-forwarded-for is believed: chains of proxies
	// are shorter.
	maxTrustedProxies = 64
	// maxMatches of one table. A Gateway API route has at most 128, so that this is
	// what 780 full ones hold; with a rule for each they take some 60 MB.
	maxMatches = 100_000

	// maxConditions of one match on fields, and on parameters. The Gateway API allows
	// 16 of each.
	maxConditions = 64

	// maxPathBytes of a path that a match names. The Gateway API allows 1,024, and
	// twice that for the service and the method of gRPC.
	maxPathBytes = 4096

	// maxRegexBytes of a regular expression: the longest value of a match that the
	// Gateway API allows. RE2 takes time linear in the length of what it judges, times
	// the size of the expression.
	maxRegexBytes = 4096

	// fewMatches of one path are looked at one after the other. Finding them by the
	// value of a field takes 15 ns more than looking at one, and less than at two.
	fewMatches = 1

	// joinedBytes is how much of a header whose field is repeated, or of a parameter
	// with escapes, is put together without an allocation: most of them are short.
	joinedBytes = 256

	// maxRetries of one request, whatever a route says.
	maxRetries = 100

	// maxDirectBytes of a response that a route itself gives: VirtualServices allow 1 MB.
	maxDirectBytes = 1 << 20

	// maxDelay of an injected fault: what is held up holds a connection of its client.
	maxDelay = 10 * time.Minute

	// maxGRPCStatus is the last of gRPC's (UNAUTHENTICATED).
	maxGRPCStatus = 16
)
