package sockopt_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/internal/sockopt"
)

func socket(t *testing.T, domain int) int {
	t.Helper()
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func value(t *testing.T, fd, level, opt int) int {
	t.Helper()
	v, err := unix.GetsockoptInt(fd, level, opt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOptionsReachTheSocket(t *testing.T) {
	for _, tc := range []struct {
		name              string
		domain            int
		network           string
		option            sockopt.Option
		level, opt, value int
		root              bool
	}{
		{"mark", unix.AF_INET, "tcp4", sockopt.Mark(sockopt.MarkProxy), unix.SOL_SOCKET, unix.SO_MARK, 0x539, true},
		{"transparent v4", unix.AF_INET, "tcp4", sockopt.Transparent(), unix.SOL_IP, unix.IP_TRANSPARENT, 1, true},
		{"transparent v6", unix.AF_INET6, "tcp6", sockopt.Transparent(), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1, true},
		{"transparent v6 holds for v4", unix.AF_INET6, "", sockopt.Transparent(), unix.SOL_IP, unix.IP_TRANSPARENT, 1, true},
		{"freebind v4", unix.AF_INET, "", sockopt.FreeBind(), unix.SOL_IP, unix.IP_FREEBIND, 1, false},
		{"freebind v6", unix.AF_INET6, "", sockopt.FreeBind(), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1, false},
		{"no port v4", unix.AF_INET, "tcp4", sockopt.BindAddressNoPort(), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1, false},
		{"no port v6", unix.AF_INET6, "tcp6", sockopt.BindAddressNoPort(), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1, false},
		{"reuse port", unix.AF_INET, "tcp4", sockopt.ReusePort(), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, false},
		{"reuse address", unix.AF_INET, "tcp4", sockopt.ReuseAddr(), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, false},
		{"v6 only", unix.AF_INET6, "tcp6", sockopt.V6Only(), unix.SOL_IPV6, unix.IPV6_V6ONLY, 1, false},
		{"no delay", unix.AF_INET, "tcp4", sockopt.NoDelay(), unix.SOL_TCP, unix.TCP_NODELAY, 1, false},
		{"keep-alive idle rounds up", unix.AF_INET, "tcp4", sockopt.KeepAlive(1500*time.Millisecond, time.Second, 3), unix.SOL_TCP, unix.TCP_KEEPIDLE, 2, false},
		{"keep-alive on", unix.AF_INET, "tcp4", sockopt.KeepAlive(time.Second, time.Second, 3), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, false},
		{"user timeout", unix.AF_INET, "tcp4", sockopt.UserTimeout(30 * time.Second), unix.SOL_TCP, unix.TCP_USER_TIMEOUT, 30000, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.root {
				roottest.Require(t)
			}
			fd := socket(t, tc.domain)
			if err := sockopt.Apply(fd, tc.network, tc.option); err != nil {
				t.Fatal(err)
			}
			if got := value(t, fd, tc.level, tc.opt); got != tc.value {
				t.Errorf("the socket has %d, want %d", got, tc.value)
			}
		})
	}
}

func TestErrorNamesTheOptionAndStopsTheRest(t *testing.T) {
	fd := socket(t, unix.AF_INET)
	ran := false
	err := sockopt.Apply(fd, "tcp4",
		sockopt.KeepAlive(time.Second, time.Second, 100000),
		func(int, string) error { ran = true; return nil })
	if err == nil || !strings.Contains(err.Error(), "TCP_KEEPCNT") || !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v, want EINVAL of TCP_KEEPCNT", err)
	}
	if ran {
		t.Error("an option after the failed one was applied")
	}
}

func TestControlWorksForListenAndDial(t *testing.T) {
	lc := net.ListenConfig{Control: sockopt.Control(sockopt.ReusePort(), sockopt.V6Only())}
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	second, err := lc.Listen(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatalf("no second listener on the port: %v", err)
	}
	second.Close()
	bad := net.Dialer{Control: sockopt.Control(func(int, string) error { return unix.EDOM })}
	if _, err := bad.Dial("tcp", ln.Addr().String()); !errors.Is(err, unix.EDOM) {
		t.Errorf("the option's error is lost: %v", err)
	}
}

// A redirect as the pod's rules do it, without the rules: tested with them in
// ztunnel/redirect. Here only what the kernel says of a plain connection.
func TestOriginalDstOfAPlainConnection(t *testing.T) {
	roottest.Require(t)
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(addr, func(t *testing.T) {
			ns, err := netns.New()
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			err = ns.Do(func() error {
				ln, err := net.Listen("tcp", addr)
				if err != nil {
					return err
				}
				defer ln.Close()
				port := netip.MustParseAddrPort(ln.Addr().String()).Port()
				target := netip.MustParseAddrPort(ln.Addr().String()).Addr()
				if target.IsUnspecified() {
					target = netip.MustParseAddr("127.0.0.1") // through the dual-stack socket
				}
				c, err := net.Dial("tcp", netip.AddrPortFrom(target, port).String())
				if err != nil {
					return err
				}
				defer c.Close()
				s, err := ln.Accept()
				if err != nil {
					return err
				}
				defer s.Close()
				dst, err := sockopt.OriginalDst(s.(*net.TCPConn))
				if err != nil {
					// No rule uses connection tracking here, so the kernel may not track at all.
					if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOPROTOOPT) {
						return nil
					}
					return err
				}
				if dst != netip.AddrPortFrom(target, port) {
					t.Errorf("got %v, want %v:%d", dst, target, port)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
