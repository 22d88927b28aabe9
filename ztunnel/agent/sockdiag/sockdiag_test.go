package sockdiag_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/agent/sockdiag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func list(t *testing.T, ns *netns.NS) []sockdiag.Socket {
	t.Helper()
	all, err := sockdiag.List(ns)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestListSeesConnectionsOfTheNamespaceOnly(t *testing.T) {
	w := podtest.New(t)
	in, out := w.Pod, w.Peer
	for _, at := range []netip.Addr{podtest.Peer4, podtest.Peer6} {
		c, _ := podtest.Connect(t, in, out, netip.AddrPortFrom(at, 0), sockopt.Mark(sockopt.MarkProxy))
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
			t.Errorf("the connection to %v was found %d times", at, found)
		}
	}
	if n := len(list(t, in)); n != 2 {
		t.Errorf("%d connections in the namespace, want 2", n)
	}
}

func TestDestroyResetsBothEnds(t *testing.T) {
	w := podtest.New(t)
	in, out := w.Pod, w.Peer
	for _, at := range []netip.Addr{podtest.Peer4, podtest.Peer6} {
		c, s := podtest.Connect(t, in, out, netip.AddrPortFrom(at, 0))
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
	half := socket("10.0.0.2:40009", "10.0.0.9:80", 0)
	half.State = sockdiag.CloseWait
	dead := socket("10.0.0.2:40010", "10.0.0.9:80", 0)
	dead.State = sockdiag.CloseWait
	remains := socket("127.0.0.1:15001", "10.0.0.2:40010", 0)
	remains.State = sockdiag.FinWait2
	got := sockdiag.Bypassing([]sockdiag.Socket{
		old, oldIn, half,
		// captured, by a proxy that was killed
		dead, remains,
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
	if !slices.Equal(got, []sockdiag.Socket{old, oldIn, half}) {
		t.Errorf("got %+v", got)
	}
}

// message is an inet_diag_msg of an IPv4 connection with the mark 0x539.
func message() []byte {
	b := make([]byte, 80)
	b[0], b[1] = unix.AF_INET, byte(sockdiag.Established)
	binary.BigEndian.PutUint16(b[4:], 40000)
	binary.BigEndian.PutUint16(b[6:], 80)
	copy(b[8:], []byte{10, 0, 0, 2})
	copy(b[24:], []byte{10, 0, 0, 9})
	binary.NativeEndian.PutUint16(b[72:], 8)
	binary.NativeEndian.PutUint16(b[74:], 15)
	binary.NativeEndian.PutUint32(b[76:], sockopt.MarkProxy)
	return b
}

func TestDecode(t *testing.T) {
	b := message()
	s, err := sockdiag.Decode(b)
	if err != nil || s.Local.String() != "10.0.0.2:40000" || s.Remote.String() != "10.0.0.9:80" || s.Mark != sockopt.MarkProxy {
		t.Errorf("got %+v, %v", s, err)
	}
	for n := range b {
		if s, err := sockdiag.Decode(b[:n]); n < 72 && err == nil {
			t.Errorf("%d of %d bytes were taken for %+v", n, len(b), s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(message())
	f.Fuzz(func(t *testing.T, b []byte) { sockdiag.Decode(b) })
}
