package app

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/relay"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/ztunnel/config"
)

// greet tells the client whom the server sees, before the client says a word.
func greet(c *net.TCPConn) {
	fmt.Fprintf(c, "%s", c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
}

// echo sends back what it reads until the client's half-close.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

func readAll(t *testing.T, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	_ = c.Close()
	return string(b)
}

// refused checks that the connection is reset and not a byte comes.
func refused(t *testing.T, c net.Conn) {
	t.Helper()
	b, err := io.ReadAll(c)
	if len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %q, %v; want a reset", b, err)
	}
}

// refusedDial checks that an application in the pod cannot connect: the
// connection is reset, perhaps before connect has returned.
func (w *world) refusedDial(p *testPod, dst netip.AddrPort, opts ...sockopt.Option) {
	w.t.Helper()
	var c net.Conn
	err := p.ns.Do(func() error {
		d := net.Dialer{Timeout: patience, Control: sockopt.Control(opts...)}
		var err error
		c, err = d.Dial("tcp", dst.String())
		return err
	})
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	w.must(err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	refused(w.t, c)
}

func carriers(t *testing.T, f func(t *testing.T, carrier config.Carrier)) {
	for _, c := range []config.Carrier{config.CarrierH2, config.CarrierH3} {
		t.Run(string(c), func(t *testing.T) { f(t, c) })
	}
}

func TestPodsTalkAcrossNodes(t *testing.T) {
	carriers(t, func(t *testing.T, carrier config.Carrier) {
		w := newWorld(t, carrier)
		client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
		w.serve(server, 7001, greet)
		w.serve(server, 7002, echo)

		for _, dst := range []netip.Addr{server.v4, server.v6} {
			want := client.v4
			if dst.Is6() {
				want = client.v6
			}
			if got := readAll(t, w.dial(client, netip.AddrPortFrom(dst, 7001))); got != want.String() {
				t.Errorf("the server sees %q, want %v", got, want)
			}
		}
		for _, direction := range []string{"outbound", "inbound"} {
			line := w.logged("connection complete", `direction="`+direction+`"`, `src.identity="spiffe://cluster.local/ns/shop/sa/client"`,
				`dst.identity="spiffe://cluster.local/ns/shop/sa/server"`, `dst.hbone_addr=`+server.at(7001).String())
			if strings.Contains(line, "error=") {
				t.Errorf("error in %s", line)
			}
		}

		c := w.dial(client, server.at(7002))
		payload := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
		go func() {
			_, _ = c.Write(payload)
			_ = c.CloseWrite()
		}()
		h := sha256.New()
		n, err := io.Copy(h, c)
		if want := sha256.Sum256(payload); err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
			t.Errorf("echo of %d bytes: %d came back, %v", len(payload), n, err)
		}
	})
}

func TestServiceAddressIsBalancedToItsPods(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	client := w.meshPod("client", "n1")
	vip := netip.MustParseAddr("10.99.0.1")
	w.service(&api.Service{
		Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local",
		Addresses: []*api.NetworkAddress{{Address: vip.AsSlice()}},
		Ports:     []*api.Port{{ServicePort: 80, TargetPort: 7001}},
	})
	seen := map[string]bool{}
	for _, name := range []string{"web-1", "web-2"} {
		p := w.addPod(name, "n2")
		wl := w.workload(p, api.TunnelProtocol_HBONE)
		wl.Services = map[string]*api.PortList{"shop/web.shop.svc.cluster.local": {Ports: []*api.Port{{ServicePort: 80, TargetPort: 7001}}}}
		w.announce(wl)
		w.enrol(p)
		w.serve(p, 7001, func(c *net.TCPConn) { fmt.Fprint(c, name) })
	}
	for range 200 {
		seen[readAll(t, w.dial(client, netip.AddrPortFrom(vip, 80)))] = true
		if len(seen) == 2 {
			break
		}
	}
	if !seen["web-1"] || !seen["web-2"] {
		t.Errorf("answers came from %v only", seen)
	}
	w.logged(`direction="inbound"`, `dst.service="web.shop.svc.cluster.local"`)
}

func TestPodReachesItselfThroughItsService(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	vip := netip.MustParseAddr("10.99.0.2")
	port := []*api.Port{{ServicePort: 80, TargetPort: 7001}}
	w.service(&api.Service{
		Name: "self", Namespace: "shop", Hostname: "self.shop.svc.cluster.local",
		Addresses: []*api.NetworkAddress{{Address: vip.AsSlice()}}, Ports: port,
	})
	pod := w.addPod("self", "n1")
	wl := w.workload(pod, api.TunnelProtocol_HBONE)
	wl.Services = map[string]*api.PortList{"shop/self.shop.svc.cluster.local": {Ports: port}}
	w.announce(wl)
	w.enrol(pod)
	w.serve(pod, 7001, greet)
	for _, dst := range []netip.AddrPort{netip.AddrPortFrom(vip, 80), pod.at(7001)} {
		if got := readAll(t, w.dial(pod, dst)); got != pod.v4.String() {
			t.Errorf("to %v: the server sees %q, want %v", dst, got, pod.v4)
		}
	}
}

func TestServiceOfOneFamilyHasEndpointOfTheOther(t *testing.T) {
	for _, node := range []string{"n1", "n2"} {
		t.Run("client on n1, server on "+node, func(t *testing.T) {
			w := newWorld(t, config.CarrierH2)
			client, server := w.meshPod("client", "n1"), w.addPod("server", node)
			port := []*api.Port{{ServicePort: 80, TargetPort: 7001}}
			vip := netip.MustParseAddr("10.99.0.3")
			w.service(&api.Service{
				Name: "six", Namespace: "shop", Hostname: "six.shop.svc.cluster.local",
				Addresses: []*api.NetworkAddress{{Address: vip.AsSlice()}}, Ports: port,
			})
			wl := w.workload(server, api.TunnelProtocol_HBONE)
			wl.Addresses = [][]byte{server.v6.AsSlice()}
			wl.Services = map[string]*api.PortList{"shop/six.shop.svc.cluster.local": {Ports: port}}
			w.announce(wl)
			w.enrol(server)
			w.serve(server, 7001, greet)
			if got := readAll(t, w.dial(client, netip.AddrPortFrom(vip, 80))); got != client.v6.String() {
				t.Errorf("the server sees %q, want %v", got, client.v6)
			}
		})
	}
}

func TestServerThatSpeaksFirstIsHeardWithoutAWordOfTheClient(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
	w.serve(server, 7004, func(c *net.TCPConn) {
		fmt.Fprint(c, "220 ready\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	c := w.dial(client, server.at(7004))
	got := make([]byte, 11)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "220 ready\r\n" {
		t.Errorf("%q, %v", got, err)
	}
	_ = c.Close()
	w.logged(`direction="outbound"`, "bytes_sent=0 bytes_recv=11")
	w.logged(`direction="inbound"`, "bytes_sent=11 bytes_recv=0")
}

func TestPodsOfOneNodeAreJoinedWithoutATunnel(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		t.Run(fmt.Sprintf("encrypt=%v", encrypt), func(t *testing.T) {
			w := newWorld(t, config.CarrierH2, func(c *config.Config) { c.SameNodeEncrypt = encrypt })
			client, server := w.meshPod("client", "n1"), w.meshPod("server", "n1")
			w.serve(server, 7001, greet)
			if got := readAll(t, w.dial(client, server.at(7001))); got != client.v4.String() {
				t.Errorf("the server sees %q, want %v", got, client.v4)
			}
			carrier := "local"
			if encrypt {
				carrier = "h2"
			}
			for _, direction := range []string{"outbound", "inbound"} {
				w.logged(`direction="`+direction+`"`, `carrier="`+carrier+`"`, `src.identity="spiffe://cluster.local/ns/shop/sa/client"`)
			}
			w.policy(denyClient("no-client", "client"))
			w.refusedDial(client, server.at(7001))
			w.logged(`direction="inbound"`, "error=", "shop/no-client")
		})
	}
}

func TestOutsideOfTheMesh(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	in, out := w.meshPod("in", "n1"), w.addPod("out", "n2")
	w.serve(in, 7001, greet)
	w.serve(out, 7001, greet)
	if got := readAll(t, w.dial(in, out.at(7001))); got != in.v4.String() {
		t.Errorf("outwards: the server sees %q, want %v", got, in.v4)
	}
	if got := readAll(t, w.dial(out, in.at(7001))); got != out.v4.String() {
		t.Errorf("inwards: the server sees %q, want %v", got, out.v4)
	}
	// STRICT, as the control plane writes it: no connection without identity.
	w.policy(denyClient("converted_peer_authentication_strict", ""))
	w.refusedDial(out, in.at(7001))
	w.logged(`direction="inbound"`, "error=", "converted_peer_authentication_strict")
}

func TestPlaintextOfAnEnrolledPodIsRefused(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
	w.serve(server, 7001, greet)
	// A program with CAP_NET_ADMIN may step around its own capture.
	w.refusedDial(client, server.at(7001), sockopt.Mark(sockopt.MarkProxy))
	w.logged(`direction="inbound"`, "error=", "has to use mutual TLS")
}

func TestProxyPortsAreNoDestination(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	pod, other := w.meshPod("pod", "n1"), w.addPod("other", "n2")
	w.refusedDial(pod, netip.MustParseAddrPort("127.0.0.1:15001"))
	w.logged("connection failed", "15001 itself")
	w.refusedDial(other, pod.at(15001))
}

func TestPolicyChangeCutsLiveConnection(t *testing.T) {
	carriers(t, func(t *testing.T, carrier config.Carrier) {
		w := newWorld(t, carrier)
		client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
		w.serve(server, 7002, echo)
		c := w.dial(client, server.at(7002))
		for range 3 {
			if _, err := c.Write([]byte("ping")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
		}
		w.policy(denyClient("no-client", "client"))
		refused(t, c)
		w.logged(`direction="inbound"`, "error=", `policy="shop/no-client"`)
	})
}

// A client is who its node says it is, announced or not.
func TestClientThatIsNotAnnouncedIsNotHeld(t *testing.T) {
	w := newWorld(t, config.CarrierH2, func(c *config.Config) { c.WorkloadWait = patience })
	server, client := w.meshPod("server", "n2"), w.addPod("client", "n1")
	w.serve(server, 7001, greet)
	w.enrol(client)
	if got := readAll(t, w.dial(client, server.at(7001))); got != client.v4.String() {
		t.Errorf("the server sees %q", got)
	}
	w.logged("connection complete", `direction="inbound"`, `src.identity="spiffe://cluster.local/ns/shop/sa/client"`)
}

// A server is, because its policies are not known.
func TestServerThatIsNotAnnouncedHoldsConnections(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	client, server := w.addPod("client", "n1"), w.addPod("server", "n2")
	w.serve(server, 7001, greet)
	w.enrol(server)
	c := w.dial(client, server.at(7001))
	w.announce(w.workload(server, api.TunnelProtocol_HBONE))
	if got := readAll(t, c); got != client.v4.String() {
		t.Errorf("the server sees %q", got)
	}
}

func TestServerThatIsNeverAnnouncedRefusesWithAReason(t *testing.T) {
	w := newWorld(t, config.CarrierH2, func(c *config.Config) { c.WorkloadWait = 50 * time.Millisecond })
	client, server := w.addPod("client", "n1"), w.addPod("server", "n2")
	w.serve(server, 7001, greet)
	w.enrol(server)
	w.refusedDial(client, server.at(7001))
	w.logged("connection failed", `direction="inbound"`, "not announced")
}

func TestResetIsCarried(t *testing.T) {
	carriers(t, func(t *testing.T, carrier config.Carrier) {
		w := newWorld(t, carrier)
		client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
		seen := make(chan error, 1)
		w.serve(server, 7003, func(c *net.TCPConn) {
			_, _ = c.Write([]byte("x"))
			_, err := io.ReadAll(c)
			seen <- err
		})
		c := w.dial(client, server.at(7003))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		relay.Reset(c)
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server saw %v, want a reset", err)
		}
	})
}

func TestApplicationThatDoesNotListenIsAReset(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
	w.refusedDial(client, server.at(7999))
	w.logged(`direction="inbound"`, "connect to the application", "connection refused")
	w.logged(`direction="outbound"`, "http status: 503")
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestPodLeavesNothingBehind(t *testing.T) {
	carriers(t, func(t *testing.T, carrier config.Carrier) {
		w := newWorld(t, carrier)
		client, server := w.addPod("client", "n1"), w.meshPod("server", "n2")
		w.serve(server, 7001, greet)
		w.announce(w.workload(client, api.TunnelProtocol_HBONE))
		var after []int
		for range 3 {
			w.enrol(client)
			for range 5 {
				readAll(t, w.dial(client, server.at(7001)))
			}
			client.proxy.Drain(t.Context())
			if n := len(client.node.certificates.Status()); n != 0 {
				t.Errorf("%d certificates are held after the pod left", n)
			}
			after = append(after, descriptors(t))
		}
		// The first round may fill pools of the process.
		if after[2] > after[1]+2 {
			t.Errorf("descriptors after each round: %v", after)
		}
	})
}

func TestDrainLetsConnectionsFinishAndCutsTheRest(t *testing.T) {
	w := newWorld(t, config.CarrierH2, func(c *config.Config) { c.DrainDeadline = 5 * time.Second })
	client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
	w.serve(server, 7002, echo)
	finishing, stuck := w.dial(client, server.at(7002)), w.dial(client, server.at(7002))
	for _, c := range []net.Conn{finishing, stuck} {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); server.proxy.Drain(t.Context()) }()
	<-drainBegun(server)
	if _, err := finishing.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	_ = finishing.CloseWrite()
	if got := readAll(t, finishing); got != "last" {
		t.Errorf("finishing connection got %q", got)
	}
	refused(t, stuck)
	<-done
	w.logged(`direction="inbound"`, "drain deadline passed")
}

func drainBegun(p *testPod) <-chan struct{} { return p.proxy.(listed).drain.Draining() }
