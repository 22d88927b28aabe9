package message

import "strings"

// nameOctet are the characters of tokens (RFC 9110, 5.6.2), upper case left out.
var nameOctet = func() (t [256]bool) {
	for c := range t {
		upper := c >= 'A' && c <= 'Z'
		t[c] = alphanumeric(byte(c)) && !upper || c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return t
}()

// ValidName reports whether name can be that of a field: a token in lower case.
func ValidName(name string) bool {
	for i := 0; i < len(name); i++ {
		if !nameOctet[name[i]] {
			return false
		}
	}
	return name != ""
}

// ValidValue reports whether value can be that of a field: no controls but tabs, and
// no white space around it (RFC 9110, 5.5). Octets beyond ASCII are allowed, nothing
// reads them as anything else.
func ValidValue(value string) bool {
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	if value == "" {
		return true
	}
	first, last := value[0], value[len(value)-1]
	return first != ' ' && first != '\t' && last != ' ' && last != '\t'
}

// Reserved reports whether fields of that name frame a message or belong to one
// connection, so that they have no place in a Header. Codecs never write one, whoever
// put it there. "te" is allowed with the value "trailers" alone.
func Reserved(name string) bool {
	switch name {
	case "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection",
		"transfer-encoding", "upgrade", "http2-settings":
		return true
	}
	return false
}
