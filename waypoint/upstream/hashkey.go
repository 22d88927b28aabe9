package upstream

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// HashKey is one thing that equal requests have in common. One of its fields is set.
type HashKey struct {
	// Header is the name of a field in lower case, whose first value counts.
	Header string
	// Query is the name of a parameter, as sent.
	Query  string
	Cookie HashCookie
	// Source is the client's address.
	Source bool
}

// HashCookie is a cookie to choose by.
type HashCookie struct {
	Name, Path string
	// Make gives clients the cookie that have none, for TTL; 0 is the browser's session.
	Make bool
	TTL  time.Duration
}

// Key finds what a hashed balancer chooses by: the first of the configured keys that r
// has. SetCookie is the field that a response to r must bear, "" for none. Without any
// key, and with other balancers, the request goes anywhere. r is nil for a connection.
func (b *Backend) Key(r *message.Request, source netip.Addr) (hash uint64, hashed bool, setCookie string) {
	s := b.settings.Load()
	if !s.Balancer.hashed() {
		return 0, false, ""
	}
	for i := range s.Hash {
		k := &s.Hash[i]
		if k.Source && source.IsValid() {
			return HashAddr(source), true, ""
		}
		if r == nil {
			continue
		}
		value, found := k.in(r)
		if found {
			return HashString(value), true, ""
		}
		if k.Cookie.Make {
			value = strconv.FormatUint(rand.Uint64(), 16)
			return HashString(value), true, k.Cookie.field(value)
		}
	}
	return 0, false, ""
}

func (k *HashKey) in(r *message.Request) (string, bool) {
	switch {
	case k.Header != "":
		v, _, found := r.Header.Next(k.Header, 0)
		return v, found
	case k.Query != "":
		for query := r.Query; query != ""; {
			var pair string
			pair, query, _ = strings.Cut(query, "&")
			if name, value, _ := strings.Cut(pair, "="); name == k.Query {
				return value, true
			}
		}
	case k.Cookie.Name != "":
		return Cookie(r.Header, k.Cookie.Name)
	}
	return "", false
}

func (c *HashCookie) field(value string) string {
	return SetCookie(c.Name, value, c.Path, c.TTL)
}
