package request

import (
	"fmt"
	"strings"
)

// keys are those of `when` that have no name in brackets.
var keys = map[string]field{
	"source.ip":              fieldSourceIP,
	"source.namespace":       fieldNamespace,
	"source.principal":       fieldPrincipal,
	"source.serviceAccount":  fieldAccount,
	"source.serviceaccount":  fieldAccount,
	"source.trustDomain":     fieldTrustDomain,
	"remote.ip":              fieldRemoteIP,
	"destination.ip":         fieldDestinationIP,
	"destination.port":       fieldPort,
	"connection.sni":         fieldServerName,
	"request.auth.principal": fieldRequestPrincipal,
	"request.auth.audiences": fieldAudience,
	"request.auth.presenter": fieldPresenter,
	expressionKey:            fieldExpression,
}

// framing are fields that a waypoint takes out of a request before anybody looks at
// it: they frame the message or belong to one connection.
var framing = map[string]bool{
	"connection": true, "content-length": true, "expect": true, "http2-settings": true, "keep-alive": true,
	"proxy-connection": true, "te": true, "transfer-encoding": true,
}

// parseKey reads a key and returns a condition without values, or why the key is not
// understood.
func parseKey(key string) (condition, string) {
	if len(key) > maxValueBytes {
		return condition{}, fmt.Sprintf("the key is longer than %d bytes", maxValueBytes)
	}
	if f, ok := keys[key]; ok {
		return condition{field: f}, ""
	}
	if rest, ok := strings.CutPrefix(key, "request.headers["); ok {
		name, ok := strings.CutSuffix(rest, "]")
		name = strings.ToLower(name)
		switch {
		case !ok || !fieldName(name):
			return condition{}, fmt.Sprintf("key %q does not name a header field", key)
		case framing[name]:
			return condition{}, fmt.Sprintf("key %q: the field frames the message and is not known to policies", key)
		}
		return condition{field: fieldHeader, name: name}, ""
	}
	if rest, ok := strings.CutPrefix(key, "request.auth.claims"); ok {
		names, ok := claimNames(rest)
		if !ok {
			return condition{}, fmt.Sprintf("key %q does not name a claim", key)
		}
		return condition{field: fieldClaim, names: names}, ""
	}
	return condition{}, fmt.Sprintf("key %q is not known", key)
}

// fieldName reports whether a name in lower case is that of a field (RFC 9110, 5.1)
// or one of those with a colon that are known.
func fieldName(s string) bool {
	switch s {
	case "":
		return false
	case ":authority", ":method", ":path", ":protocol", ":scheme":
		return true
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return true
}

// claimNames reads [a][b] as the names of nested claims.
func claimNames(s string) ([]string, bool) {
	var names []string
	for s != "" {
		rest, ok := strings.CutPrefix(s, "[")
		name, rest, ok2 := strings.Cut(rest, "]")
		if !ok || !ok2 || name == "" || strings.Contains(name, "[") || len(names) == maxClaimDepth {
			return nil, false
		}
		names = append(names, name)
		s = rest
	}
	return names, len(names) > 0
}
