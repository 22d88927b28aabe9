package inbound

import (
	"fmt"
	"net"
	"net/netip"
)

// addrPort is a socket's address, IPv4 as such also from a dual-stack socket.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch t := a.(type) {
	case *net.TCPAddr:
		ap = t.AddrPort()
	case *net.UDPAddr:
		ap = t.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// parseAuthority reads the target of a CONNECT that ends here: always IP:port,
// as RFC 3986 writes it, without zone and not IPv4 mapped into IPv6, so that
// every target has one spelling.
func parseAuthority(s string) (netip.AddrPort, error) {
	refuse := func(why string) (netip.AddrPort, error) {
		return netip.AddrPort{}, &Refusal{Status: 400, Reason: fmt.Sprintf("authority %q: %s", clip(s), why)}
	}
	if len(s) > maxAuthorityBytes {
		return refuse("too long")
	}
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return refuse("not IP:port")
	case ap.Port() == 0:
		return refuse("port 0")
	case ap.Addr().Zone() != "":
		return refuse("has a zone")
	case ap.Addr().Is4In6():
		return refuse("is IPv4 mapped into IPv6")
	}
	return ap, nil
}

// clip bounds what is quoted of a peer's text.
func clip(s string) string {
	if len(s) > maxAuthorityBytes {
		return s[:maxAuthorityBytes] + "…"
	}
	return s
}
