package sockdiag

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/internal/sockopt"
)

// portOutbound is where the application's captured connections arrive.
const portOutbound = 15001

// Bypassing returns those connections of a list that do not go through the proxy
// although they leave or enter the pod, half-closed ones too: they may carry data
// the other way for ever.
//
// An application's socket does not tell whether it was captured: it shows the
// address that was dialled. But a captured connection has a second socket in
// the same namespace, the proxy's, marked and with the addresses the other way
// round: the proxy's end of a connection that the application opened has the
// port 15001, and the proxy's end of one that it delivers has the very
// addresses. A list is not taken at one moment; ask twice and keep what both
// name.
func Bypassing(sockets []Socket) []Socket {
	type ends struct{ local, remote netip.AddrPort }
	delivered := map[ends]bool{}
	captured := map[netip.AddrPort]bool{}
	for _, s := range sockets {
		switch {
		case s.Local.Port() == portOutbound:
			// Without a look at the mark: what the kernel keeps of the socket of a
			// proxy that died has none.
			captured[s.Remote] = true
		case s.Mark&sockopt.MarkMask == sockopt.MarkProxy:
			delivered[ends{s.Remote, s.Local}] = true
		}
	}
	// A connection of the pod with itself has both its ends here; it is none of
	// the proxy's business.
	own := map[ends]bool{}
	for _, s := range sockets {
		own[ends{s.Remote, s.Local}] = true
	}
	var out []Socket
	for _, s := range sockets {
		switch {
		case s.Mark&sockopt.MarkMask == sockopt.MarkProxy, s.Local.Port() == portOutbound:
		case s.Local.Addr().IsLoopback(), s.Local.Addr() == s.Remote.Addr():
		case captured[s.Local], delivered[ends{s.Local, s.Remote}], own[ends{s.Local, s.Remote}]:
		default:
			out = append(out, s)
		}
	}
	return out
}
