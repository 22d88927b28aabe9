package extauthz

import (
	"fmt"
	"slices"
	"strings"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// removeFields is the field of an answer over HTTP that names fields to take out of the
// request, as Envoy reads it.
const removeFields = "x-envoy-auth-headers-to-remove"

// requestOf makes the question over HTTP: the request's own method, host and path.
func requestOf(auth *api.ExternalAuth, q *Question) (*message.Request, []byte, error) {
	from := q.Request
	if from == nil {
		return nil, nil, fmt.Errorf("%s is asked over HTTP, which knows no connections that carry bytes", auth.GetName())
	}
	r := &message.Request{
		Method: from.Method, Scheme: scheme(q), Authority: from.Authority, Path: from.Path, Query: from.Query, HasQuery: from.HasQuery,
	}
	if r.Authority == "" {
		r.Authority = q.Destination.String()
	}
	if r.Method == "CONNECT" || r.Path == "*" || r.Path == "" {
		// What has no path is asked about at the root.
		r.Path = "/"
		if r.Method == "CONNECT" {
			r.Method = "GET"
		}
	}
	r.Path = strings.TrimSuffix(auth.GetPathPrefix(), "/") + r.Path
	for _, f := range from.Header {
		if f.Name == "authorization" || fits(auth.GetAllowedHeaders(), f.Name) {
			r.Header.Add(f.Name, f.Value)
		}
	}
	content := q.Body
	if auth.GetMaxBodyBytes() > 0 {
		r.Header.Set(partialBody, fmt.Sprint(!q.Whole))
		if t := from.Header.Get("content-type"); t != "" {
			r.Header.Set("content-type", t)
		}
	}
	for _, f := range auth.GetAddedHeaders() {
		if err := writable(f.GetName(), f.GetValue()); err != nil {
			return nil, nil, err
		}
		r.Header.Set(f.GetName(), f.GetValue())
	}
	r.Length = int64(len(content))
	return r, content, nil
}

// readResponse reads an answer over HTTP: 200 consents, what is the server's own fault
// is no answer, everything else refuses.
func readResponse(auth *api.ExternalAuth, got *reply) (*Answer, error) {
	switch status := got.head.Status; {
	case status >= 500:
		return nil, fmt.Errorf("the authorizer answers with status %d", status)
	case status != 200:
		return refused(status, denialHeader(auth.GetAllowedDenialHeaders(), got.head.Header), got.content), nil
	}
	a := &Answer{allowed: true}
	for _, p := range auth.GetAllowedResponseHeaders() {
		if message.ValidName(p) && !strings.Contains(p, "*") && p != "authorization" && p != "cookie" {
			a.own = append(a.own, p)
		}
	}
	for _, f := range got.head.Header {
		if f.Name == removeFields {
			for name := range strings.SplitSeq(f.Value, ",") {
				if name = strings.ToLower(strings.TrimSpace(name)); writable(name, "") == nil {
					a.remove = append(a.remove, name)
				}
			}
			continue
		}
		if describes(f.Name) || writable(f.Name, f.Value) != nil {
			continue
		}
		if fits(auth.GetAllowedResponseHeaders(), f.Name) {
			a.changes = put(a.changes, f)
		}
		if fits(auth.GetAllowedClientHeaders(), f.Name) {
			a.client = put(a.client, f)
		}
	}
	return a, nil
}

// put overwrites what the request has with the first line of a field and adds the
// others.
func put(list []change, f message.Field) []change {
	c := change{Field: f}
	if slices.ContainsFunc(list, func(have change) bool { return have.Name == f.Name }) {
		c.how = appendField
	}
	return append(list, c)
}

// describes tells fields that are about the authorizer's own answer: no list that takes
// all means these.
func describes(name string) bool {
	switch name {
	case "date", "server", "via", "age", "etag", "last-modified", "accept-ranges", "vary", "trailer", "alt-svc":
		return true
	}
	return strings.HasPrefix(name, "content-")
}

// denialHeader is what the client gets with a refusal: what the list names, and always
// what it cannot do without; all without a list.
func denialHeader(list []string, h message.Header) message.Header {
	var out message.Header
	for _, f := range h {
		if writable(f.Name, f.Value) != nil || f.Name == removeFields {
			continue
		}
		switch {
		case len(list) == 0, fits(list, f.Name):
		case f.Name == "location", f.Name == "www-authenticate", f.Name == "proxy-authenticate", f.Name == "content-type", f.Name == "content-encoding":
		default:
			continue
		}
		out = append(out, f)
	}
	return out
}
