package inpod

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/sockopt"
)

// keepAlive is set when the connection is a net.Conn: net.FileConn sets Go's
// own times, and turns them on, whatever the socket had.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount}

// Dialer opens TCP connections inside a pod's network namespace, with the
// proxy's mark, keepalive and no delay. It is safe for concurrent use, and
// usable as long as the namespace that it was made of is open.
type Dialer struct {
	ns *netns.NS
	// minPort and maxPort bound the ports of foreign sources.
	minPort, maxPort uint16
}

// NewDialer returns a Dialer into ns.
func NewDialer(ns *netns.NS) *Dialer {
	return &Dialer{ns: ns, minPort: foreignPortMin, maxPort: foreignPortMax}
}

// DialTCP connects to dst. With a valid src, the connection comes from that
// address, which need not be one of the pod's (IP_TRANSPARENT), from a port that
// its owner hardly uses itself. Waiting takes no thread. It ends with ctx, whose error
// is then part of the returned one. Errors name dst.
func (d *Dialer) DialTCP(ctx context.Context, src netip.Addr, dst netip.AddrPort) (*net.TCPConn, error) {
	c, err := d.dial(ctx, src.Unmap(), netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port()))
	if err != nil {
		if src.IsValid() {
			return nil, fmt.Errorf("dial %v from %v: %w", dst, src, err)
		}
		return nil, fmt.Errorf("dial %v: %w", dst, err)
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, src netip.Addr, dst netip.AddrPort) (*net.TCPConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if !dst.IsValid() || dst.Port() == 0 {
		return nil, errors.New("no address to connect to")
	}
	if !src.IsValid() {
		return d.connect(ctx, netip.AddrPort{}, dst)
	}
	if src.Is4() != dst.Addr().Is4() {
		return nil, errors.New("source and destination are of different families")
	}
	// The client's own connections to dst come from the same address. When one has
	// the same port, connection tracking takes the two for one, and the later one
	// gets no answer as long as the earlier one lives.
	for range foreignPortTries {
		port := d.minPort + uint16(rand.UintN(uint(d.maxPort-d.minPort)+1))
		c, err := d.connect(ctx, netip.AddrPortFrom(src, port), dst)
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return c, err
		}
	}
	return d.connect(ctx, netip.AddrPortFrom(src, 0), dst)
}

// connect connects to dst from src: its port is the kernel's choice when 0, and
// all of it when src is not valid.
func (d *Dialer) connect(ctx context.Context, src, dst netip.AddrPort) (*net.TCPConn, error) {
	domain, network := unix.AF_INET, "tcp4"
	if dst.Addr().Is6() {
		domain, network = unix.AF_INET6, "tcp6"
	}
	fd, err := d.ns.Socket(domain, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	// From here on the file owns fd; net.FileConn below makes its own duplicate.
	f := os.NewFile(uintptr(fd), network)
	defer f.Close()

	if err := sockopt.Apply(fd, network, sockopt.Mark(sockopt.MarkProxy)); err != nil {
		return nil, err
	}
	if src.Addr().IsValid() {
		// The kernel's choice waits for the destination, ours is shared by several.
		port := sockopt.BindAddressNoPort()
		if src.Port() != 0 {
			port = sockopt.ReuseAddr()
		}
		if err := sockopt.Apply(fd, network, sockopt.Transparent(), port); err != nil {
			return nil, err
		}
		if err := unix.Bind(fd, sockaddr(src)); err != nil {
			return nil, os.NewSyscallError("bind", err)
		}
	}
	switch err := unix.Connect(fd, sockaddr(dst)); {
	case errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EINTR):
		if err := connected(ctx, f, fd); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, os.NewSyscallError("connect", err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	if err := tcp.SetKeepAliveConfig(keepAlive); err != nil {
		tcp.Close()
		return nil, err
	}
	return tcp, nil
}

// connected waits until connect(2) has succeeded or failed, or ctx has ended.
func connected(ctx context.Context, f *os.File, fd int) error {
	// To the pod's own application the handshake is done by now.
	if settled(fd) {
		return socketError(fd)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := f.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Write(func(fd uintptr) bool {
		// The poller may wake us for the state before connect; ask the socket.
		if !settled(int(fd)) {
			return false
		}
		inner = socketError(int(fd))
		return true
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		<-ctx.Done() // the deadline was ctx's
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return inner
}

// settled tells whether a connect(2) in progress has come to an end.
func settled(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
	return err == nil && n == 1
}

// socketError is how connect(2) ended.
func socketError(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if code != 0 {
		return os.NewSyscallError("connect", unix.Errno(code))
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
