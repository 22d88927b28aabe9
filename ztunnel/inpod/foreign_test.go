package inpod_test

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// What the proxy delivers with a client's address must not have a port that the
// client is likely to choose: its own connection from there would hang.
func TestForeignSourceLeavesTheClientsPortsToIt(t *testing.T) {
	w := podtest.New(t)
	if err := redirect.Apply(w.Pod, redirect.Config{}); err != nil {
		t.Fatal(err)
	}
	app, err := inpod.Listen(w.Pod, 8080)
	if err != nil {
		t.Fatal(err)
	}
	for _, ln := range app {
		defer ln.Close()
	}
	for _, tc := range []struct {
		src netip.Addr
		dst netip.AddrPort
	}{{podtest.Peer4, netip.AddrPortFrom(podtest.Pod4, 8080)}, {podtest.Peer6, netip.AddrPortFrom(podtest.Pod6, 8080)}} {
		used := map[uint16]bool{}
		for range 20 {
			port := foreignPort(t, inpod.NewDialer(w.Pod), tc.src, tc.dst)
			if port < 16384 || port >= 32768 {
				t.Errorf("port %d", port)
			}
			used[port] = true
		}
		if len(used) < 2 {
			t.Errorf("always the same port: %v", used)
		}
		// Others when all of them are taken.
		d := inpod.NewDialer(w.Pod)
		inpod.SetForeignPorts(d, 20000, 20000)
		if first, second := foreignPort(t, d, tc.src, tc.dst), foreignPort(t, d, tc.src, tc.dst); first != 20000 || second == 20000 {
			t.Errorf("ports %d and %d", first, second)
		}
	}
}

// foreignPort connects until the test ends, and returns the port that was chosen.
func foreignPort(t *testing.T, d *inpod.Dialer, src netip.Addr, dst netip.AddrPort) uint16 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := d.DialTCP(ctx, src, dst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	at := c.LocalAddr().(*net.TCPAddr).AddrPort()
	if at.Addr() != src {
		t.Errorf("from %v, want %v", at, src)
	}
	return at.Port()
}
