package sockdiag

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/sockopt"
)

// Where the captured connections of the application, and those to it, arrive.
const (
	portOutbound = 15001
	portInbound  = 15006
)

// Proxied lists the proxy's own sockets in the namespace, tunnels too, until
// their end is agreed on: while there are any, established connections need the
// redirection's translation of addresses and its routes.
func Proxied(ns *netns.NS) ([]Socket, error) {
	all, err := list(ns, Established, FinWait1, FinWait2, CloseWait, lastAck, closing)
	if err != nil {
		return nil, err
	}
	var out []Socket
	for _, s := range all {
		switch port := s.Local.Port(); {
		// Some by their port: what the kernel keeps of closed ones has no mark.
		case s.Mark&sockopt.MarkMask == sockopt.MarkProxy, port == portOutbound, port == portInbound:
			out = append(out, s)
		}
	}
	return out, nil
}

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
