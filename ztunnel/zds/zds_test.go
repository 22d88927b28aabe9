package zds_test

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	apizds "github.com/tulle-mesh/tulle/api/zds"
	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var web = zds.Info{Name: "web-0", Namespace: "shop", ServiceAccount: "web"}

// pair returns the agent's end and a plain socket in the proxy's place, or the
// other way round: the protocol is symmetric below its messages.
func pair(t testing.TB) (*zds.Conn, *net.UnixConn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := zds.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	bound := time.Now().Add(30 * time.Second)
	c.SetReadDeadline(bound)
	raw.SetDeadline(bound)
	return c, raw
}

// connected returns two real ends.
func connected(t testing.TB) (agent, proxy *zds.Conn) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40)) // longer than a socket address
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	ln, err := zds.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if proxy, err = zds.Dial(context.Background(), path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	if agent, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	bound := time.Now().Add(30 * time.Second)
	agent.SetReadDeadline(bound)
	proxy.SetReadDeadline(bound)
	return agent, proxy
}

func own(t testing.TB) *netns.NS {
	t.Helper()
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func openFDs(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestConversation(t *testing.T) {
	agent, proxy := connected(t)
	ns := own(t)
	if err := proxy.SendHello(); err != nil {
		t.Fatal(err)
	}
	if err := agent.ReceiveHello(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []zds.Request{
		&zds.Add{UID: "uid-1", Info: web, NS: ns}, &zds.Keep{UID: "uid-2"}, &zds.SnapshotSent{}, &zds.Del{UID: "uid-1"},
	} {
		if err := agent.Send(want); err != nil {
			t.Fatal(err)
		}
		got, err := proxy.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch want := want.(type) {
		case *zds.Add:
			got := got.(*zds.Add)
			if got.UID != want.UID || got.Info != want.Info || got.NS.ID() != ns.ID() || got.NS.FD() == ns.FD() {
				t.Errorf("got %+v, want %+v", got, want)
			}
			got.NS.Close()
		case *zds.Keep:
			if *got.(*zds.Keep) != *want {
				t.Errorf("got %+v", got)
			}
		case *zds.Del:
			if *got.(*zds.Del) != *want {
				t.Errorf("got %+v", got)
			}
		case *zds.SnapshotSent:
			if _, ok := got.(*zds.SnapshotSent); !ok {
				t.Errorf("got %T", got)
			}
		}
		if err := proxy.SendAck(nil); err != nil {
			t.Fatal(err)
		}
		if err := agent.ReceiveAck(); err != nil {
			t.Fatal(err)
		}
	}
	if err := proxy.SendAck(errors.New("no room")); err != nil {
		t.Fatal(err)
	}
	var refused *zds.RefusedError
	if err := agent.ReceiveAck(); !errors.As(err, &refused) || refused.Reason != "no room" {
		t.Errorf("got %v", err)
	}
	agent.Close()
	if _, err := proxy.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the agent closed: %v", err)
	}
}

// The bytes that Istio's agent and proxy send.
func TestBytesOnTheWire(t *testing.T) {
	c, raw := pair(t)
	read := func() string {
		buf, oob := make([]byte, 2048), make([]byte, 64)
		n, oobn, _, _, err := raw.ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		if msgs, _ := unix.ParseSocketControlMessage(oob[:oobn]); len(msgs) == 1 {
			fds, _ := unix.ParseUnixRights(&msgs[0])
			for _, fd := range fds {
				unix.Close(fd)
			}
			return hex.EncodeToString(buf[:n]) + " + descriptor"
		}
		return hex.EncodeToString(buf[:n])
	}
	for _, tc := range []struct {
		send func() error
		want string
	}{
		{c.SendHello, "0801"},
		{func() error { return c.SendAck(nil) }, "0a00"},
		{func() error { return c.SendAck(errors.New("x")) }, "0a030a0178"},
		{func() error { return c.Send(&zds.SnapshotSent{}) }, "1a00"},
		{func() error { return c.Send(&zds.Keep{UID: "u"}) }, "2a030a0175"},
		{func() error { return c.Send(&zds.Del{UID: "u"}) }, "1203120175"},
		{func() error {
			return c.Send(&zds.Add{UID: "u", Info: zds.Info{Name: "a", Namespace: "b", ServiceAccount: "c"}, NS: own(t)})
		}, "0a0e0a017512090a01611201621a0163 + descriptor"},
	} {
		if err := tc.send(); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != tc.want {
			t.Errorf("sent %s, want %s", got, tc.want)
		}
	}
}

func addBytes(t testing.TB, uid string, info zds.Info) []byte {
	t.Helper()
	b, err := proto.Marshal(&apizds.WorkloadRequest{Payload: &apizds.WorkloadRequest_Add{Add: &apizds.AddWorkload{
		Uid: uid, WorkloadInfo: &apizds.WorkloadInfo{Name: info.Name, Namespace: info.Namespace, ServiceAccount: info.ServiceAccount},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWrongMessagesAreRefusedAndLeaveNoDescriptor(t *testing.T) {
	ns, null := own(t), mustOpen(t, "/dev/null")
	keep, _ := proto.Marshal(&apizds.WorkloadRequest{Payload: &apizds.WorkloadRequest_Keep{Keep: &apizds.KeepWorkload{Uid: "u"}}})
	good := addBytes(t, "u", web)
	many := make([]int, 12)
	for i := range many {
		many[i] = ns.FD()
	}
	for _, tc := range []struct {
		name     string
		data     []byte
		fds      []int
		goesOn   bool // a RequestError, after which the connection is still good
		contains string
	}{
		{"add without a descriptor", good, nil, false, "0 descriptors"},
		{"add with two", good, []int{ns.FD(), ns.FD()}, false, "2 descriptors"},
		{"add with too many to take", good, many, false, "descriptors"},
		{"keep with a descriptor", keep, []int{ns.FD()}, false, "carries none"},
		{"garbage with a descriptor", []byte{0xff, 0xff}, []int{ns.FD()}, false, "does not decode"},
		{"unknown payload", []byte{0x3a, 0x00}, nil, false, "known payload"},
		{"too long", append(good, make([]byte, 1024)...), []int{ns.FD()}, false, "longer than 1024"},
		{"not a namespace", good, []int{null}, true, "not a namespace"},
		{"no name", addBytes(t, "u", zds.Info{Namespace: "shop"}), []int{ns.FD()}, true, "name is empty"},
		{"no uid", addBytes(t, "", web), []int{ns.FD()}, true, "uid is empty"},
		{"control characters", addBytes(t, "u", zds.Info{Name: "a\nb", Namespace: "shop"}), []int{ns.FD()}, true, "no name has"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, raw := pair(t)
			before := openFDs(t)
			if _, _, err := raw.WriteMsgUnix(tc.data, unix.UnixRights(tc.fds...), nil); err != nil {
				t.Fatal(err)
			}
			got, err := c.Receive()
			var broken *zds.ProtocolError
			var refused *zds.RequestError
			if errors.As(err, &broken) == tc.goesOn || errors.As(err, &refused) != tc.goesOn {
				t.Fatalf("got %v (%T), %v", got, got, err)
			}
			if !strings.Contains(err.Error(), tc.contains) {
				t.Errorf("the error %q does not say %q", err, tc.contains)
			}
			if after := openFDs(t); after != before {
				t.Errorf("%d descriptors were left open", after-before)
			}
		})
	}
}

func TestAckAndHelloWithDescriptorsAreRefused(t *testing.T) {
	ns := own(t)
	for _, receive := range []func(*zds.Conn) error{(*zds.Conn).ReceiveAck, (*zds.Conn).ReceiveHello} {
		c, raw := pair(t)
		before := openFDs(t)
		if _, _, err := raw.WriteMsgUnix([]byte{0x0a, 0x00}, unix.UnixRights(ns.FD()), nil); err != nil {
			t.Fatal(err)
		}
		var broken *zds.ProtocolError
		if err := receive(c); !errors.As(err, &broken) {
			t.Errorf("got %v", err)
		}
		if after := openFDs(t); after != before {
			t.Errorf("%d descriptors were left open", after-before)
		}
	}
}

func TestHelloOfAnotherVersionIsRefused(t *testing.T) {
	for _, b := range [][]byte{{0x08, 0x02}, {0x10, 0x01}, {0xff}} {
		c, raw := pair(t)
		raw.Write(b)
		var broken *zds.ProtocolError
		if err := c.ReceiveHello(); !errors.As(err, &broken) {
			t.Errorf("hello %x: %v", b, err)
		}
	}
}

func TestSendRefusesWhatNoPodIsCalled(t *testing.T) {
	c, _ := pair(t)
	ns := own(t)
	for _, add := range []*zds.Add{
		{Info: web, NS: ns},
		{UID: "u", Info: zds.Info{Name: strings.Repeat("a", 254), Namespace: "b"}, NS: ns},
		{UID: "u", Info: zds.Info{Name: "a", Namespace: "b c"}, NS: ns},
	} {
		var refused *zds.RequestError
		if err := c.Send(add); !errors.As(err, &refused) {
			t.Errorf("Send(%+v): %v", add.Info, err)
		}
	}
	closed, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if err := c.Send(&zds.Add{UID: "u", Info: web, NS: closed}); !errors.Is(err, netns.ErrClosed) {
		t.Errorf("Send with a closed namespace: %v", err)
	}
}

func TestTheLargestNamesFitADatagram(t *testing.T) {
	agent, proxy := connected(t)
	long := strings.Repeat("n", 253)
	add := &zds.Add{UID: strings.Repeat("u", 128), Info: zds.Info{Name: long, Namespace: long, ServiceAccount: long}, NS: own(t)}
	if err := agent.Send(add); err != nil {
		t.Fatal(err)
	}
	got, err := proxy.Receive()
	if err != nil {
		t.Fatal(err)
	}
	got.(*zds.Add).NS.Close()
}

func TestLongErrorIsCutToFit(t *testing.T) {
	agent, proxy := connected(t)
	if err := proxy.SendAck(errors.New(strings.Repeat("ü", 5000) + "\xff")); err != nil {
		t.Fatal(err)
	}
	var refused *zds.RefusedError
	if err := agent.ReceiveAck(); !errors.As(err, &refused) || len(refused.Reason) < 900 {
		t.Errorf("got %v", err)
	}
}

func TestSocketIsPrivateAndReplacedAndRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := zds.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	second, err := zds.Listen(path)
	if err != nil {
		t.Fatalf("a left-over socket is in the way: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the first listener removed the second's socket: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func mustOpen(t testing.TB, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// Every prefix of a message is refused or is a shorter message, and none
// leaves a descriptor.
func TestTruncatedMessages(t *testing.T) {
	c, raw := pair(t)
	ns := own(t)
	whole := addBytes(t, "uid-1", web)
	before := openFDs(t)
	for n := 1; n < len(whole); n++ {
		if _, _, err := raw.WriteMsgUnix(whole[:n], unix.UnixRights(ns.FD()), nil); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Receive(); err == nil {
			t.Errorf("%d of %d bytes were taken for %+v", n, len(whole), got)
		}
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors were left open", after-before)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(addBytes(f, "uid-1", web), true)
	f.Add([]byte{0x1a, 0x00}, false)
	f.Add([]byte{0x2a, 0x03, 0x0a, 0x01, 0x75}, false)
	f.Add([]byte{0x12, 0x03, 0x12, 0x01, 0x75}, true)
	c, raw := pair(f)
	ns := own(f)
	f.Fuzz(func(t *testing.T, b []byte, withFD bool) {
		if len(b) == 0 || len(b) > 4096 {
			return // an empty datagram is the end of the connection
		}
		bound := time.Now().Add(30 * time.Second)
		c.SetReadDeadline(bound)
		raw.SetDeadline(bound)
		var oob []byte
		if withFD {
			oob = unix.UnixRights(ns.FD())
		}
		for _, receive := range []func() error{
			func() error {
				r, err := c.Receive()
				if add, ok := r.(*zds.Add); ok {
					if !withFD || add.UID == "" || add.Info.Name == "" {
						t.Errorf("accepted %+v", add)
					}
					add.NS.Close()
				}
				return err
			}, c.ReceiveAck, c.ReceiveHello,
		} {
			before := openFDs(t)
			if _, _, err := raw.WriteMsgUnix(b, oob, nil); err != nil {
				t.Fatal(err)
			}
			if err := receive(); errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			if after := openFDs(t); after != before {
				t.Fatalf("%d descriptors were left open", after-before)
			}
		}
	})
}
