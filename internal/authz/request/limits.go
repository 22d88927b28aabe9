package request

// Limits of one policy, far beyond what people write. One that exceeds them is in
// force in its strictest sense: without it, its services would have less protection
// than its author wrote.
const (
	// maxRules bounds rules of one policy, and sources, operations and conditions of
	// a rule, each on its own (Istio's schema has 512 rules).
	maxRules = 4096
	// maxClauses bounds all sources, operations and conditions of one policy together.
	maxClauses = 65536
	// maxValues bounds all values of all conditions of one policy together.
	maxValues = 262144
	// maxValueBytes bounds one value: as long as a request line may be in most
	// servers. A longer one is not understood.
	maxValueBytes = 8192
	// maxNameBytes bounds a policy's name and namespace (RFC 1123 section 2.1).
	maxNameBytes = 253
	// maxExpressions bounds the expressions of one policy: one is compiled in some 100 µs
	// and evaluated in some microseconds.
	maxExpressions = 64
	// maxClaimDepth bounds how deep a key looks into nested claims.
	maxClaimDepth = 16
	// maxWarnings bounds what one hostile policy can write to the log.
	maxWarnings = 16
	// maxReasonValues is how many values of the failed condition a denial repeats:
	// enough to recognise the policy, short enough for one log line.
	maxReasonValues = 3
	// maxReasonBytes bounds what a reason quotes of a request, which its sender chose.
	maxReasonBytes = 128
)
