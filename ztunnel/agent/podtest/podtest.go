// Package podtest makes small networks for tests: a pod and a peer in network
// namespaces of their own, on one link, as a pod and its node are.
package podtest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/internal/sockopt"
)

// Patience bounds every wait.
const Patience = 20 * time.Second

// Addresses of the two ends.
var (
	Pod4, Peer4 = netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("10.77.0.1")
	Pod6, Peer6 = netip.MustParseAddr("fd77::2"), netip.MustParseAddr("fd77::1")
)

// World is a pod and a peer.
type World struct{ Pod, Peer *netns.NS }

// New makes a World, which ends with the test. It needs root.
func New(t testing.TB) World {
	t.Helper()
	roottest.Require(t)
	var w World
	for _, ns := range []**netns.NS{&w.Pod, &w.Peer} {
		var err error
		if *ns, err = netns.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*ns).Close() })
	}
	err := w.Pod.Do(func() error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(w.Peer.FD()),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		return configure(Pod4, Pod6, Peer4, Peer6)
	})
	if err == nil {
		err = w.Peer.Do(func() error { return configure(Peer4, Peer6, Pod4, Pod6) })
	}
	if err == nil {
		err = w.Pod.Do(func() error { return settled(Pod6) })
	}
	if err == nil {
		err = w.Peer.Do(func() error { return settled(Peer6) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// settled waits until the link has its carrier and the kernel has made the
// routes that follow from it.
func settled(own6 netip.Addr) error {
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		routes, err := netlink.RouteGet(own6.AsSlice())
		if link.Attrs().OperState == netlink.OperUp && err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
	}
	return fmt.Errorf("eth0 with %v is not up after %v", own6, Patience)
}

func configure(own4, own6, gw4, gw6 netip.Addr) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range []struct {
		own, gw netip.Addr
		bits    int
	}{{own4, gw4, 24}, {own6, gw6, 64}} {
		mask := net.CIDRMask(a.bits, a.own.BitLen())
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.own.AsSlice(), Mask: mask}, Flags: unix.IFA_F_NODAD}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add %v: %w", a.own, err)
		}
		everywhere := &net.IPNet{IP: make(net.IP, a.own.BitLen()/8), Mask: net.CIDRMask(0, a.own.BitLen())}
		if err := h.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere, Gw: a.gw.AsSlice()}); err != nil {
			return fmt.Errorf("default route via %v: %w", a.gw, err)
		}
	}
	return nil
}

// Greet listens in ns until the test ends and tells each client name and what
// it sees.
func Greet(t testing.TB, ns *netns.NS, name string, at netip.AddrPort, opts ...sockopt.Option) {
	t.Helper()
	var ln net.Listener
	err := ns.Do(func() error {
		lc := net.ListenConfig{Control: sockopt.Control(opts...)}
		var err error
		ln, err = lc.Listen(context.Background(), "tcp", at.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(GreetOn(name, ln))
}

// GreetOn is Greet on a listener; stop closes it and waits.
func GreetOn(name string, ln net.Listener) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			dst, err := sockopt.OriginalDst(c.(*net.TCPConn))
			if err != nil {
				dst = netip.AddrPort{}
			}
			fmt.Fprintf(c, "%s %v %v %v", name, c.LocalAddr(), c.RemoteAddr(), dst)
			c.Close()
		}
	}()
	return func() { ln.Close(); <-done }
}

// Greeting is what a Greet listener told: its name, the connection's addresses
// as it sees them, and the original destination.
type Greeting struct{ Name, Local, Remote, Dst string }

// Call connects from ns and returns the greeting.
func Call(t testing.TB, ns *netns.NS, to netip.AddrPort, opts ...sockopt.Option) (Greeting, error) {
	t.Helper()
	return CallFrom(t, ns, netip.AddrPort{}, to, opts...)
}

// CallFrom is Call with a source.
func CallFrom(t testing.TB, ns *netns.NS, from, to netip.AddrPort, opts ...sockopt.Option) (Greeting, error) {
	t.Helper()
	var c net.Conn
	err := ns.Do(func() error {
		d := net.Dialer{Timeout: Patience, Control: sockopt.Control(opts...)}
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		}
		var err error
		c, err = d.Dial("tcp", to.String())
		return err
	})
	if err != nil {
		return Greeting{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(Patience))
	var g Greeting
	_, err = fmt.Fscan(c, &g.Name, &g.Local, &g.Remote, &g.Dst)
	return g, err
}

// Connect opens a connection from one namespace to a listener of its own in
// another; both ends close with the test.
func Connect(t testing.TB, from, to *netns.NS, at netip.AddrPort, opts ...sockopt.Option) (client, server net.Conn) {
	t.Helper()
	var ln net.Listener
	err := to.Do(func() error {
		var err error
		ln, err = net.Listen("tcp", at.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = from.Do(func() error {
		d := net.Dialer{Timeout: Patience, Control: sockopt.Control(opts...)}
		var err error
		client, err = d.Dial("tcp", ln.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{client, server} {
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(Patience))
	}
	return client, server
}

// OpenFDs counts the process's descriptors.
func OpenFDs(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
