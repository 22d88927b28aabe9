package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

var webVIP = netip.MustParseAddrPort("10.96.7.7:80")

const webKey = "shop/web.shop.svc.cluster.local"

// web makes the service whose endpoints are announced with webWorkload.
func (w *world) web() {
	w.service(&api.Service{
		Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local",
		Addresses: []*api.NetworkAddress{{Address: webVIP.Addr().AsSlice()}},
		Ports:     []*api.Port{{ServicePort: 80, TargetPort: 8080}},
	})
}

// webWorkload is p as an endpoint of web, all of which have one account, as the
// pods of a Deployment.
func (w *world) webWorkload(p *testPod, protocol api.TunnelProtocol) *api.Workload {
	wl := w.workload(p, protocol)
	wl.ServiceAccount = "web"
	wl.Services = map[string]*api.PortList{webKey: {Ports: []*api.Port{{ServicePort: 80, TargetPort: 8080}}}}
	return wl
}

func (w *world) start(p *testPod, account string) {
	w.t.Helper()
	proxy, err := p.node.Start(w.t.Context(), inpod.Pod{
		UID: p.uid, NS: p.ns, Info: inpod.Info{Name: p.name, Namespace: "shop", ServiceAccount: account},
	})
	w.must(err)
	p.proxy = proxy
}

// until serves f on port in the pod until stop is called.
func (w *world) until(p *testPod, port uint16, f func(*net.TCPConn)) (stop func()) {
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
	stop = sync.OnceFunc(func() {
		for _, ln := range lns {
			ln.Close()
		}
		wg.Wait()
	})
	w.t.Cleanup(stop)
	return stop
}

// shut refuses new connections to port in the pod, as a closed listener does, but
// without resetting what waits in the listener's queue: an application that does
// that loses requests with any mesh or none.
func (w *world) shut(p *testPod, port uint16) {
	w.t.Helper()
	roottest.Program(w.t, "nft", "nftables")
	w.must(p.ns.Do(func() error {
		out, err := exec.Command("nft", fmt.Sprintf("table inet shut { chain input { type filter hook input priority 0; "+
			"tcp dport %d tcp flags & (fin|syn|rst|ack) == syn reject with tcp reset; }; }", port)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	}))
}

// load makes connections from a pod at a steady rate, each new, until stop, which
// returns how many there were and what went wrong.
type load struct {
	done   atomic.Int64
	mu     sync.Mutex
	errs   []error
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (w *world) load(p *testPod, dst netip.AddrPort, every time.Duration) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	l.wg.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			l.wg.Go(func() {
				if err := once(p, dst); err != nil {
					l.mu.Lock()
					l.errs = append(l.errs, err)
					l.mu.Unlock()
				}
				l.done.Add(1)
			})
		}
	})
	w.t.Cleanup(func() { cancel(); l.wg.Wait() })
	return l
}

// once is one request on a connection of its own.
func once(p *testPod, dst netip.AddrPort) error {
	var c net.Conn
	err := p.ns.Do(func() error {
		var err error
		c, err = net.DialTimeout("tcp", dst.String(), patience)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if err == nil && string(b) != "ping" {
		err = fmt.Errorf("answer %q", b)
	}
	return err
}

// reach waits until n more connections of each load have ended.
func reach(t *testing.T, n int64, loads ...*load) {
	t.Helper()
	// All run at the same time: what one of them did while another was waited for
	// counts.
	want := make([]int64, len(loads))
	for i, l := range loads {
		want[i] = l.done.Load() + n
	}
	deadline := time.Now().Add(patience)
	for i, l := range loads {
		for ; l.done.Load() < want[i]; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections of load %d ended, waited for %d", l.done.Load(), i, want[i])
			}
		}
	}
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	if len(l.errs) > 0 {
		t.Errorf("%d of %d connections failed, the first one with: %v", len(l.errs), l.done.Load(), l.errs[0])
	}
	if l.done.Load() == 0 {
		t.Error("there was no load")
	}
}

// counted waits for n access lines that hold all the parts, and fails for more.
func (w *world) counted(n int, parts ...string) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		count := 0
		w.logs.mu.Lock()
		for _, line := range w.logs.all {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
				count++
			}
		}
		w.logs.mu.Unlock()
		if count == n {
			return
		}
		if count > n || time.Now().After(deadline) {
			w.t.Fatalf("%d access lines with %q, want %d", count, parts, n)
		}
	}
}

func TestEndpointThatIsGoneIsRetriedElsewhere(t *testing.T) {
	carriers(t, func(t *testing.T, carrier config.Carrier) {
		w := newWorld(t, carrier, func(c *config.Config) { c.ConnectTimeout = patience })
		w.web()
		client := w.meshPod("client", "n1")
		// One that is not there any more, and one that lives on either node.
		gone, far, near := w.addPod("gone", "n2"), w.addPod("far", "n2"), w.addPod("near", "n1")
		for _, p := range []*testPod{gone, far, near} {
			w.announce(w.webWorkload(p, api.TunnelProtocol_HBONE))
			if p != gone {
				w.must(redirect.Apply(p.ns, redirect.Config{}))
				w.start(p, "web")
				w.serve(p, 8080, echo)
			}
		}
		l := w.load(client, webVIP, 10*time.Millisecond)
		line := w.logged("connection complete", `direction="outbound"`, "retried=", gone.at(15008).String())
		reach(t, 20, l)
		l.stop(t)
		t.Log(line)
	})
}

// The application on the chosen endpoint does not listen any more, or not yet.
func TestApplicationThatIsGoneIsRetriedElsewhere(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	w.web()
	client := w.meshPod("client", "n1")
	for name, node := range map[string]string{"mute-far": "n2", "mute-near": "n1", "lives": "n2"} {
		p := w.addPod(name, node)
		w.announce(w.webWorkload(p, api.TunnelProtocol_HBONE))
		w.must(redirect.Apply(p.ns, redirect.Config{}))
		w.start(p, "web")
		if name == "lives" {
			w.serve(p, 8080, echo)
		}
	}
	for range 40 {
		if err := once(client, webVIP); err != nil {
			t.Error(err)
		}
	}
	w.logged("connection complete", "retried=", "http status: 503")
	w.logged("connection complete", "retried=", "delivery on this node")
}

func TestAttemptsAreFew(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	w.web()
	client := w.meshPod("client", "n1")
	for i := range 5 {
		p := w.addPod(fmt.Sprintf("mute-%d", i), "n2")
		w.announce(w.webWorkload(p, api.TunnelProtocol_HBONE))
		w.must(redirect.Apply(p.ns, redirect.Config{}))
		w.start(p, "web")
	}
	if err := once(client, webVIP); err == nil {
		t.Fatal("a connection to nobody succeeded")
	}
	w.logged(`direction="outbound"`, "error=", "http status: 503; http status: 503")
	w.counted(3, `direction="inbound"`)
}

func TestDeniedConnectionIsNotTriedElsewhere(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	w.web()
	client := w.meshPod("client", "n1")
	for _, name := range []string{"a", "b"} {
		p := w.addPod(name, "n2")
		w.announce(w.webWorkload(p, api.TunnelProtocol_HBONE))
		w.must(redirect.Apply(p.ns, redirect.Config{}))
		w.start(p, "web")
		w.serve(p, 8080, echo)
	}
	w.policy(denyClient("no-client", "client"))
	for range 5 {
		if err := once(client, webVIP); err == nil {
			t.Error("a denied connection passed")
		}
	}
	w.logged(`direction="outbound"`, "http status: 401")
	w.counted(5, `direction="inbound"`, `policy="shop/no-client"`)
}

// A Deployment is rolled under a steady rate of new connections. Every node hears
// of each change a while after it happened, applications stop to listen at once
// when their pod ends, addresses are used again.
func TestRollingReplaceUnderLoadLosesNothing(t *testing.T) {
	carriers(t, func(t *testing.T, carrier config.Carrier) {
		w := newWorld(t, carrier)
		w.web()
		clients := []*testPod{w.meshPod("client-1", "n1"), w.meshPod("client-2", "n2")}
		const lag = 100 * time.Millisecond
		type replica struct {
			*testPod
			stop func()
			last byte
		}
		number := 0
		create := func(last byte) *replica {
			number++
			if last != 0 {
				w.next = last - 1
			}
			p := w.addPod(fmt.Sprintf("web-%d", number), fmt.Sprintf("n%d", number%2+1))
			r := &replica{testPod: p, last: w.next}
			w.must(redirect.Apply(p.ns, redirect.Config{})) // as CNI has it: rules, then proxy, then application
			w.start(p, "web")
			r.stop = w.until(p, 8080, echo)
			time.Sleep(lag)
			w.announce(w.webWorkload(p, api.TunnelProtocol_HBONE))
			return r
		}
		end := func(r *replica) {
			// kubelet ends the application, which takes no connection any more; the
			// endpoint goes, as the nodes hear, later.
			w.shut(r.testPod, 8080)
			time.Sleep(lag)
			ending := w.webWorkload(r.testPod, api.TunnelProtocol_HBONE)
			ending.Services = nil
			w.announce(ending)
			// The pod is gone; its network too, while nobody has heard yet.
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r.proxy.Drain(ctx)
			r.stop()
			w.must(r.ns.Do(func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.LinkDel(link)
			}))
			time.Sleep(lag)
			w.apply((*state.Store).AddressHandler, "", nil, ending.Uid)
		}

		replicas := []*replica{create(0), create(0), create(0)}
		spare := w.next + 1
		var loads []*load
		for _, c := range clients {
			loads = append(loads, w.load(c, webVIP, 10*time.Millisecond))
		}
		for range 2 * len(replicas) {
			fresh := create(spare)
			reach(t, 5, loads[0])
			old := replicas[0]
			end(old)
			spare = old.last // the next one gets its address
			replicas = append(replicas[1:], fresh)
		}
		for _, l := range loads {
			l.stop(t)
			t.Logf("%d connections", l.done.Load())
		}
	})
}

// The control plane drops a pod that ends before its programs have ended.
func TestPodThatTheControlPlaneDroppedIsServedToItsEnd(t *testing.T) {
	carriers(t, func(t *testing.T, carrier config.Carrier) {
		w := newWorld(t, carrier)
		client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
		out := w.meshPod("out", "n2")
		w.serve(server, 7002, echo)
		w.serve(client, 7002, echo)
		old := w.dial(client, server.at(7002))
		if _, err := old.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		// Its own node has heard it, the client's node has not.
		for _, p := range []*testPod{server, out} {
			w.nodes["n2"].store.AddressHandler().Apply(xdsclient.Delta{Removed: []string{"Kubernetes//Pod/shop/" + p.name}})
		}
		if err := once(client, server.at(7002)); err != nil {
			t.Errorf("a new connection to the pod that ends: %v", err)
		}
		if err := once(out, client.at(7002)); err != nil {
			t.Errorf("a new connection of a pod that ends: %v", err)
		}
		if err := old.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, old); got != "ping" {
			t.Errorf("a connection of before came to its end with %q", got)
		}
		// Policies that come now are its policies.
		w.policy(denyClient("no-client", "client"))
		if err := once(client, server.at(7002)); err == nil {
			t.Error("a connection passed a policy")
		}
	})
}
