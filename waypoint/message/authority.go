package message

import (
	"net/netip"
	"strings"
)

// NormalizeAuthority returns the normal form of host[:port]: lower case, without the
// dot that may end a name, IPv6 addresses as RFC 5952 writes them. Refused with a
// *ProtocolError are user information, names that no DNS could have (RFC 3986 allows
// more in a registered name; parsers disagree about it), zones of addresses, and ports
// other than 1 to 65535 without leading zeros. What is normal already is returned
// itself, without allocation unless it is an IPv6 address.
func NormalizeAuthority(a string) (string, error) {
	if strings.HasPrefix(a, "[") {
		return normalizeIPv6(a)
	}
	end, upper := 0, false
	for label := 0; end < len(a) && a[end] != ':'; end++ {
		c := a[end]
		switch {
		case c == '.':
			if label == 0 {
				return "", Malformed("empty label in the host")
			}
			label = 0
			continue
		case !unreserved[c]:
			return "", Malformed("invalid character in the host")
		case c >= 'A' && c <= 'Z':
			upper = true
		}
		if label++; label > maxLabel {
			return "", Malformed("too long a label in the host")
		}
	}
	host, port := a[:end], a[end:]
	if err := checkPort(port); err != nil {
		return "", err
	}
	dotted := strings.HasSuffix(host, ".")
	if dotted {
		host = host[:len(host)-1]
	}
	if host == "" || len(host) > maxHost {
		return "", Malformed("empty or too long a host")
	}
	if upper {
		host = strings.ToLower(host)
	}
	if upper || dotted {
		return host + port, nil
	}
	return a, nil
}

func normalizeIPv6(a string) (string, error) {
	text, port, found := strings.Cut(a[1:], "]")
	addr, err := netip.ParseAddr(text)
	if !found || err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", Malformed("invalid IPv6 address in the host")
	}
	if err := checkPort(port); err != nil {
		return "", err
	}
	if canonical := addr.String(); canonical != text {
		return "[" + canonical + "]" + port, nil
	}
	return a, nil
}

// checkPort judges what follows a host: nothing, or a colon and a port.
func checkPort(s string) error {
	if s == "" {
		return nil
	}
	n := 0
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' || i > 5 {
			return Malformed("invalid port")
		}
		n = n*10 + int(s[i]-'0')
	}
	if s[0] != ':' || len(s) < 2 || s[1] == '0' || n > 65535 {
		return Malformed("invalid port")
	}
	return nil
}
