package forward

import (
	"net/netip"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// remote is the address of who asked first: the client of the tunnel, or who the trusted
// proxies say that it was. It is the zero Addr where they say what is no address. A
// request that has come through fewer proxies has come from one of the mesh itself.
func (e *exchange) remote() netip.Addr {
	n := e.svc.TrustedProxies
	if n == 0 || !e.r.Header.Has("x-forwarded-for") {
		return e.c.Source.Addr()
	}
	for i := len(e.r.Header) - 1; i >= 0; i-- {
		if e.r.Header[i].Name != "x-forwarded-for" {
			continue
		}
		rest := e.r.Header[i].Value
		for more := true; more; {
			at := strings.LastIndexByte(rest, ',')
			element := strings.Trim(rest[at+1:], " \t")
			if more = at >= 0; more {
				rest = rest[:at]
			}
			if n--; n == 0 {
				return address(element)
			}
		}
	}
	return e.c.Source.Addr()
}

// address reads an element of x-forwarded-for: an address, with a port or not.
func address(s string) netip.Addr {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap()
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Addr().Zone() == "" {
		return ap.Addr().Unmap()
	}
	return netip.Addr{}
}

// spoken are the fields by which proxies tell applications of clients, or clients show who
// they are; those that begin with spokenPrefixes are as well.
var (
	spoken = map[string]bool{
		"authorization": true, "connection": true, "content-encoding": true, "content-length": true, "content-type": true, "cookie": true,
		"expect": true, "forwarded": true, "host": true, "keep-alive": true, "proxy-authorization": true, "proxy-connection": true, "te": true,
		"traceparent": true, "tracestate": true, "trailer": true, "transfer-encoding": true, "true-client-ip": true, "upgrade": true, "via": true,
	}
	spokenPrefixes = []string{"x-forwarded-", "x-envoy-", "x-b3-", "x-real-ip", "x-request-id", "x-original-", "cf-connecting-ip"}
)

// disguised reports whether a field with an underscore in its name passes for one of
// those to applications behind gateways (CGI, WSGI, Rack, PHP), which see both as one
// variable.
func disguised(name string) bool {
	if strings.IndexByte(name, '_') < 0 {
		return false
	}
	name = strings.ReplaceAll(name, "_", "-")
	if spoken[name] {
		return true
	}
	for _, p := range spokenPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// unmask takes out what a client could pass off as said by a proxy, or as what policies
// have looked at. nginx does so with every name that has an underscore; there are
// applications that use such names among themselves.
func unmask(h *message.Header) {
	for i := range *h {
		if disguised((*h)[i].Name) {
			kept := (*h)[:i]
			for _, f := range (*h)[i+1:] {
				if !disguised(f.Name) {
					kept = append(kept, f)
				}
			}
			*h = kept
			return
		}
	}
}

// forwardedProto leaves x-forwarded-proto as the client says it, which may be a gateway
// that has taken TLS off, when it says one thing; else it is what the waypoint sees.
// :scheme of HTTP/2 is a claim that nobody checked, and says nothing here.
func forwardedProto(h *message.Header) {
	if v, ok := h.Lookup("x-forwarded-proto"); !ok || v != "http" && v != "https" {
		h.Set("x-forwarded-proto", "http")
	}
}
