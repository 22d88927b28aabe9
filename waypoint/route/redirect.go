package route

import (
	"fmt"
	"strconv"
	"strings"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Redirect answers a request with the place where to ask instead.
type Redirect struct {
	scheme, hostname string
	path             pathChange
	port             uint16
	status           int
}

// wellKnown are the ports that a Location leaves out.
var wellKnown = map[string]uint16{"http": 80, "https": 443}

func compileRedirect(x *api.Redirect) (*Redirect, error) {
	out := &Redirect{scheme: strings.ToLower(x.GetScheme()), port: uint16(x.GetPort()), status: int(x.GetStatus())}
	if out.scheme != "" && wellKnown[out.scheme] == 0 {
		return nil, fmt.Errorf("redirects to scheme %q", out.scheme)
	}
	if x.GetPort() > 65535 {
		return nil, fmt.Errorf("redirects to port %d", x.GetPort())
	}
	switch out.status {
	case 0:
		out.status = 302
	case 301, 302, 303, 307, 308:
	default:
		return nil, fmt.Errorf("redirects with status %d", out.status)
	}
	var err error
	if out.hostname, err = hostname(x.GetHostname()); err != nil {
		return nil, err
	}
	out.path, err = compilePathChange(x.GetPath())
	return out, err
}

// Respond returns the answer to r, which came on the service's port.
func (x *Redirect) Respond(d Decision, r *message.Request, port uint16) *message.Response {
	return &message.Response{
		Status: x.status,
		Header: message.Header{{Name: "location", Value: x.location(d, r, port)}},
	}
}

// location returns where to ask (RFC 9110, 10.2.2). The port is chosen as the Gateway
// API says: given; else the well-known one of the scheme if that is given; else the
// one on which the request came.
func (x *Redirect) location(d Decision, r *message.Request, port uint16) string {
	scheme, host := r.Scheme, x.hostname
	if x.scheme != "" {
		scheme, port = x.scheme, wellKnown[x.scheme]
	}
	if x.port != 0 {
		port = x.port
	}
	if host == "" {
		host = hostOf(r.Authority)
	}
	var b strings.Builder
	path := x.path.apply(d, r.Path)
	b.Grow(len(scheme) + len("://") + len(host) + len(":65535") + len(path) + len("?") + len(r.Query))
	if host != "" {
		b.WriteString(scheme)
		b.WriteString("://")
		b.WriteString(host)
		if port != wellKnown[scheme] {
			b.WriteByte(':')
			b.WriteString(strconv.Itoa(int(port)))
		}
	} else if strings.HasPrefix(path, "//") {
		// HTTP/1.0 without a host gets a path alone, which must not begin like an
		// authority (RFC 3986, 4.2).
		b.WriteString("/.")
	}
	if strings.HasPrefix(path, "/") {
		b.WriteString(path)
	} else {
		b.WriteByte('/')
	}
	if r.HasQuery {
		b.WriteByte('?')
		b.WriteString(r.Query)
	}
	return b.String()
}

// hostOf returns an authority without its port.
func hostOf(authority string) string {
	end := strings.LastIndexByte(authority, ':')
	if end < 0 || end < strings.LastIndexByte(authority, ']') {
		return authority
	}
	return authority[:end]
}
