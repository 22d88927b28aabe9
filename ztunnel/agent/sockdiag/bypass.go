package sockdiag

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/internal/sockopt"
)

// portOutbound is where the application's captured connections arrive.
const portOutbound = 15001

// Bypassing returns those established connections of a list that do not go
// through the proxy although they leave or enter the pod.
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
		if s.Mark&sockopt.MarkMask != sockopt.MarkProxy {
			continue
		}
		if s.Local.Port() == portOutbound {
			captured[s.Remote] = true
		} else {
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
		case s.State != Established, s.Mark&sockopt.MarkMask == sockopt.MarkProxy:
		case s.Local.Addr().IsLoopback(), s.Local.Addr() == s.Remote.Addr():
		case captured[s.Local], delivered[ends{s.Local, s.Remote}], own[ends{s.Local, s.Remote}]:
		default:
			out = append(out, s)
		}
	}
	return out
}
