package redirect_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/internal/sockopt"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(userNamespaceChild())
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of these tests.
const patience = 20 * time.Second

var (
	pod4, peer4 = netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("10.77.0.1")
	pod6, peer6 = netip.MustParseAddr("fd77::2"), netip.MustParseAddr("fd77::1")
)

// world is a pod and a peer on one link, as a pod and its node are.
type world struct{ pod, peer *netns.NS }

func newWorld(t testing.TB) world {
	t.Helper()
	roottest.Require(t)
	var w world
	for _, ns := range []**netns.NS{&w.pod, &w.peer} {
		var err error
		if *ns, err = netns.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*ns).Close() })
	}
	err := w.pod.Do(func() error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(w.peer.FD()),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		return configure(pod4, pod6, peer4, peer6)
	})
	if err == nil {
		err = w.peer.Do(func() error { return configure(peer4, peer6, pod4, pod6) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
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

// greeter listens in ns and sends each client its name and what it sees:
// "name local-address remote-address original-destination".
func greeter(t testing.TB, ns *netns.NS, name string, at netip.AddrPort, opts ...sockopt.Option) {
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
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			dst, derr := sockopt.OriginalDst(c.(*net.TCPConn))
			if derr != nil {
				dst = netip.AddrPort{}
			}
			fmt.Fprintf(c, "%s %v %v %v", name, c.LocalAddr(), c.RemoteAddr(), dst)
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
}

type greeting struct{ name, local, remote, dst string }

// call connects from ns and returns the greeting.
func call(t testing.TB, ns *netns.NS, to netip.AddrPort, opts ...sockopt.Option) (greeting, error) {
	t.Helper()
	return callFrom(t, ns, netip.AddrPort{}, to, opts...)
}

func callFrom(t testing.TB, ns *netns.NS, from, to netip.AddrPort, opts ...sockopt.Option) (greeting, error) {
	t.Helper()
	var c net.Conn
	err := ns.Do(func() error {
		d := net.Dialer{Timeout: patience, Control: sockopt.Control(opts...)}
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		}
		var err error
		c, err = d.Dial("tcp", to.String())
		return err
	})
	if err != nil {
		return greeting{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	var g greeting
	_, err = fmt.Fscan(c, &g.name, &g.local, &g.remote, &g.dst)
	return g, err
}
