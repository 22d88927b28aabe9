package sockdiag_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/ztunnel/agent/sockdiag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// pod is a namespace with the addresses 10.66.0.2 and fd66::2, linked to a peer
// with 10.66.0.1 and fd66::1.
func pod(t *testing.T) (pod, peer *netns.NS) {
	t.Helper()
	roottest.Require(t)
	var both [2]*netns.NS
	for i := range both {
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		both[i] = ns
	}
	addresses := func(addrs ...string) error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, s := range addrs {
			a, err := netlink.ParseAddr(s)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			if err := h.AddrAdd(link, a); err != nil {
				return err
			}
		}
		return h.LinkSetUp(link)
	}
	err := both[0].Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(both[1].FD())}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return addresses("10.66.0.2/24", "fd66::2/64")
	})
	if err == nil {
		err = both[1].Do(func() error { return addresses("10.66.0.1/24", "fd66::1/64") })
	}
	if err != nil {
		t.Fatal(err)
	}
	return both[0], both[1]
}

// connect opens a connection from one namespace to another.
func connect(t *testing.T, from, to *netns.NS, at string, opts ...sockopt.Option) (client, server net.Conn) {
	t.Helper()
	var ln net.Listener
	err := to.Do(func() error {
		var err error
		ln, err = net.Listen("tcp", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = from.Do(func() error {
		d := net.Dialer{Timeout: patience, Control: sockopt.Control(opts...)}
		var err error
		client, err = d.DialContext(context.Background(), "tcp", ln.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{client, server} {
		c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { c.Close() })
	}
	return client, server
}

func list(t *testing.T, ns *netns.NS) []sockdiag.Socket {
	t.Helper()
	all, err := sockdiag.List(ns)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestListSeesConnectionsOfTheNamespaceOnly(t *testing.T) {
	in, out := pod(t)
	for _, at := range []string{"10.66.0.1:0", "[fd66::1]:0"} {
		c, _ := connect(t, in, out, at, sockopt.Mark(sockopt.MarkProxy))
		found := 0
		for _, s := range list(t, in) {
			if s.Local.String() == c.LocalAddr().String() && s.Remote.String() == c.RemoteAddr().String() {
				found++
				if s.Mark != sockopt.MarkProxy || s.State != sockdiag.Established || s.Cookie == 0 {
					t.Errorf("%+v", s)
				}
			}
		}
		if found != 1 {
			t.Errorf("the connection to %s was found %d times", at, found)
		}
	}
	if n := len(list(t, in)); n != 2 {
		t.Errorf("%d connections in the namespace, want 2", n)
	}
}

func TestDestroyResetsBothEnds(t *testing.T) {
	in, out := pod(t)
	for _, at := range []string{"10.66.0.1:0", "[fd66::1]:0"} {
		c, s := connect(t, in, out, at)
		for _, sock := range list(t, in) {
			if err := sockdiag.Destroy(in, sock); err != nil {
				t.Fatal(err)
			}
			if err := sockdiag.Destroy(in, sock); err != nil {
				t.Errorf("once more: %v", err)
			}
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("the pod's end: %v", err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("the other end: %v", err)
		}
	}
}

func TestBypassing(t *testing.T) {
	socket := func(local, remote string, mark uint32) sockdiag.Socket {
		return sockdiag.Socket{
			Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote),
			State: sockdiag.Established, Mark: mark,
		}
	}
	proxy := uint32(sockopt.MarkProxy)
	old := socket("10.0.0.2:40001", "10.0.0.9:80", 0)
	oldIn := socket("10.0.0.2:8080", "10.0.0.9:50001", 0x1000)
	closing := socket("10.0.0.2:40009", "10.0.0.9:80", 0)
	closing.State = sockdiag.CloseWait
	got := sockdiag.Bypassing([]sockdiag.Socket{
		old, oldIn, closing,
		// outbound, captured: the application's end and the proxy's two
		socket("10.0.0.2:40002", "10.0.0.9:80", 0),
		socket("127.0.0.1:15001", "10.0.0.2:40002", proxy),
		socket("10.0.0.2:40003", "10.0.0.9:15008", proxy),
		// inbound, delivered with the client's address, and with the pod's own
		socket("10.0.0.2:8080", "10.0.0.9:50002", 0),
		socket("10.0.0.9:50002", "10.0.0.2:8080", proxy),
		// the pod with itself
		socket("127.0.0.1:40004", "127.0.0.1:8080", 0), socket("127.0.0.1:8080", "127.0.0.1:40004", 0),
		socket("10.0.0.2:40005", "10.0.0.2:8080", 0), socket("10.0.0.2:8080", "10.0.0.2:40005", 0),
		socket("10.0.0.2:40006", "10.0.1.2:8080", 0), socket("10.0.1.2:8080", "10.0.0.2:40006", 0), // two own addresses
	})
	if len(got) != 2 || got[0] != old || got[1] != oldIn {
		t.Errorf("got %+v", got)
	}
}
