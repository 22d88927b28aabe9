package redirect_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

func apply(t testing.TB, ns *netns.NS, cfg redirect.Config) {
	t.Helper()
	if err := redirect.Apply(ns, cfg); err != nil {
		t.Fatal(err)
	}
	verified(t, ns, cfg)
}

func verified(t testing.TB, ns *netns.NS, cfg redirect.Config) {
	t.Helper()
	diffs, err := redirect.Verify(ns, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diffs {
		t.Errorf("after Apply: %s", d)
	}
}

func ap(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

var families = []struct {
	name                  string
	pod, peer, loop, wild netip.Addr
	network               string
	foreign               netip.Addr
}{
	{"IPv4", podtest.Pod4, podtest.Peer4, netip.MustParseAddr("127.0.0.1"), netip.IPv4Unspecified(), "tcp4", netip.MustParseAddr("10.99.9.9")},
	{"IPv6", podtest.Pod6, podtest.Peer6, netip.MustParseAddr("::1"), netip.IPv6Unspecified(), "tcp6", netip.MustParseAddr("fd99::9")},
}

func TestCapture(t *testing.T) {
	proxy := sockopt.Mark(sockopt.MarkProxy)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := podtest.New(t)
			apply(t, w.Pod, redirect.Config{})
			podtest.Greet(t, w.Pod, "outbound", ap(f.wild, 15001), proxy)
			podtest.Greet(t, w.Pod, "inbound", ap(f.wild, 15006), proxy)
			podtest.Greet(t, w.Pod, "hbone", ap(f.wild, 15008), proxy)
			podtest.Greet(t, w.Pod, "app", ap(f.wild, 8080))
			podtest.Greet(t, w.Peer, "server", ap(f.wild, 80))

			for _, tc := range []struct {
				what string
				from *netns.NS
				to   netip.AddrPort
				opts []sockopt.Option
				want string
				dst  netip.AddrPort
			}{
				{"what the pod dials", w.Pod, ap(f.peer, 80), nil, "outbound", ap(f.peer, 80)},
				{"what nobody serves", w.Pod, ap(f.foreign, 443), nil, "outbound", ap(f.foreign, 443)},
				{"what the proxy dials", w.Pod, ap(f.peer, 80), []sockopt.Option{proxy}, "server", netip.AddrPort{}},
				{"other bits of the mark do not count", w.Pod, ap(f.peer, 80), []sockopt.Option{sockopt.Mark(0xab000 | sockopt.MarkProxy)}, "server", netip.AddrPort{}},
				{"another mark does not exempt", w.Pod, ap(f.peer, 80), []sockopt.Option{sockopt.Mark(0x538)}, "outbound", ap(f.peer, 80)},
				{"the pod to its loopback", w.Pod, ap(f.loop, 8080), nil, "app", netip.AddrPort{}},
				{"the pod to its own address", w.Pod, ap(f.pod, 8080), nil, "app", netip.AddrPort{}},
				{"from outside to the application", w.Peer, ap(f.pod, 8080), nil, "inbound", ap(f.pod, 8080)},
				{"from outside to a closed port", w.Peer, ap(f.pod, 9), nil, "inbound", ap(f.pod, 9)},
				{"from outside to the proxy's ports", w.Peer, ap(f.pod, 15001), nil, "inbound", ap(f.pod, 15001)},
				{"from outside to HBONE", w.Peer, ap(f.pod, 15008), nil, "hbone", netip.AddrPort{}},
			} {
				got, err := podtest.Call(t, tc.from, tc.to, tc.opts...)
				if err != nil {
					t.Errorf("%s: %v", tc.what, err)
					continue
				}
				if got.Name != tc.want {
					t.Errorf("%s came to %s, want %s", tc.what, got.Name, tc.want)
				}
				if tc.dst.IsValid() && got.Dst != tc.dst.String() {
					t.Errorf("%s has the original destination %s, want %v", tc.what, got.Dst, tc.dst)
				}
			}

			// The proxy delivers with the client's address and gets the answers.
			got, err := podtest.CallFrom(t, w.Pod, ap(f.foreign, 0), ap(f.pod, 8080), proxy, sockopt.Transparent(), sockopt.BindAddressNoPort())
			if err != nil {
				t.Fatalf("delivery with a foreign source: %v", err)
			}
			if got.Name != "app" || netip.MustParseAddrPort(got.Remote).Addr() != f.foreign {
				t.Errorf("delivery with a foreign source came to %s from %s", got.Name, got.Remote)
			}
		})
	}
}

// With rules in force and no proxy, nothing passes.
func TestNobodyListeningMeansRefused(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := podtest.New(t)
			podtest.Greet(t, w.Pod, "app", ap(f.wild, 8080))
			podtest.Greet(t, w.Peer, "server", ap(f.wild, 80))
			apply(t, w.Pod, redirect.Config{})
			if got, err := podtest.Call(t, w.Pod, ap(f.peer, 80)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("outbound: %v %v, want refused", got, err)
			}
			if got, err := podtest.Call(t, w.Peer, ap(f.pod, 8080)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("inbound: %v %v, want refused", got, err)
			}
		})
	}
}

func TestConnectionsOlderThanTheRulesGoOn(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := podtest.New(t)
			outC, outS := podtest.Connect(t, w.Pod, w.Peer, ap(f.peer, 80))
			inC, inS := podtest.Connect(t, w.Peer, w.Pod, ap(f.pod, 8080))
			apply(t, w.Pod, redirect.Config{})
			for _, c := range []struct {
				name     string
				from, to net.Conn
			}{{"out", outC, outS}, {"out, back", outS, outC}, {"in", inC, inS}, {"in, back", inS, inC}} {
				buf := make([]byte, 4)
				if _, err := c.from.Write([]byte("ping")); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
				if _, err := c.to.Read(buf); err != nil || string(buf) != "ping" {
					t.Errorf("%s: %q, %v", c.name, buf, err)
				}
			}
		})
	}
}

// A stray ACK must not prepare a way around the rules for a later SYN.
func TestNoEntryForAConnectionInItsMiddle(t *testing.T) {
	w := podtest.New(t)
	apply(t, w.Pod, redirect.Config{})
	podtest.Greet(t, w.Pod, "inbound", ap(podtest.Pod4, 15006))
	podtest.Greet(t, w.Pod, "app", ap(podtest.Pod4, 8080))
	// The peer's own kernel knows nothing of the connection that its raw ACK
	// claims, and then dials from the same port.
	from := ap(podtest.Peer4, 40000)
	if err := w.Peer.Do(func() error { return sendACK(from, ap(podtest.Pod4, 8080)) }); err != nil {
		t.Fatal(err)
	}
	got, err := podtest.CallFrom(t, w.Peer, from, ap(podtest.Pod4, 8080))
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "inbound" {
		t.Errorf("the connection came to %s", got.Name)
	}
}

func sendACK(from, to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	seg := []byte{
		byte(from.Port() >> 8), byte(from.Port()), byte(to.Port() >> 8), byte(to.Port()),
		0, 0, 0, 9, 0, 0, 0, 9, 5 << 4, 0x10, 0xff, 0xff, 0, 0, 0, 0,
	}
	s4, d4 := from.Addr().As4(), to.Addr().As4()
	pseudo := append(append(append([]byte{}, s4[:]...), d4[:]...), 0, unix.IPPROTO_TCP, 0, byte(len(seg)))
	var sum uint32
	for _, b := range [][]byte{pseudo, seg} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	seg[16], seg[17] = byte(^sum>>8), byte(^sum)
	return unix.Sendto(fd, seg, 0, &unix.SockaddrInet4{Addr: d4})
}

func TestOutboundOnlyAndProbes(t *testing.T) {
	w := podtest.New(t)
	podtest.Greet(t, w.Pod, "inbound", ap(podtest.Pod4, 15006))
	podtest.Greet(t, w.Pod, "app", ap(podtest.Pod4, 8080))
	check := func(cfg redirect.Config, want string) {
		t.Helper()
		apply(t, w.Pod, cfg)
		if got, err := podtest.Call(t, w.Peer, ap(podtest.Pod4, 8080)); err != nil || got.Name != want {
			t.Errorf("%+v: came to %s, %v; want %s", cfg, got.Name, err, want)
		}
	}
	check(redirect.Config{}, "inbound")
	check(redirect.Config{OutboundOnly: true}, "app")
	check(redirect.Config{ProbeSources: []netip.Addr{podtest.Peer4, podtest.Peer6}}, "app")
	check(redirect.Config{ProbeSources: []netip.Addr{netip.MustParseAddr("169.254.7.127")}}, "inbound")
	check(redirect.Config{DNS: true, VirtualInterfaces: []string{"k6t-eth0"}}, "inbound")
	check(redirect.Config{}, "inbound")
}

func TestConfigIsValidated(t *testing.T) {
	roottest.Require(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for _, cfg := range []redirect.Config{
		{ProbeSources: []netip.Addr{{}}},
		{ProbeSources: []netip.Addr{netip.MustParseAddr("::ffff:1.2.3.4")}},
		{VirtualInterfaces: []string{"a-name-longer-than-15"}},
		{VirtualInterfaces: []string{"a", "a"}},
		{VirtualInterfaces: []string{""}},
	} {
		if err := redirect.Apply(ns, cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// spoil are things that somebody may do to the rules.
var spoil = []struct {
	name string
	do   []string
	says string
}{
	{"flush everything", []string{"nft", "flush", "ruleset"}, "missing"},
	{"delete a table", []string{"nft", "delete", "table", "inet", "istio-ambient-nat"}, "istio-ambient-nat is missing"},
	{"empty a chain", []string{"nft", "flush", "chain", "inet", "istio-ambient-nat", "istio-output"}, "has 0 rules"},
	{"insert a rule", []string{"nft", "insert", "rule", "inet", "istio-ambient-nat", "istio-output", "accept"}, "rules instead of"},
	{"add a chain", []string{"nft", "add", "chain", "inet", "istio-ambient-nat", "early", "{ type filter hook output priority 0; }"}, "foreign chain early"},
	{"put a table to sleep", []string{"nft", "add", "table", "inet", "istio-ambient-mangle", "{ flags dormant; }"}, "dormant"},
	{"a table of ours that should not be", []string{"nft", "add", "table", "inet", "istio-ambient-raw"}, "should not exist"},
	{"delete the ip rule", []string{"ip", "rule", "del", "pref", "32764"}, "IPv4 rule for mark 0x111"},
	{"delete the IPv6 rule", []string{"ip", "-6", "rule", "del", "pref", "32764"}, "IPv6 rule for mark 0x111"},
	{"flush the routes", []string{"ip", "route", "flush", "table", "100"}, "IPv4 route of table 100"},
	{"flush the IPv6 routes", []string{"ip", "-6", "route", "flush", "table", "100"}, "IPv6 route of table 100"},
}

func run(t testing.TB, ns *netns.NS, argv ...string) string {
	t.Helper()
	roottest.Program(t, argv[0], map[string]string{"nft": "nftables", "ip": "iproute2"}[argv[0]])
	var out []byte
	err := ns.Do(func() error {
		var err error
		out, err = exec.Command(argv[0], argv[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

func TestVerifySeesAndApplyRepairs(t *testing.T) {
	for _, tc := range spoil {
		t.Run(tc.name, func(t *testing.T) {
			w := podtest.New(t)
			apply(t, w.Pod, redirect.Config{})
			run(t, w.Pod, tc.do...)
			diffs, err := redirect.Verify(w.Pod, redirect.Config{})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(diffs, "\n"), tc.says) {
				t.Errorf("Verify says %q, want %q among it", diffs, tc.says)
			}
			apply(t, w.Pod, redirect.Config{})
		})
	}
}

func generation(t testing.TB, ns *netns.NS) uint32 {
	t.Helper()
	g, err := redirect.Generation(ns)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGenerationTellsOfChangesByAnybody(t *testing.T) {
	w := podtest.New(t)
	seen := map[uint32]bool{generation(t, w.Pod): true}
	for _, change := range []func(){
		func() { apply(t, w.Pod, redirect.Config{}) },
		func() { run(t, w.Pod, "nft", "flush", "chain", "inet", "istio-ambient-nat", "istio-output") },
		func() { run(t, w.Pod, "nft", "flush", "ruleset") },
	} {
		change()
		if g := generation(t, w.Pod); seen[g] {
			t.Errorf("generation %d came twice", g)
		} else {
			seen[g] = true
		}
	}
}

func TestSecondApplyChangesNothing(t *testing.T) {
	w := podtest.New(t)
	apply(t, w.Pod, redirect.Config{})
	state := func() string {
		return fmt.Sprint(generation(t, w.Pod), run(t, w.Pod, "ip", "rule"), run(t, w.Pod, "ip", "-6", "rule"),
			run(t, w.Pod, "ip", "route", "show", "table", "all"), run(t, w.Pod, "ip", "-6", "route", "show", "table", "all"))
	}
	before := state()
	apply(t, w.Pod, redirect.Config{})
	if after := state(); after != before {
		t.Errorf("the second Apply changed something:\n%s\nbecame\n%s", before, after)
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	w := podtest.New(t)
	state := func() string {
		s := run(t, w.Pod, "nft", "list", "ruleset")
		for _, family := range []string{"-4", "-6"} {
			s += run(t, w.Pod, "ip", family, "rule") + run(t, w.Pod, "ip", family, "route", "show", "table", "all")
		}
		return s + run(t, w.Pod, "sysctl", "net.netfilter.nf_conntrack_tcp_loose", "net.ipv4.tcp_migrate_req")
	}
	before := state()
	apply(t, w.Pod, redirect.Config{DNS: true})
	if state() == before {
		t.Fatal("Apply changed nothing")
	}
	for range 2 { // the second finds nothing to do
		if err := redirect.Remove(w.Pod); err != nil {
			t.Fatal(err)
		}
		if after := state(); after != before {
			t.Errorf("Remove left:\n%s\nwant\n%s", after, before)
		}
	}
	podtest.Greet(t, w.Peer, "server", ap(podtest.Peer4, 80))
	if got, err := podtest.Call(t, w.Pod, ap(podtest.Peer4, 80)); err != nil || got.Name != "server" {
		t.Errorf("after Remove: %v %v", got, err)
	}
}

// While rules are replaced over and over, every connection is captured.
func TestReplacingHasNoGap(t *testing.T) {
	w := podtest.New(t)
	apply(t, w.Pod, redirect.Config{})
	podtest.Greet(t, w.Pod, "outbound", ap(netip.IPv4Unspecified(), 15001))
	podtest.Greet(t, w.Peer, "server", ap(podtest.Peer4, 80))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Another configuration each time, so that each time rules are written;
			// every third time the tables are made anew, too.
			cfg := redirect.Config{DNS: i%3 == 0}
			if i%2 == 0 {
				cfg.ProbeSources = []netip.Addr{netip.MustParseAddr("169.254.7.127")}
			}
			if err := redirect.Apply(w.Pod, cfg); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 300 {
		got, err := podtest.Call(t, w.Pod, ap(podtest.Peer4, 80))
		if err != nil || got.Name != "outbound" {
			t.Errorf("a connection came to %q, %v", got.Name, err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

func TestWithoutIPv6(t *testing.T) {
	w := podtest.New(t)
	run(t, w.Pod, "sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1")
	apply(t, w.Pod, redirect.Config{})
	if err := redirect.Remove(w.Pod); err != nil {
		t.Fatal(err)
	}
}

// The rules as nft prints them, against the table of rules in doc and interop.
func TestRulesetAsNftPrintsIt(t *testing.T) {
	w := podtest.New(t)
	cfg := redirect.Config{
		DNS: true, VirtualInterfaces: []string{"vm0"},
		ProbeSources: []netip.Addr{netip.MustParseAddr("169.254.7.127"), netip.MustParseAddr("fd16:9254:7127:1337:ffff:ffff:ffff:ffff")},
	}
	apply(t, w.Pod, cfg)
	golden(t, "full", run(t, w.Pod, "nft", "-n", "list", "ruleset"))
	apply(t, w.Pod, redirect.Config{})
	golden(t, "plain", run(t, w.Pod, "nft", "-n", "list", "ruleset"))
}

// List by the library sees our rules too, in its own terms.
func TestTablesAreOfFamilyInet(t *testing.T) {
	w := podtest.New(t)
	apply(t, w.Pod, redirect.Config{})
	err := w.Pod.Do(func() error {
		conn, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		defer conn.CloseLasting()
		tables, err := conn.ListTables()
		if err != nil {
			return err
		}
		for _, table := range tables {
			if table.Family != nftables.TableFamilyINet || !strings.HasPrefix(table.Name, "istio-ambient-") {
				return fmt.Errorf("table %s of family %d", table.Name, table.Family)
			}
		}
		if len(tables) != 2 {
			return fmt.Errorf("%d tables", len(tables))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func BenchmarkApply(b *testing.B) {
	w := podtest.New(b)
	cfgs := []redirect.Config{{}, {OutboundOnly: true}}
	for i := 0; b.Loop(); i++ {
		if err := redirect.Apply(w.Pod, cfgs[i%2]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGeneration(b *testing.B) {
	w := podtest.New(b)
	for b.Loop() {
		generation(b, w.Pod)
	}
}

func BenchmarkVerify(b *testing.B) {
	w := podtest.New(b)
	apply(b, w.Pod, redirect.Config{})
	for b.Loop() {
		verified(b, w.Pod, redirect.Config{})
	}
}
