package baggage

const (
	// maxBytes bounds the header: W3C Baggage, section 3.3.2, asks for 8192 bytes.
	maxBytes = 8192
	// maxMembers bounds its list members (same section).
	maxMembers = 64
	// maxValueBytes bounds one decoded value: a DNS name (RFC 1123) has 253, and
	// nothing that goes here is longer.
	maxValueBytes = 253
)
