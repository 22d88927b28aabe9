package message

// maxHost and maxLabel bound the names of hosts in octets (RFC 1035, 2.3.4).
const (
	maxHost  = 253
	maxLabel = 63
)
