package jwt

import (
	"net/url"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// place is where a token may be in a request.
type place struct {
	kind   placeKind
	name   string
	prefix string
	// scheme says that the prefix is an authentication scheme, whose case does not
	// matter (RFC 9110, 11.1).
	scheme bool
}

type placeKind uint8

const (
	inHeader placeKind = iota
	inQuery
	inCookie
)

// defaultPlaces are those of RFC 6750, 2.1 and 2.3.
var defaultPlaces = []place{
	{kind: inHeader, name: "authorization", prefix: "Bearer ", scheme: true},
	{kind: inQuery, name: "access_token"},
}

// tokens calls yield with each token in the place, until it says no.
func (p *place) tokens(r *message.Request, yield func(string) bool) {
	switch p.kind {
	case inHeader:
		for i := range r.Header {
			if r.Header[i].Name != p.name {
				continue
			}
			if t := p.strip(r.Header[i].Value); t != "" && !yield(t) {
				return
			}
		}
	case inQuery:
		for rest := r.Query; rest != ""; {
			var part string
			part, rest, _ = strings.Cut(rest, "&")
			if t, ok := p.param(part); ok && t != "" && !yield(t) {
				return
			}
		}
	case inCookie:
		for i := range r.Header {
			if r.Header[i].Name != "cookie" {
				continue
			}
			for rest := r.Header[i].Value; rest != ""; {
				var part string
				part, rest, _ = strings.Cut(rest, ";")
				if t, ok := p.cookie(part); ok && t != "" && !yield(t) {
					return
				}
			}
		}
	}
}

// strip returns the token of a field's value, empty for one without the prefix.
func (p *place) strip(value string) string {
	if len(value) < len(p.prefix) {
		return ""
	}
	head := value[:len(p.prefix)]
	if head != p.prefix && !(p.scheme && strings.EqualFold(head, p.prefix)) {
		return ""
	}
	return strings.Trim(value[len(p.prefix):], " \t")
}

// param returns the value of a part of the query, and whether it has the name.
func (p *place) param(part string) (string, bool) {
	name, value, _ := strings.Cut(part, "=")
	if name != p.name && unescape(name) != p.name {
		return "", false
	}
	return unescape(value), true
}

func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if out, err := url.QueryUnescape(s); err == nil {
		return out
	}
	return s
}

// cookie returns the value of a cookie, and whether it has the name.
func (p *place) cookie(part string) (string, bool) {
	name, value, ok := strings.Cut(strings.Trim(part, " \t"), "=")
	if !ok || name != p.name {
		return "", false
	}
	return strings.Trim(value, `"`), true
}

// remove takes the tokens of the place out of the request.
func (p *place) remove(r *message.Request) {
	switch p.kind {
	case inHeader:
		r.Header = slices.DeleteFunc(r.Header, func(f message.Field) bool {
			return f.Name == p.name && p.strip(f.Value) != ""
		})
	case inQuery:
		r.Query = without(r.Query, "&", "&", p.param)
		r.HasQuery = r.Query != ""
	case inCookie:
		r.Header = slices.DeleteFunc(r.Header, func(f message.Field) bool {
			return f.Name == "cookie" && without(f.Value, ";", "; ", p.cookie) == ""
		})
		for i := range r.Header {
			if r.Header[i].Name == "cookie" {
				r.Header[i].Value = without(r.Header[i].Value, ";", "; ", p.cookie)
			}
		}
	}
}

// without returns the list without the parts that have the place's name; a list that
// has none of them stays as it is.
func without(list, separator, join string, named func(string) (string, bool)) string {
	var kept []string
	all := true
	for part := range strings.SplitSeq(list, separator) {
		if _, ok := named(part); ok {
			all = false
			continue
		}
		if join != separator {
			part = strings.Trim(part, " \t")
		}
		kept = append(kept, part)
	}
	if all {
		return list
	}
	return strings.Join(kept, join)
}
