package sockopt

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ip6tSOOriginalDst is IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h.
const ip6tSOOriginalDst = 80

// OriginalDst returns the address that the client of an accepted connection
// had dialled before a REDIRECT rule brought it here. IPv4 comes unmapped, also
// from a dual-stack socket.
//
// For a connection that was not redirected it is the local address: comparing
// the two is the caller's, who alone knows whether that is an error there.
// Where connection tracking does not run or has forgotten the connection, the
// error wraps ENOENT or ENOPROTOOPT.
func OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	local, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok || local == nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", unix.ENOTCONN)
	}
	var (
		dst   netip.AddrPort
		inner error
	)
	if err := raw.Control(func(fd uintptr) {
		if local.AddrPort().Addr().Unmap().Is4() {
			dst, inner = originalDst4(int(fd))
		} else {
			dst, inner = originalDst6(int(fd))
		}
	}); err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	if inner != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination of the connection to %v: %w", local, inner)
	}
	return dst, nil
}

// originalDst4 reads a struct sockaddr_in through the 20 bytes of an
// ipv6_mreq, whose first 16 are raw: family, port, address.
func originalDst4(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("get SO_ORIGINAL_DST: %w", err)
	}
	b := m.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
}

// originalDst6 reads a struct sockaddr_in6 through an ip6_mtuinfo, which
// begins with one.
func originalDst6(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, ip6tSOOriginalDst)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("get IP6T_SO_ORIGINAL_DST: %w", err)
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], m.Addr.Port)
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), binary.BigEndian.Uint16(port[:])), nil
}
