package hpack

// Field is one field of a header block.
type Field struct {
	Name, Value string
	// Valid tells that ValidName and ValidValue hold for them.
	Valid bool
}

// octetClass has a bit for each place in which an octet is allowed.
type octetClass uint8

const (
	inName octetClass = 1 << iota
	inValue
	inPseudo // behind the colon
)

var octets = func() (t [256]octetClass) {
	for c := range 256 {
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[c] |= inValue
		}
		switch {
		case 'a' <= c && c <= 'z':
			t[c] |= inName | inPseudo
		case '0' <= c && c <= '9':
			t[c] |= inName
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= inName
	}
	return t
}()

// ValidName reports whether name is a token without upper-case letters (RFC 9113,
// 8.2.1), or a colon and small letters: a pseudo-header field (8.3).
func ValidName[T string | []byte](name T) bool {
	class, from := inName, 0
	if len(name) > 0 && name[0] == ':' {
		class, from = inPseudo, 1
	}
	if len(name) == from {
		return false
	}
	for i := from; i < len(name); i++ {
		if octets[name[i]]&class == 0 {
			return false
		}
	}
	return true
}

// ValidValue reports whether value has no control characters but tabs inside (RFC
// 9110, 5.5) and no white space around it (RFC 9113, 8.2.1).
func ValidValue[T string | []byte](value T) bool {
	n := len(value)
	if n == 0 {
		return true
	}
	if first, last := value[0], value[n-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return false
	}
	for i := range n {
		if octets[value[i]]&inValue == 0 {
			return false
		}
	}
	return true
}
