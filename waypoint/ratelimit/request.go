package ratelimit

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// Request is what is counted.
type Request struct {
	// Message is nil for a connection that is carried as bytes.
	Message *message.Request
	Peer    request.Peer
	Source  netip.Addr
	// Token is the verified one; nil without.
	Token request.Token
}

// fits reports whether the rule counts the request.
func (r *rule) fits(q *Request) bool {
	if len(r.match) == 0 {
		return true
	}
	for i := range r.match {
		if r.match[i].fits(q) {
			return true
		}
	}
	return false
}

func (m *match) fits(q *Request) bool {
	if (m.request != nil || len(m.methods) > 0) && q.Message == nil {
		return false
	}
	return (len(m.methods) == 0 || slices.Contains(m.methods, q.Message.Method)) &&
		(len(m.principals) == 0 || anyPattern(m.principals, q.Peer.Principal())) &&
		(len(m.namespace) == 0 || anyPattern(m.namespace, q.Peer.Namespace())) &&
		(m.request == nil || m.request.Fits(q.Message))
}

// anyPattern reports whether one fits, of which each may have "*" at one end.
func anyPattern(patterns []string, value string) bool {
	if value == "" {
		return false
	}
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			if strings.HasPrefix(value, prefix) {
				return true
			}
		} else if suffix, ok := strings.CutPrefix(p, "*"); ok {
			if strings.HasSuffix(value, suffix) {
				return true
			}
		} else if p == value {
			return true
		}
	}
	return false
}

// appendKey appends the key of the request: the counter's number, and of each part its
// length and its value. It is false when the request lacks one, and the rule does not
// count it.
func (r *rule) appendKey(b []byte, q *Request) ([]byte, bool) {
	start := len(b)
	b = append(b, r.prefix...)
	for i := range r.parts {
		p := &r.parts[i]
		// Room for the length, which is known afterwards.
		at := len(b)
		b = append(b, 0, 0)
		var ok bool
		if b, ok = p.append(b, q); !ok {
			if !p.hasDefault {
				return b[:start], false
			}
			b = append(b[:at+2], p.otherwise...)
		}
		if n := len(b) - at - 2; n > maxKeyBytes {
			sum := sha256.Sum256(b[at+2:])
			b = append(b[:at+2], sum[:]...)
			binary.BigEndian.PutUint16(b[at:], hashed|uint16(len(sum)))
		} else {
			binary.BigEndian.PutUint16(b[at:], uint16(n))
		}
	}
	return b, true
}

// hashed marks the length of a value that was too long and is its hash.
const hashed = 1 << 15

// values returns the parts of a key for people.
func (c *Counter) values(key string) []string {
	key = key[len(c.prefix):]
	out := make([]string, 0, len(c.parts))
	for range c.parts {
		if len(key) < 2 {
			break
		}
		n := int(key[0])<<8 | int(key[1])
		long := n&hashed != 0
		n &^= hashed
		value := key[2 : 2+n]
		key = key[2+n:]
		if long {
			value = "sha256:" + strconv.QuoteToASCII(value)
		}
		out = append(out, value)
	}
	return out
}

// append appends the part's value, and reports whether the request has one.
func (p *part) append(b []byte, q *Request) ([]byte, bool) {
	switch p.kind {
	case byIdentity:
		return append(b, q.Peer.Principal()...), !q.Peer.IsZero()
	case byServiceAccount:
		b = append(append(b, q.Peer.Namespace()...), '/')
		return append(b, q.Peer.Account()...), !q.Peer.IsZero()
	case byNamespace:
		return append(b, q.Peer.Namespace()...), !q.Peer.IsZero()
	case bySourceIP:
		if !q.Source.IsValid() {
			return b, false
		}
		return q.Source.Unmap().AppendTo(b), true
	case byClaim:
		return p.appendClaim(b, q.Token)
	}
	if q.Message == nil {
		return b, false
	}
	switch p.kind {
	case byHeader:
		return appendField(b, q.Message.Header, p.name)
	case byPath:
		return append(b, q.Message.Path...), true
	case byMethod:
		return append(b, q.Message.Method...), true
	case byHost:
		return append(b, hostOf(q.Message.Authority)...), q.Message.Authority != ""
	case byQuery:
		return route.AppendParameter(b, q.Message.Query, p.name)
	}
	return b, false
}

// appendField appends the values of a field, joined by commas.
func appendField(b []byte, h message.Header, name string) ([]byte, bool) {
	found := false
	for i := range h {
		if h[i].Name != name {
			continue
		}
		if found {
			b = append(b, ',')
		}
		found = true
		b = append(b, h[i].Value...)
	}
	return b, found
}

func (p *part) appendClaim(b []byte, t request.Token) ([]byte, bool) {
	if t == nil {
		return b, false
	}
	claim, ok := t.Claim(p.claim)
	if !ok {
		return b, false
	}
	values := claim.Strings
	if len(values) == 0 {
		values = claim.Others
	}
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, v...)
	}
	return b, len(values) > 0
}

// hostOf returns an authority without its port.
func hostOf(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		return authority[:i]
	}
	return authority
}

// of returns what the request counts; after tells that the response says it.
func (c *cost) of(q *Request) (units uint64, after bool) {
	switch {
	case c.responseHeader != "" && q.Message != nil:
		return c.otherwise, true
	case c.requestHeader != "" && q.Message != nil:
		return parseCost(q.Message.Header, c.requestHeader, c.otherwise), false
	}
	return c.otherwise, false
}

// parseCost reads a cost; what is none counts as otherwise, and what is too much as the
// most.
func parseCost(h message.Header, name string, otherwise uint64) uint64 {
	text := h.Get(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	switch {
	case err != nil && !(len(text) > 19 && strings.Trim(text, "0123456789") == ""):
		return otherwise
	case err != nil || n > maxCost:
		return maxCost
	}
	return n
}
