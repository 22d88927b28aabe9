package extauthz

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Question is what an authorizer is told of a request or, where Request is nil, of a
// connection that carries bytes.
type Question struct {
	// Request as the client sent it, in normal form.
	Request *message.Request
	// Two tells HTTP/2 from HTTP/1.1.
	Two bool
	// ID is the request's x-request-id.
	ID string
	// Source is the client, Principal its SPIFFE ID, empty without one.
	Source    netip.AddrPort
	Principal string
	// Destination is what the client addressed; its address may be unknown. Own is the
	// waypoint's SPIFFE ID.
	Destination netip.AddrPort
	Own         string
	// Time is when the request came.
	Time time.Time
	// Body is the content's beginning, where the authorizer wants it; Whole tells that it
	// is all.
	Body  []byte
	Whole bool
	// Secure tells that the authorizer speaks TLS itself.
	Secure bool
}

// scheme is that of the call to the authorizer: servers that speak TLS want it to be https.
func scheme(q *Question) string {
	if q.Secure {
		return "https"
	}
	return "http"
}

// partialBody tells an authorizer whether the content is cut off, as Envoy does.
const partialBody = "x-envoy-auth-partial-body"

// fits reports whether a field's name is in a list, whose elements may begin or end
// with a star.
func fits(list []string, name string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		if rest, ok := strings.CutSuffix(p, "*"); ok {
			return strings.HasPrefix(name, rest)
		}
		if rest, ok := strings.CutPrefix(p, "*"); ok {
			return strings.HasSuffix(name, rest)
		}
		return p == name
	})
}

// ValidPattern reports whether an element of a list of fields' names is one: a name in
// lower case, with a star at one end or alone.
func ValidPattern(p string) bool {
	if p == "*" {
		return true
	}
	name := strings.TrimSuffix(p, "*")
	if name == p {
		name = strings.TrimPrefix(p, "*")
	}
	return message.ValidName(name) && !strings.Contains(name, "*")
}
