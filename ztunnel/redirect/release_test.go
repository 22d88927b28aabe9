package redirect_test

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// captured are connections of each kind that the rules lead to the proxy, or that
// the proxy makes, by name; each with its two ends.
type captured map[string][2]net.Conn

// open makes one connection from ns to at and takes it at ln.
func open(t *testing.T, ns *netns.NS, ln net.Listener, from netip.Addr, at netip.AddrPort, opts ...sockopt.Option) [2]net.Conn {
	t.Helper()
	var client net.Conn
	err := ns.Do(func() error {
		d := net.Dialer{Timeout: podtest.Patience, Control: sockopt.Control(opts...)}
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		var err error
		client, err = d.Dial("tcp", at.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{client, server} {
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(podtest.Patience))
	}
	return [2]net.Conn{client, server}
}

func listen(t *testing.T, ns *netns.NS, at netip.AddrPort, opts ...sockopt.Option) net.Listener {
	t.Helper()
	var ln net.Listener
	err := ns.Do(func() error {
		lc := net.ListenConfig{Control: sockopt.Control(opts...)}
		var err error
		ln, err = lc.Listen(t.Context(), "tcp", at.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// talk sends some kilobytes each way.
func (c captured) talk(t *testing.T, when string) {
	t.Helper()
	for name, ends := range c {
		for i := range ends {
			from, to := ends[i], ends[1-i]
			sent := make([]byte, 64<<10)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := from.Write(sent); err != nil {
					t.Errorf("%s, %s: write: %v", when, name, err)
				}
			})
			if _, err := io.ReadFull(to, make([]byte, len(sent))); err != nil {
				t.Errorf("%s, %s: read: %v", when, name, err)
			}
			wg.Wait()
		}
	}
}

// What Release keeps is what established connections need: they carry bytes both
// ways and end in order, while new connections already pass by.
func TestReleaseLetsCapturedConnectionsGoOn(t *testing.T) {
	proxy := sockopt.Mark(sockopt.MarkProxy)
	for _, f := range families {
		for _, cfg := range []struct {
			name string
			redirect.Config
		}{{"plain", redirect.Config{}}, {"with DNS and probes", redirect.Config{DNS: true, ProbeSources: []netip.Addr{f.foreign}}}} {
			t.Run(f.name+" "+cfg.name, func(t *testing.T) {
				w := podtest.New(t)
				apply(t, w.Pod, cfg.Config)
				app := listen(t, w.Pod, ap(f.wild, 8080))
				server := listen(t, w.Peer, ap(f.wild, 80))
				outbound := listen(t, w.Pod, ap(f.wild, 15001), proxy)
				inbound := listen(t, w.Pod, ap(f.wild, 15006), proxy)
				transparent := []sockopt.Option{proxy, sockopt.Transparent(), sockopt.BindAddressNoPort()}
				conns := captured{
					"outbound":  open(t, w.Pod, outbound, netip.Addr{}, ap(f.peer, 80)),
					"inbound":   open(t, w.Peer, inbound, netip.Addr{}, ap(f.pod, 8080)),
					"delivered": open(t, w.Pod, app, f.foreign, ap(f.pod, 8080), transparent...),
				}
				conns.talk(t, "captured")
				for range 2 { // the second changes nothing
					if err := redirect.Release(w.Pod, cfg.Config); err != nil {
						t.Fatal(err)
					}
					conns.talk(t, "released")
				}

				// New ones are as if there were no mesh, also those that the proxy still makes.
				fresh := captured{
					"new outbound":  open(t, w.Pod, server, netip.Addr{}, ap(f.peer, 80)),
					"new inbound":   open(t, w.Peer, app, netip.Addr{}, ap(f.pod, 8080)),
					"new delivered": open(t, w.Pod, app, f.foreign, ap(f.pod, 8080), transparent...),
				}
				fresh.talk(t, "released")
				conns.talk(t, "with others beside them")

				// The end of a captured connection reaches its other end.
				if err := conns["outbound"][0].(*net.TCPConn).CloseWrite(); err != nil {
					t.Error(err)
				}
				if b, err := io.ReadAll(conns["outbound"][1]); err != nil || len(b) > 0 {
					t.Errorf("the end of a captured connection: %q, %v", b, err)
				}
				delete(conns, "outbound")

				// Captured again, all of them go on.
				apply(t, w.Pod, cfg.Config)
				conns["again"] = open(t, w.Pod, outbound, netip.Addr{}, ap(f.peer, 80))
				conns.talk(t, "captured again")
				fresh.talk(t, "captured again")
				delete(fresh, "new delivered") // the proxy's, which Remove ends
				if err := redirect.Remove(w.Pod); err != nil {
					t.Fatal(err)
				}
				fresh.talk(t, "removed")
			})
		}
	}
}

// The reason why Release keeps empty chains: this is what happens without.
func TestRemoveEndsTheTranslationOfCapturedConnections(t *testing.T) {
	w := podtest.New(t)
	apply(t, w.Pod, redirect.Config{})
	outbound := listen(t, w.Pod, ap(netip.IPv4Unspecified(), 15001), sockopt.Mark(sockopt.MarkProxy))
	ends := open(t, w.Pod, outbound, netip.Addr{}, ap(podtest.Peer4, 80))
	if err := redirect.Remove(w.Pod); err != nil {
		t.Fatal(err)
	}
	ends[0].SetDeadline(time.Now().Add(time.Second))
	if _, err := ends[0].Write([]byte("lost")); err == nil {
		if _, err = ends[0].Read(make([]byte, 1)); err == nil {
			t.Error("a captured connection answers after Remove")
		}
	}
}

func TestReleaseWithoutRulesMakesNone(t *testing.T) {
	w := podtest.New(t)
	before := generation(t, w.Pod)
	if err := redirect.Release(w.Pod, redirect.Config{}); err != nil {
		t.Fatal(err)
	}
	if generation(t, w.Pod) != before {
		t.Error("Release wrote rules where there were none")
	}
}
