package request

import (
	"net/netip"
	"strings"
	"time"
)

// expressionKey is the key of `when` whose values are expressions in CEL.
const expressionKey = "policy.tulle.dev/cel"

// expression reports whether one of the condition's expressions holds. One that cannot
// be evaluated is in doubt, and so is one on the token of a request whose token has
// not been looked at yet.
func (c *condition) expression(in *input) bool {
	// Only what is copied here gets to the heap: who has no expressions pays nothing.
	v := &expressionVars{
		source: in.source.String(), destination: in.Destination, peer: in.Peer, serverName: in.ServerName, path: in.path,
	}
	if in.destination.IsValid() {
		v.address = in.destination.String()
	}
	if in.Request != nil {
		r := *in.Request
		v.request = &r
		v.token = !in.unchecked
	}
	for _, p := range c.programs {
		if v.request != nil && !v.token && p.Mentions("auth") {
			if c.wide {
				return true
			}
			continue
		}
		holds, err := p.Holds(v)
		if err != nil && c.wide || err == nil && holds {
			return true
		}
	}
	return false
}

// expressionVars are the values of a request for expressions.
type expressionVars struct {
	source, address string
	destination     netip.AddrPort
	peer            Peer
	serverName      string
	path            string
	request         *Request // nil for bytes
	token           bool     // it has been looked at
}

// Attribute implements cel.Vars. What a request may lack, it lacks with the value of
// nothing; what is not known of it has none.
func (v *expressionVars) Attribute(name string) (any, bool) {
	object, field, _ := strings.Cut(name, ".")
	switch object {
	case "source":
		return v.sourceField(field)
	case "destination":
		switch field {
		case "ip":
			return text(v.address)
		case "port":
			return int64(v.destination.Port()), true
		}
	case "connection":
		switch field {
		case "sni":
			return v.serverName, v.serverName != ""
		case "mtls":
			return !v.peer.IsZero(), true
		}
	case "request":
		if v.request != nil {
			return v.requestField(field)
		}
	case "auth":
		if v.request != nil && v.token {
			return v.tokenField(field)
		}
	}
	return nil, false
}

func text(s string) (any, bool) {
	if s == "" {
		return nil, false
	}
	return s, true
}

func (v *expressionVars) sourceField(field string) (any, bool) {
	known := !v.peer.IsZero()
	switch field {
	case "ip":
		return v.source, true
	case "principal":
		return v.peer.principal, known
	case "namespace":
		return v.peer.namespace, known
	case "service_account":
		return v.peer.account, known
	case "trust_domain":
		return v.peer.trustDomain, known
	}
	return nil, false
}

func (v *expressionVars) requestField(field string) (any, bool) {
	r := v.request
	switch field {
	case "method":
		return r.Method, true
	case "path", "url_path":
		return text(v.path) // CONNECT has none
	case "host":
		return text(r.Authority)
	case "scheme":
		return r.Scheme, true
	case "query":
		return r.Query, r.HasQuery
	case "protocol":
		return r.Protocol, r.Protocol != ""
	case "headers":
		return expressionFields{v}, true
	case "id":
		if r.Fields != nil {
			if id, _, ok := r.Fields.Next("x-request-id", 0); ok {
				return id, true
			}
		}
		return "", false
	case "time":
		return time.Now(), true
	}
	return nil, false
}

func (v *expressionVars) tokenField(field string) (any, bool) {
	t := v.request.Token
	values := func(name []string) []string {
		if t == nil {
			return nil
		}
		c, _ := t.Claim(name)
		return c.Strings
	}
	switch field {
	case "principal":
		if issuer, subject := (&input{Attributes: &Attributes{Request: v.request}}).subject(); issuer != "" && subject != "" {
			return issuer + "/" + subject, true
		}
		return "", false
	case "audiences":
		all := values(aud)
		return all, len(all) > 0
	case "presenter":
		if all := values(azp); len(all) > 0 {
			return all[0], true
		}
		return "", false
	case "claims":
		if c, ok := t.(interface{ Claims() map[string]any }); ok {
			if all := c.Claims(); all != nil {
				return all, true
			}
		}
		return map[string]any{}, false
	}
	return nil, false
}

// expressionFields are the fields of a header, with those of HTTP/2 that have a colon.
type expressionFields struct{ *expressionVars }

// Lookup implements cel.Fields.
func (f expressionFields) Lookup(name string) (string, bool) {
	switch name {
	case ":authority", "host":
		return f.request.Authority, f.request.Authority != ""
	case ":method":
		return f.request.Method, true
	case ":scheme":
		return f.request.Scheme, true
	case ":path":
		if f.request.HasQuery {
			return f.path + "?" + f.request.Query, true
		}
		return f.path, f.path != ""
	case ":protocol", "upgrade":
		return f.request.Protocol, f.request.Protocol != ""
	}
	if f.request.Fields == nil {
		return "", false
	}
	joined, next, ok := f.request.Fields.Next(name, 0)
	if !ok {
		return "", false
	}
	for {
		value, after, more := f.request.Fields.Next(name, next)
		if !more {
			return joined, true
		}
		joined, next = joined+","+value, after
	}
}

// Names implements cel.Fields.
func (f expressionFields) Names(yield func(string) bool) {
	if f.request.Fields != nil {
		f.request.Fields.Names(yield)
	}
}
