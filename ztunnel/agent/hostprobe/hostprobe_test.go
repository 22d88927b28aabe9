package hostprobe_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/ztunnel/agent/hostprobe"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

func TestMain(m *testing.M) {
	// The test binary is the probing process of another user, too.
	if to := os.Getenv("TULLE_TEST_DIAL"); to != "" {
		c, err := net.DialTimeout("tcp", to, podtest.Patience)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		c.SetDeadline(time.Now().Add(podtest.Patience))
		var name, local, remote string
		fmt.Fscan(c, &name, &local, &remote)
		fmt.Println(name, remote)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// node is a World whose peer is the node: probes go from it into the pod.
func node(t *testing.T) podtest.World {
	t.Helper()
	w := podtest.New(t)
	for _, a := range []netip.Addr{podtest.Pod4, podtest.Pod6} {
		podtest.Greet(t, w.Pod, "app", netip.AddrPortFrom(a, 8080))
	}
	return w
}

func probes(t *testing.T, ns *netns.NS) *hostprobe.Probes {
	t.Helper()
	p, err := hostprobe.New(hostprobe.Config{NS: ns, Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// seen is the address that the pod sees a connection of the node's root come from.
func seen(t *testing.T, from *netns.NS, to netip.Addr) netip.Addr {
	t.Helper()
	g, err := podtest.Call(t, from, netip.AddrPortFrom(to, 8080))
	if err != nil {
		t.Fatalf("call %v: %v", to, err)
	}
	return netip.MustParseAddrPort(g.Remote).Addr().Unmap()
}

func TestProbesComeFromTheirOwnAddress(t *testing.T) {
	w := node(t)
	p := probes(t, w.Peer)
	expect := func(when string, four, six netip.Addr) {
		t.Helper()
		if got := seen(t, w.Peer, podtest.Pod4); got != four {
			t.Errorf("%s: IPv4 probe from %v, want %v", when, got, four)
		}
		if got := seen(t, w.Peer, podtest.Pod6); got != six {
			t.Errorf("%s: IPv6 probe from %v, want %v", when, got, six)
		}
	}
	expect("no pod", podtest.Peer4, podtest.Peer6)
	if err := p.Set("u", []netip.Addr{podtest.Pod4, podtest.Pod6}); err != nil {
		t.Fatal(err)
	}
	expect("a pod", hostprobe.Source4, hostprobe.Source6)
	// Another pod got the address before the old one was forgotten.
	if err := p.Set("v", []netip.Addr{podtest.Pod4}); err != nil {
		t.Fatal(err)
	}
	if err := p.Delete("u"); err != nil {
		t.Fatal(err)
	}
	expect("IPv4 alone", hostprobe.Source4, podtest.Peer6)
	if err := p.Delete("v"); err != nil {
		t.Fatal(err)
	}
	expect("gone", podtest.Peer4, podtest.Peer6)
}

// A captured pod without a proxy refuses everybody but the kubelet.
func TestProbesReachACapturedPod(t *testing.T) {
	w := node(t)
	p := probes(t, w.Peer)
	if err := redirect.Apply(w.Pod, redirect.Config{ProbeSources: hostprobe.Sources()}); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(podtest.Pod4, 8080)
	if g, err := podtest.Call(t, w.Peer, to); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without rules: %+v, %v", g, err)
	}
	if err := p.Set("u", []netip.Addr{podtest.Pod4, podtest.Pod6}); err != nil {
		t.Fatal(err)
	}
	seen(t, w.Peer, podtest.Pod4)
	seen(t, w.Peer, podtest.Pod6)
	if out, err := asUser(t, w.Peer, 65534, to); err == nil {
		t.Errorf("another user of the node got through: %s", out)
	}
}

func TestOtherUsersAreNotTranslated(t *testing.T) {
	w := node(t)
	p := probes(t, w.Peer)
	if err := p.Set("u", []netip.Addr{podtest.Pod4}); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(podtest.Pod4, 8080)
	for uid, want := range map[uint32]netip.Addr{0: hostprobe.Source4, 65534: podtest.Peer4} {
		out, err := asUser(t, w.Peer, uid, to)
		if err != nil || !strings.Contains(out, want.String()+":") {
			t.Errorf("user %d: %s, %v; want %v", uid, out, err, want)
		}
	}
}

// asUser dials from a process of that user in ns.
func asUser(t *testing.T, ns *netns.NS, uid uint32, to netip.AddrPort) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Readable for everybody, which the folder of test binaries is not.
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "hostprobe")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/dial", b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(dir + "/dial")
	cmd.Env = append(os.Environ(), "TULLE_TEST_DIAL="+to.String())
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	return out.String(), err
}

// What kube-proxy led from a Service to the pod keeps the node's address.
func TestConnectionsToAServiceAreNotTranslated(t *testing.T) {
	w := node(t)
	p := probes(t, w.Peer)
	if err := p.Set("u", []netip.Addr{podtest.Pod4}); err != nil {
		t.Fatal(err)
	}
	nft := roottest.Program(t, "nft", "nftables")
	run(t, w.Peer, nft, `table ip services { chain output { type nat hook output priority -100; ip daddr 10.96.0.1 tcp dport 80 dnat to 10.77.0.2:8080; }; }`)
	run(t, w.Peer, "ip", "route add 10.96.0.0/16 via 10.77.0.2")
	g, err := podtest.Call(t, w.Peer, netip.MustParseAddrPort("10.96.0.1:80"))
	if err != nil || netip.MustParseAddrPort(g.Remote).Addr() != podtest.Peer4 {
		t.Errorf("came as %+v, %v; want from %v", g, err, podtest.Peer4)
	}
}

func run(t *testing.T, ns *netns.NS, program, args string) {
	t.Helper()
	cmd := exec.Command(roottest.Program(t, program), strings.Fields(args)...)
	if strings.HasSuffix(program, "nft") {
		cmd = exec.Command(program, args)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := ns.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, args, err, out.String())
	}
}

// A pod that takes the probe address cannot reach others through the node.
func TestProbeAddressFromOutsideIsDropped(t *testing.T) {
	w := node(t)
	podtest.Greet(t, w.Peer, "node", netip.AddrPortFrom(podtest.Peer4, 9090))
	run(t, w.Pod, "ip", "addr add 169.254.7.127/32 dev eth0")
	run(t, w.Peer, "ip", "route add 169.254.7.127/32 dev eth0")
	from := netip.AddrPortFrom(hostprobe.Source4, 0)
	to := netip.AddrPortFrom(podtest.Peer4, 9090)
	if _, err := podtest.CallFrom(t, w.Pod, from, to); err != nil {
		t.Fatalf("without rules: %v", err)
	}
	probes(t, w.Peer)
	err := w.Pod.Do(func() error {
		d := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: net.TCPAddrFromAddrPort(from)}
		c, err := d.Dial("tcp", to.String())
		if err == nil {
			c.Close()
		}
		return err
	})
	if err == nil {
		t.Error("a connection from the probe address came in")
	}
}

func TestFlushedRulesAreWrittenAgain(t *testing.T) {
	w := node(t)
	p := probes(t, w.Peer)
	if err := p.Set("u", []netip.Addr{podtest.Pod4}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for what, change := range map[string]func(*nftables.Conn){
		"everything flushed": func(c *nftables.Conn) { c.FlushRuleset() },
		"an address taken out": func(c *nftables.Conn) {
			set := &nftables.Set{Table: table(), Name: "pods-v4", KeyType: nftables.TypeIPAddr}
			if err := c.SetDeleteElements(set, []nftables.SetElement{{Key: podtest.Pod4.AsSlice()}}); err != nil {
				t.Error(err)
			}
		},
		"rules flushed": func(c *nftables.Conn) {
			c.FlushChain(&nftables.Chain{Name: "postrouting", Table: table()})
		},
	} {
		harm(t, w.Peer, change)
		await(t, w.Peer, what)
	}
	// What is written when somebody took the table away meanwhile is whole.
	if err := hostprobe.Remove(w.Peer); err != nil {
		t.Fatal(err)
	}
	if err := p.Set("v", []netip.Addr{podtest.Pod6}); err != nil {
		t.Fatal(err)
	}
	if got := seen(t, w.Peer, podtest.Pod6); got != hostprobe.Source6 {
		t.Errorf("probe from %v", got)
	}
}

// Rules that were flushed right after they were written, before we read how they
// look, must not be taken for ours.
func TestRulesFlushedWhileTheyAreWrittenComeBack(t *testing.T) {
	w := node(t)
	p := probes(t, w.Peer)
	if err := p.Set("u", []netip.Addr{podtest.Pod4}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for range 20 {
		for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
			harm(t, w.Peer, func(c *nftables.Conn) {
				c.FlushChain(&nftables.Chain{Name: "postrouting", Table: table()})
			})
		}
		await(t, w.Peer, "flushed again and again")
	}
}

// harm changes the rules of the node as somebody else would.
func harm(t *testing.T, node *netns.NS, change func(*nftables.Conn)) {
	t.Helper()
	err := node.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		change(c)
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// await returns when probes come from their own address.
func await(t *testing.T, node *netns.NS, what string) {
	t.Helper()
	for deadline := time.Now().Add(podtest.Patience); seen(t, node, podtest.Pod4) != hostprobe.Source4; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: probes keep the node's address", what)
		}
	}
}

func table() *nftables.Table {
	return &nftables.Table{Name: "tulle-agent", Family: nftables.TableFamilyINet}
}

// After a restart the addresses of before stay until the pods are known again.
func TestRestartKeepsAddressesUntilPodsAreKnown(t *testing.T) {
	w := node(t)
	if err := probes(t, w.Peer).Set("u", []netip.Addr{podtest.Pod4, podtest.Pod6}); err != nil {
		t.Fatal(err)
	}
	p := probes(t, w.Peer)
	if got := seen(t, w.Peer, podtest.Pod4); got != hostprobe.Source4 {
		t.Errorf("probe from %v right after the restart", got)
	}
	if err := p.Set("u", []netip.Addr{podtest.Pod4}); err != nil {
		t.Fatal(err)
	}
	if err := p.Known(); err != nil {
		t.Fatal(err)
	}
	if got := seen(t, w.Peer, podtest.Pod4); got != hostprobe.Source4 {
		t.Errorf("probe from %v once pods are known", got)
	}
	if got := seen(t, w.Peer, podtest.Pod6); got != podtest.Peer6 {
		t.Errorf("an address that no pod has is still translated: %v", got)
	}
	if err := hostprobe.Remove(w.Peer); err != nil {
		t.Fatal(err)
	}
	if got := seen(t, w.Peer, podtest.Pod4); got != podtest.Peer4 {
		t.Errorf("probe from %v after Remove", got)
	}
	if err := hostprobe.Remove(w.Peer); err != nil {
		t.Errorf("a second Remove: %v", err)
	}
}
