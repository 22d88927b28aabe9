package outbound

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// forwarded names the client and, if a service was dialled, its host (RFC 7239).
func forwarded(client netip.AddrPort, svc *workload.Service) string {
	b := make([]byte, 0, 96)
	b = append(b, `for="`...)
	b = client.AppendTo(b)
	b = append(b, '"')
	if svc != nil && headerSafe(svc.Hostname) {
		b = append(b, ";host="...)
		b = append(b, svc.Hostname...)
	}
	return string(b)
}

// headerSafe tells whether s is a token that needs no quotes (RFC 9110 section
// 5.6.2), as hostnames are.
func headerSafe(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' || r == '*')
	}) < 0
}

// traceparent begins a trace that is not sampled (W3C Trace Context, version 00).
func traceparent() string {
	var id [24]byte
	for i := 0; i < len(id); i += 8 {
		v := rand.Uint64() | 1 // neither the trace nor the span may be all zero
		for j := range 8 {
			id[i+j] = byte(v >> (8 * j))
		}
	}
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, id[:16])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[16:])
	b = append(b, "-00"...)
	return string(b)
}
