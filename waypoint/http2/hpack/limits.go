package hpack

const (
	// TableSize is the size in octets of the dynamic table of a Decoder, and the largest
	// of an Encoder: the value of SETTINGS_HEADER_TABLE_SIZE that every peer starts from
	// (RFC 9113, 6.5.2). More would pay for heads of more than a hundred equal fields.
	TableSize = 4096

	// entryOverhead is what every entry counts beside its text (RFC 7541, 4.1).
	entryOverhead = 32

	// maxInteger bounds lengths and indexes (RFC 7541, 5.1: "excessively large integer
	// encodings MUST be treated as decoding errors"); no block is as long.
	maxInteger = 1 << 24
)
