package inpod

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/sockopt"
)

// Listen makes TCP listeners for port in ns, one for IPv4 and, where the
// namespace has it, one for IPv6. What they send, and what the connections
// accepted from them send, carries the proxy's mark. Port 0 takes a port that
// is free in both families.
//
// Listeners of the same user share their port (SO_REUSEPORT): while a node's proxy
// is replaced, the new one listens beside the old one.
func Listen(ns *netns.NS, port uint16) ([]*net.TCPListener, error) {
	lc := net.ListenConfig{
		KeepAlive: -1, // set below; accepted sockets inherit it
		Control: sockopt.Control(sockopt.Mark(sockopt.MarkProxy), sockopt.ReusePort(),
			sockopt.KeepAlive(keepAliveIdle, keepAliveInterval, keepAliveCount)),
	}
	// A Multipath TCP socket does not tell the original destination, and is slower;
	// clients that ask for it fall back to TCP. Go listens for it unless told.
	lc.SetMultipathTCP(false)
	var made []*net.TCPListener
	err := ns.Do(func() error {
		four, err := lc.Listen(context.Background(), "tcp4", wildcard(port))
		if err != nil {
			return err
		}
		made = append(made, four.(*net.TCPListener))
		port = made[0].Addr().(*net.TCPAddr).AddrPort().Port()
		six, err := lc.Listen(context.Background(), "tcp6", wildcard(port))
		if noFamily(err) {
			return nil
		}
		if err != nil {
			return err
		}
		made = append(made, six.(*net.TCPListener))
		return nil
	})
	if err != nil {
		for _, ln := range made {
			ln.Close()
		}
		return nil, fmt.Errorf("tcp port %d in pod's %v: %w", port, ns.ID(), err)
	}
	return made, nil
}

// ListenPacket makes a UDP socket for port in ns, for both families where the
// namespace has both, with the proxy's mark. Port 0 takes a free one. A port is not
// shared: packets of one proxy's QUIC connections would reach the other one.
func ListenPacket(ns *netns.NS, port uint16) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: sockopt.Control(sockopt.Mark(sockopt.MarkProxy))}
	var conn net.PacketConn
	err := ns.Do(func() error {
		var err error
		if conn, err = lc.ListenPacket(context.Background(), "udp", wildcard(port)); noFamily(err) {
			conn, err = lc.ListenPacket(context.Background(), "udp4", wildcard(port))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("udp port %d in pod's %v: %w", port, ns.ID(), err)
	}
	return conn.(*net.UDPConn), nil
}

func wildcard(port uint16) string { return ":" + strconv.Itoa(int(port)) }

// noFamily says that the kernel or the namespace has no IPv6.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EPROTONOSUPPORT)
}
