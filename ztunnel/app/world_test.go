package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/api/security"
	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/rotation"
	"github.com/tulle-mesh/tulle/internal/accesslog"
	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/metrics"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests. It is no expectation of speed.
const patience = time.Minute

// world is some pods on one switch and the ztunnels that serve them. The mesh's
// state is fed directly; everything else is real: namespaces, rules, TLS.
type world struct {
	t         *testing.T
	fabric    *netns.NS
	authority *certs.Authority
	nodes     map[string]*pods
	logs      *lines
	next      byte
	version   int
}

// lines collects an access log.
type lines struct {
	mu   sync.Mutex
	all  []string
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.SplitSeq(strings.TrimSpace(string(p)), "\n") {
		l.all = append(l.all, line)
	}
	close(l.more)
	l.more = make(chan struct{})
	return len(p), nil
}

// testPod is a pod and its place.
type testPod struct {
	name   string
	node   *pods
	ns     *netns.NS
	v4, v6 netip.Addr
	uid    string
	proxy  inpod.Proxy
}

func (p *testPod) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(p.v4, port) }

func newWorld(t *testing.T, carrier config.Carrier, change ...func(*config.Config)) *world {
	t.Helper()
	roottest.Require(t)
	w := &world{t: t, nodes: map[string]*pods{}, logs: &lines{more: make(chan struct{})}, next: 1}
	var err error
	if w.fabric, err = netns.New(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.fabric.Close()
		if t.Failed() {
			w.logs.mu.Lock()
			defer w.logs.mu.Unlock()
			t.Log("access log:\n" + strings.Join(w.logs.all, "\n"))
		}
	})
	w.must(w.fabric.Do(func() error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		return netlink.LinkSetUp(br)
	}))
	if w.authority, err = certs.OpenAuthority(t.TempDir(), certs.AuthorityConfig{TrustDomain: spiffeid.RequireTrustDomainFromString("cluster.local")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.authority.Close() })
	for _, name := range []string{"n1", "n2"} {
		cfg := config.Defaults()
		cfg.Node, cfg.Carrier, cfg.DrainDeadline = name, carrier, patience
		for _, f := range change {
			f(&cfg)
		}
		w.nodes[name] = w.node(cfg)
	}
	return w
}

func (w *world) node(cfg config.Config) *pods {
	access := accesslog.New(accesslog.Config{Output: w.logs})
	manager := rotation.NewManager(rotation.Config{Signer: certs.LocalSigner{Authority: w.authority}})
	life, end := context.WithCancel(context.Background())
	p := &pods{
		cfg: cfg, store: state.New(state.Config{ClusterID: cfg.ClusterID}), certificates: manager, log: zap.NewNop(), life: life,
		reporter: &reporter{log: access, metrics: metrics.New(metrics.Config{Registerer: prometheus.NewRegistry()})},
		byUID:    map[string]*podProxy{}, byName: map[podName]*podProxy{},
	}
	watched := make(chan struct{})
	go func() { defer close(watched); _ = p.watchMesh(life) }()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		defer cancel()
		for _, x := range p.all() {
			listed{x}.Drain(ctx)
		}
		end()
		<-watched
		manager.Close()
		access.Close()
	})
	return p
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// addPod makes a pod's namespace on the switch, with nothing of the mesh in it.
func (w *world) addPod(name, node string) *testPod {
	w.t.Helper()
	w.next++
	p := &testPod{
		name: name, node: w.nodes[node], uid: "uid-" + name,
		v4: netip.AddrFrom4([4]byte{10, 78, 0, w.next}), v6: netip.MustParseAddr(fmt.Sprintf("fd78::%x", w.next)),
	}
	var err error
	if p.ns, err = netns.New(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { p.ns.Close() })
	port := "p" + name
	w.must(w.fabric.Do(func() error {
		// The hardware address follows from the IP address, so that a pod that gets an
		// address again is found by who talked to the one before.
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.ns.FD()),
			PeerHardwareAddr: net.HardwareAddr{2, 0, 10, 78, 0, w.next}}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		br, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(link, br); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	}))
	w.must(p.ns.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		for _, a := range []netip.Addr{p.v4, p.v6} {
			ones := 24
			if a.Is6() {
				ones = 64
			}
			addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(ones, a.BitLen())}, Flags: unix.IFA_F_NODAD}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
			// Virtual addresses must be routed somewhere for connect to begin.
			any := &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
			if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: any}); err != nil {
				return err
			}
		}
		return nil
	}))
	return p
}

// enrol redirects the pod and starts its proxies.
func (w *world) enrol(p *testPod) {
	w.t.Helper()
	w.must(redirect.Apply(p.ns, redirect.Config{}))
	proxy, err := p.node.Start(w.t.Context(), inpod.Pod{
		UID: p.uid, NS: p.ns, Info: inpod.Info{Name: p.name, Namespace: "shop", ServiceAccount: p.name},
	})
	w.must(err)
	p.proxy = proxy
}

// meshPod is addPod, announce and enrol.
func (w *world) meshPod(name, node string) *testPod {
	p := w.addPod(name, node)
	w.announce(w.workload(p, api.TunnelProtocol_HBONE))
	w.enrol(p)
	return p
}

func (w *world) workload(p *testPod, protocol api.TunnelProtocol) *api.Workload {
	return &api.Workload{
		Uid: "Kubernetes//Pod/shop/" + p.name, Name: p.name, Namespace: "shop", ServiceAccount: p.name,
		TrustDomain: "cluster.local", ClusterId: "Kubernetes", Node: p.node.cfg.Node, TunnelProtocol: protocol,
		WorkloadName: p.name, CanonicalName: p.name, Addresses: [][]byte{p.v4.AsSlice(), p.v6.AsSlice()},
	}
}

// apply gives every node a resource, as the control plane would.
func (w *world) apply(handler func(*state.Store) xdsclient.Handler, name string, m proto.Message, removed ...string) {
	w.t.Helper()
	w.version++
	delta := xdsclient.Delta{Removed: removed}
	if m != nil {
		body, err := anypb.New(m)
		w.must(err)
		delta.Resources = []xdsclient.Resource{{Name: name, Version: fmt.Sprint(w.version), Body: body}}
	}
	for _, n := range w.nodes {
		if rejected := handler(n.store).Apply(delta); len(rejected) > 0 {
			w.t.Fatalf("rejected: %v", rejected[0].Err)
		}
	}
}

func (w *world) announce(wl *api.Workload) {
	w.t.Helper()
	w.apply((*state.Store).AddressHandler, wl.Uid, &api.Address{Type: &api.Address_Workload{Workload: wl}})
}

func (w *world) service(s *api.Service) {
	w.t.Helper()
	w.apply((*state.Store).AddressHandler, s.Namespace+"/"+s.Hostname, &api.Address{Type: &api.Address_Service{Service: s}})
}

func (w *world) policy(p *security.Authorization) {
	w.t.Helper()
	w.apply((*state.Store).AuthorizationHandler, p.Namespace+"/"+p.Name, p)
}

// denyClient denies connections of an account, or without identity when empty.
func denyClient(name, account string) *security.Authorization {
	m := &security.Match{NotPrincipals: []*security.StringMatch{{MatchType: &security.StringMatch_Presence{}}}}
	if account != "" {
		m = &security.Match{Principals: []*security.StringMatch{{MatchType: &security.StringMatch_Exact{Exact: "cluster.local/ns/shop/sa/" + account}}}}
	}
	return &security.Authorization{
		Name: name, Namespace: "shop", Scope: security.Scope_NAMESPACE, Action: security.Action_DENY,
		Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{m}}}}},
	}
}

// serve runs f for every connection to port in the pod.
func (w *world) serve(p *testPod, port uint16, f func(*net.TCPConn)) {
	w.t.Helper()
	lns, err := listenIn(p.ns, port)
	w.must(err)
	var wg sync.WaitGroup
	for _, ln := range lns {
		wg.Go(func() {
			for {
				c, err := ln.AcceptTCP()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(patience))
					f(c)
				})
			}
		})
	}
	w.t.Cleanup(func() {
		for _, ln := range lns {
			ln.Close()
		}
		wg.Wait()
	})
}

// listenIn listens as an application does, without the proxy's mark.
func listenIn(ns *netns.NS, port uint16) ([]*net.TCPListener, error) {
	var lns []*net.TCPListener
	err := ns.Do(func() error {
		for _, network := range []string{"tcp4", "tcp6"} {
			ln, err := net.Listen(network, fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			lns = append(lns, ln.(*net.TCPListener))
		}
		return nil
	})
	return lns, err
}

// dial connects as an application in the pod does.
func (w *world) dial(p *testPod, dst netip.AddrPort, opts ...sockopt.Option) *net.TCPConn {
	w.t.Helper()
	var c net.Conn
	w.must(p.ns.Do(func() error {
		d := net.Dialer{Timeout: patience, Control: sockopt.Control(opts...)}
		var err error
		c, err = d.Dial("tcp", dst.String())
		return err
	}))
	_ = c.SetDeadline(time.Now().Add(patience))
	w.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// logged waits for an access line that holds all the parts.
func (w *world) logged(parts ...string) string {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.logs.mu.Lock()
		more := w.logs.more
		for _, line := range w.logs.all {
			found := true
			for _, part := range parts {
				found = found && strings.Contains(line, part)
			}
			if found {
				w.logs.mu.Unlock()
				return line
			}
		}
		w.logs.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			w.logs.mu.Lock()
			defer w.logs.mu.Unlock()
			w.t.Fatalf("no access line with %q in:\n%s", parts, strings.Join(w.logs.all, "\n"))
		}
	}
}
