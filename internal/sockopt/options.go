package sockopt

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Option sets one socket option on fd. network is the concrete network as
// net.Dialer and net.ListenConfig tell it ("tcp4", "udp6", …); when it does
// not end in 4 or 6, the socket is asked for its family. Errors name the
// option.
type Option func(fd int, network string) error

// Control makes the Control function of a net.Dialer or net.ListenConfig that
// applies opts in order and stops at the first error.
func Control(opts ...Option) func(network, address string, c syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		var inner error
		if err := c.Control(func(fd uintptr) { inner = Apply(int(fd), network, opts...) }); err != nil {
			return err
		}
		if inner != nil {
			return fmt.Errorf("%s %s: %w", network, address, inner)
		}
		return nil
	}
}

// Apply applies opts in order to fd and stops at the first error.
func Apply(fd int, network string, opts ...Option) error {
	for _, opt := range opts {
		if err := opt(fd, network); err != nil {
			return err
		}
	}
	return nil
}

// Mark sets SO_MARK, the packet mark of all that the socket sends. It needs
// CAP_NET_ADMIN in the user namespace of the socket's network namespace.
func Mark(m int) Option {
	return func(fd int, _ string) error {
		return named("SO_MARK", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, m))
	}
}

// Transparent sets IP_TRANSPARENT or IPV6_TRANSPARENT: a listener takes
// connections to addresses that are not local, a dialling socket may bind to
// one. On a dual-stack socket it holds for both families. It needs
// CAP_NET_ADMIN as Mark does.
func Transparent() Option {
	return func(fd int, network string) error {
		six, err := isIPv6(fd, network)
		if err != nil {
			return err
		}
		if six {
			return named("IPV6_TRANSPARENT", unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1))
		}
		return named("IP_TRANSPARENT", unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1))
	}
}

// FreeBind allows a bind to an address that no interface has yet.
func FreeBind() Option {
	return func(fd int, network string) error {
		six, err := isIPv6(fd, network)
		if err != nil {
			return err
		}
		if six {
			return named("IPV6_FREEBIND", unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
		}
		return named("IP_FREEBIND", unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1))
	}
}

// BindAddressNoPort leaves the choice of the source port of a socket bound to
// an address and port 0 to connect(2), where it need be unique only per
// destination. Without it a busy client address runs out of ports at 28,000
// connections over all destinations together.
func BindAddressNoPort() Option {
	return func(fd int, _ string) error {
		return named("IP_BIND_ADDRESS_NO_PORT", unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
	}
}

// ReusePort lets several sockets listen on one port.
func ReusePort() Option {
	return func(fd int, _ string) error {
		return named("SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
}

// ReuseAddr lets a listener take a port whose old connections linger, and a
// dialling socket share a source port with connections to other destinations.
func ReuseAddr() Option {
	return func(fd int, _ string) error {
		return named("SO_REUSEADDR", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	}
}

// V6Only keeps an IPv6 socket from taking IPv4 connections; nothing on IPv4.
func V6Only() Option {
	return func(fd int, network string) error {
		six, err := isIPv6(fd, network)
		if err != nil || !six {
			return err
		}
		return named("IPV6_V6ONLY", unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1))
	}
}

// NoDelay sends small segments at once (TCP_NODELAY).
func NoDelay() Option {
	return func(fd int, _ string) error {
		return named("TCP_NODELAY", unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1))
	}
}

// KeepAlive probes a silent peer: first after idle, then every interval, and
// ends the connection after count unanswered probes. Times are rounded up to
// whole seconds, the kernel's unit. Note that net.Dialer and net.ListenConfig
// set keepalive of their own after Control unless their KeepAlive is negative.
func KeepAlive(idle, interval time.Duration, count int) Option {
	return func(fd int, _ string) error {
		for _, o := range []struct {
			name              string
			level, opt, value int
		}{
			{"TCP_KEEPIDLE", unix.SOL_TCP, unix.TCP_KEEPIDLE, seconds(idle)},
			{"TCP_KEEPINTVL", unix.SOL_TCP, unix.TCP_KEEPINTVL, seconds(interval)},
			{"TCP_KEEPCNT", unix.SOL_TCP, unix.TCP_KEEPCNT, count},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		} {
			if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
				return named(o.name, err)
			}
		}
		return nil
	}
}

// UserTimeout ends a connection whose data stays unacknowledged for d
// (TCP_USER_TIMEOUT, RFC 5482); rounded down to milliseconds.
func UserTimeout(d time.Duration) Option {
	return func(fd int, _ string) error {
		return named("TCP_USER_TIMEOUT", unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds())))
	}
}

func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

func named(option string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("set %s: %w", option, err)
}

func isIPv6(fd int, network string) (bool, error) {
	switch {
	case strings.HasSuffix(network, "6"):
		return true, nil
	case strings.HasSuffix(network, "4"):
		return false, nil
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return false, fmt.Errorf("get SO_DOMAIN: %w", err)
	}
	return domain == unix.AF_INET6, nil
}
