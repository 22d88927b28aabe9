package inpod_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

func fresh(t testing.TB) *netns.NS {
	t.Helper()
	roottest.Require(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func option(t *testing.T, c *net.TCPConn, level, opt int) int {
	t.Helper()
	r, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	value := -1
	if err := r.Control(func(fd uintptr) { value, _ = unix.GetsockoptInt(int(fd), level, opt) }); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestListenAndDialInsideWithTheMark(t *testing.T) {
	ns := fresh(t)
	lns, err := inpod.Listen(ns, 15008)
	if err != nil {
		t.Fatal(err)
	}
	if len(lns) != 2 {
		t.Fatalf("%d listeners, want one a family", len(lns))
	}
	dialer := inpod.NewDialer(ns)
	for i, dst := range []string{"127.0.0.1:15008", "[::1]:15008"} {
		defer lns[i].Close()
		c, err := dialer.DialTCP(t.Context(), netip.Addr{}, netip.MustParseAddrPort(dst))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := lns[i].AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if c.RemoteAddr().String() != dst || s.LocalAddr().String() != dst {
			t.Errorf("connected %v to %v, want %s", c.RemoteAddr(), s.LocalAddr(), dst)
		}
		for end, conn := range map[string]*net.TCPConn{"dialled": c, "accepted": s} {
			for _, o := range []struct {
				name              string
				level, opt, value int
			}{
				{"mark", unix.SOL_SOCKET, unix.SO_MARK, sockopt.MarkProxy},
				{"keepalive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"keepalive idle", unix.SOL_TCP, unix.TCP_KEEPIDLE, 180},
				{"keepalive interval", unix.SOL_TCP, unix.TCP_KEEPINTVL, 60},
				{"keepalive count", unix.SOL_TCP, unix.TCP_KEEPCNT, 3},
				{"no delay", unix.SOL_TCP, unix.TCP_NODELAY, 1},
				{"protocol", unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP},
			} {
				if got := option(t, conn, o.level, o.opt); got != o.value {
					t.Errorf("the %s connection has %s %#x, want %#x", end, o.name, got, o.value)
				}
			}
		}
	}
	// The next proxy listens beside this one, on TCP.
	second, err := inpod.Listen(ns, 15008)
	if err != nil {
		t.Fatalf("a second listener on the port: %v", err)
	}
	for _, ln := range second {
		ln.Close()
	}
	udp, err := inpod.ListenPacket(ns, 15008)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if _, err := inpod.ListenPacket(ns, 15008); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "15008") {
		t.Errorf("a second socket on the UDP port: %v", err)
	}
}

func TestListenWithoutIPv6(t *testing.T) {
	ns := fresh(t)
	if err := ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	}); err != nil {
		t.Fatal(err)
	}
	lns, err := inpod.Listen(ns, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, ln := range lns {
		ln.Close()
	}
	udp, err := inpod.ListenPacket(ns, 0)
	if err != nil {
		t.Fatal(err)
	}
	udp.Close()
}

// Delivery as the proxy does it: with the address of a client elsewhere.
func TestDialWithAForeignSource(t *testing.T) {
	ns := fresh(t)
	if err := redirect.Apply(ns, redirect.Config{}); err != nil {
		t.Fatal(err)
	}
	lns, err := inpod.Listen(ns, 8080)
	if err != nil {
		t.Fatal(err)
	}
	for i, tc := range []struct{ src, dst string }{{"10.9.9.9", "192.0.2.1:8080"}, {"fd00::99", "[2001:db8::1]:8080"}} {
		defer lns[i].Close()
		// Answers to a foreign address need a route before the mark leads them
		// back; a pod has its default route for that.
		if err := ns.Do(func() error { return dummyRoute(tc.src) }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := inpod.NewDialer(ns).DialTCP(ctx, netip.MustParseAddr(tc.src), netip.MustParseAddrPort(tc.dst))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := lns[i].AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := s.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != netip.MustParseAddr(tc.src) {
			t.Errorf("the application sees %v, want %s", got, tc.src)
		}
		s.Write([]byte("x"))
		s.Close()
		c.SetDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(c); err != nil || string(b) != "x" {
			t.Errorf("got %q, %v", b, err)
		}
	}
}

// Programs that ask for Multipath TCP get TCP, and their original destination
// is known.
func TestMultipathClient(t *testing.T) {
	w := podtest.New(t)
	if err := redirect.Apply(w.Pod, redirect.Config{}); err != nil {
		t.Fatal(err)
	}
	lns, err := inpod.Listen(w.Pod, 15001)
	if err != nil {
		t.Fatal(err)
	}
	for _, ln := range lns {
		defer ln.Close()
	}
	dst := netip.AddrPortFrom(podtest.Peer4, 80)
	err = w.Pod.Do(func() error {
		d := net.Dialer{Timeout: patience}
		d.SetMultipathTCP(true)
		c, err := d.Dial("tcp", dst.String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := lns[0].AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := sockopt.OriginalDst(c); err != nil || got != dst {
		t.Errorf("original destination %v, %v; want %v", got, err, dst)
	}
}

func TestDialErrorsNameTheAddress(t *testing.T) {
	ns := fresh(t)
	d := inpod.NewDialer(ns)
	dst := netip.MustParseAddrPort("127.0.0.1:9")
	if _, err := d.DialTCP(t.Context(), netip.Addr{}, dst); !errors.Is(err, unix.ECONNREFUSED) || !strings.Contains(err.Error(), "127.0.0.1:9") {
		t.Errorf("refused: %v", err)
	}
	if _, err := d.DialTCP(t.Context(), netip.Addr{}, netip.MustParseAddrPort("10.1.2.3:9")); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("unreachable: %v", err)
	}
	if _, err := d.DialTCP(t.Context(), netip.MustParseAddr("::2"), dst); err == nil {
		t.Error("families were mixed")
	}
	if _, err := d.DialTCP(t.Context(), netip.Addr{}, netip.AddrPort{}); err == nil {
		t.Error("dialled nothing")
	}
}

// A destination that never answers is given up when the context says so, and
// leaves no descriptor.
func TestDialEndsWithItsContext(t *testing.T) {
	ns := fresh(t)
	if err := ns.Do(func() error { return dummyRoute("10.1.2.3") }); err != nil {
		t.Fatal(err)
	}
	d := inpod.NewDialer(ns)
	dst := netip.MustParseAddrPort("10.1.2.3:80")
	d.DialTCP(t.Context(), netip.Addr{}, netip.MustParseAddrPort("127.0.0.1:9")) // descriptors that stay are open now
	before := openFDs(t)
	cause := errors.New("the client went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := d.DialTCP(ctx, netip.Addr{}, dst)
		done <- err
	}()
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	ctx2, cancel2 := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel2()
	if _, err := d.DialTCP(ctx2, netip.Addr{}, dst); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors were left open", after-before)
	}
}

// dummyRoute sends what goes to addr into a link that swallows everything.
func dummyRoute(addr string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName("dummy0")
	if err != nil {
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "dummy0"}, PeerName: "dummy1"}); err != nil {
			return err
		}
		if link, err = h.LinkByName("dummy0"); err != nil {
			return err
		}
		for _, own := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
			a, err := netlink.ParseAddr(own)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			if err := h.AddrAdd(link, a); err != nil {
				return err
			}
		}
		if err := h.LinkSetUp(link); err != nil {
			return err
		}
	}
	ip := netip.MustParseAddr(addr)
	dst := &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
	return h.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK})
}

func openFDs(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// The client over a real socket: its descriptors arrive and go.
func TestOverARealSocket(t *testing.T) {
	pod := fresh(t)
	path := filepath.Join(t.TempDir(), "zds.sock")
	ln, err := zds.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var seen netns.ID
	client, err := inpod.New(inpod.Config{Socket: path, Start: func(_ context.Context, p inpod.Pod) (inpod.Proxy, error) {
		seen = p.NS.ID()
		return nothing{}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	before := openFDs(t)
	go func() { done <- client.Run(ctx) }()
	agent, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	agent.SetReadDeadline(time.Now().Add(patience))
	if err := agent.ReceiveHello(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []zds.Request{
		&zds.Add{UID: "u", Info: inpod.Info{Name: "web", Namespace: "shop"}, NS: pod}, &zds.SnapshotSent{},
		&zds.Add{UID: "u", Info: inpod.Info{Name: "web", Namespace: "shop"}, NS: pod}, &zds.Del{UID: "u"},
	} {
		if err := agent.Send(r); err != nil {
			t.Fatal(err)
		}
		if err := agent.ReceiveAck(); err != nil {
			t.Fatalf("%T: %v", r, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if seen != pod.ID() {
		t.Errorf("started in %v, want %v", seen, pod.ID())
	}
	agent.Close()
	if after := openFDs(t); after > before {
		t.Errorf("%d descriptors were left open", after-before)
	}
}

type nothing struct{}

func (nothing) Drain(context.Context) {}

func BenchmarkDial(b *testing.B) {
	ns := fresh(b)
	lns, err := inpod.Listen(ns, 0)
	if err != nil {
		b.Fatal(err)
	}
	dst := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), lns[0].Addr().(*net.TCPAddr).AddrPort().Port())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := lns[0].Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	d := inpod.NewDialer(ns)
	b.ReportAllocs()
	for b.Loop() {
		c, err := d.DialTCP(b.Context(), netip.Addr{}, dst)
		if err != nil {
			b.Fatal(err)
		}
		c.SetLinger(0) // no TIME_WAIT, or the ports run out
		c.Close()
	}
	for _, ln := range lns {
		ln.Close()
	}
	<-done
}
