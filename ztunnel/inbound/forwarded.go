package inbound

import "strings"

// forwardedHost returns host= of a Forwarded header (RFC 7239), the service that
// the client says it dialled; empty when there is none. It is used for logs and
// metrics only, and only for services that the pod belongs to.
func forwardedHost(header string) string {
	if len(header) > maxAuthorityBytes*2 {
		return ""
	}
	// The first element is the client nearest; a quoted value may not hold a
	// separator in any header that a mesh proxy writes.
	first, _, _ := strings.Cut(header, ",")
	for part := range strings.SplitSeq(first, ";") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if ok && strings.EqualFold(name, "host") {
			host := strings.Trim(value, `"`)
			if len(host) > maxAuthorityBytes {
				return ""
			}
			return host
		}
	}
	return ""
}
