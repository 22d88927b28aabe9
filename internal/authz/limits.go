package authz

// Limits of one policy, far beyond what people write. One that exceeds them is
// in force in its strictest sense: without it, its workloads would have less
// protection than its author wrote.
const (
	// maxRules bounds rules of one policy, and clauses of a rule, and matches of
	// a clause, each on its own.
	maxRules = 4096
	// maxMatches bounds all matches of one policy together.
	maxMatches = 65536
	// maxValues bounds all values of all conditions of one policy together.
	maxValues = 262144
	// maxValueBytes bounds one string to match: longer than any SPIFFE ID
	// (2048 bytes, SPIFFE-ID standard section 2.3) it could match nothing.
	maxValueBytes = 2048
	// maxNameBytes bounds a policy's name and namespace (RFC 1123 section 2.1).
	maxNameBytes = 253
	// maxReasonValues is how many values of the failed condition a denial
	// repeats: enough to recognise the policy, short enough for one log line.
	maxReasonValues = 3
)
