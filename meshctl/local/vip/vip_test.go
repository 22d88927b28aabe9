package vip_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/meshctl/local/vip"
)

// host makes a namespace with one address of each family, to which everything
// else is routed.
func host(t *testing.T) *netns.NS {
	t.Helper()
	roottest.Require(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.AddrAdd(lo, addr); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"10.96.0.0/16", "fd00:10:96::/112"} {
		_, to, _ := net.ParseCIDR(text)
		if err := h.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: to}); err != nil {
			t.Fatal(err)
		}
	}
	return ns
}

// listen accepts and closes; it returns the address.
func listen(t *testing.T, ns *netns.NS, ip string) netip.AddrPort {
	t.Helper()
	var ln net.Listener
	err := ns.Do(func() (err error) {
		ln, err = net.Listen("tcp", net.JoinHostPort(ip, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.LocalAddr())
			c.Close()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// ask connects to a virtual address and returns who answered.
func ask(ns *netns.NS, to netip.AddrPort) (answer string, err error) {
	err = ns.Do(func() error {
		c, err := net.DialTimeout("tcp", to.String(), 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * time.Second))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		answer = string(buf[:n])
		return err
	})
	return answer, err
}

func TestConnectionsReachEveryBackendAndOnlyThose(t *testing.T) {
	ns := host(t)
	for _, family := range []struct{ ip, vip string }{{"192.0.2.1", "10.96.0.7"}, {"2001:db8::1", "fd00:10:96::7"}} {
		a, b, c := listen(t, ns, family.ip), listen(t, ns, family.ip), listen(t, ns, family.ip)
		to := netip.AddrPortFrom(netip.MustParseAddr(family.vip), 80)
		cfg := vip.Config{
			Forwards: []vip.Forward{{VIP: to, Backends: []netip.AddrPort{a, b, c}}},
			Gateway4: netip.MustParseAddr("192.0.2.1"), Gateway6: netip.MustParseAddr("2001:db8::1"),
		}
		for range 2 { // idempotent
			if err := vip.Apply(ns, cfg); err != nil {
				t.Fatal(err)
			}
		}
		seen := map[string]int{}
		for range 200 {
			answer, err := ask(ns, to)
			if err != nil {
				t.Fatal(err)
			}
			seen[answer]++
			if len(seen) == 3 {
				break
			}
		}
		for _, backend := range []netip.AddrPort{a, b, c} {
			if seen[backend.String()] == 0 {
				t.Errorf("%v was never reached: %v", backend, seen)
			}
		}
		if _, err := ask(ns, netip.AddrPortFrom(to.Addr(), 81)); err == nil {
			t.Error("another port of the virtual address answers")
		}
		cfg.Forwards[0].Backends = []netip.AddrPort{b}
		if err := vip.Apply(ns, cfg); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if answer, err := ask(ns, to); err != nil || answer != b.String() {
				t.Errorf("%q answers (%v), want %v alone", answer, err, b)
			}
		}
		if err := vip.Apply(ns, vip.Config{}); err != nil {
			t.Fatal(err)
		}
		if _, err := ask(ns, to); err == nil {
			t.Error("the virtual address answers without a service")
		}
	}
}
