package enrol_test

import (
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

var peerHTTP = netip.AddrPortFrom(podtest.Peer4, 80)

func unhook(t *testing.T, ns *netns.NS) {
	t.Helper()
	if err := redirect.Remove(ns); err != nil {
		t.Fatal(err)
	}
}

// proxied is one captured connection of the pod: the application's end and the
// proxy's.
func proxied(t *testing.T, w podtest.World) (app, proxy net.Conn) {
	t.Helper()
	var ln net.Listener
	err := w.Pod.Do(func() error {
		lc := net.ListenConfig{Control: sockopt.Control(sockopt.Mark(sockopt.MarkProxy))}
		var err error
		ln, err = lc.Listen(t.Context(), "tcp4", ":15001")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = w.Pod.Do(func() error {
		var err error
		app, err = net.DialTimeout("tcp", peerHTTP.String(), podtest.Patience)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if proxy, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{app, proxy} {
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(podtest.Patience))
	}
	return app, proxy
}

func carries(t *testing.T, when string, from, to net.Conn) {
	t.Helper()
	if _, err := from.Write([]byte("ping")); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	if _, err := io.ReadFull(to, make([]byte, 4)); err != nil {
		t.Errorf("%s: %v", when, err)
	}
}

// hooked tells whether any of our tables is there.
func hooked(t *testing.T, ns *netns.NS) bool {
	t.Helper()
	diffs, err := redirect.Verify(ns, redirect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return !strings.Contains(strings.Join(diffs, "\n"), "table istio-ambient-nat is missing")
}

func TestCapturedConnectionsOfALeavingPodGoOn(t *testing.T) {
	w := podtest.New(t)
	dir := t.TempDir()
	podtest.Greet(t, w.Peer, "server", peerHTTP)
	m, p := manager(t, dir, often)
	if err := m.Enrol(t.Context(), running("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	app, proxy := proxied(t, w)
	p.onDel = func(string) error {
		if got, err := podtest.Call(t, w.Pod, peerHTTP); err != nil || got.Name != "server" {
			t.Errorf("when the proxy is told, a new connection comes to %q, %v", got.Name, err)
		}
		return nil
	}
	if err := m.Remove(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	carries(t, "leaving", app, proxy)
	carries(t, "leaving, back", proxy, app)
	if len(m.Pods()) != 0 || len(m.UIDs()) != 0 {
		t.Errorf("a pod that left is on the list: %+v", m.Pods())
	}

	// An agent that starts again goes on with it.
	m, _ = restart(t, m, dir, often)
	m.Restore(t.Context())
	carries(t, "after a restart", app, proxy)
	looking(t, m)
	carries(t, "looked at", app, proxy)
	if !hooked(t, w.Pod) {
		t.Error("the tables went though a captured connection lives")
	}
	app.Close()
	proxy.Close()
	eventually(t, "the end of the tables", func() bool { return !hooked(t, w.Pod) })
	eventually(t, "the end of the state file", func() bool {
		_, err := os.Stat(filepath.Join(dir, "pods", "u.json"))
		return os.IsNotExist(err)
	})
}

func TestPodComesBackWhileItDrains(t *testing.T) {
	w := podtest.New(t)
	podtest.Greet(t, w.Peer, "server", peerHTTP)
	m, p := manager(t, t.TempDir(), often)
	looking(t, m)
	if err := m.Enrol(t.Context(), running("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	app, proxy := proxied(t, w)
	for range 3 {
		if err := m.Remove(t.Context(), "u"); err != nil {
			t.Fatal(err)
		}
		carries(t, "leaving", app, proxy)
		p.took()
		if err := m.Enrol(t.Context(), running("u", w.Pod)); err != nil {
			t.Fatal(err)
		}
		if got := p.took(); len(got) != 1 || got[0] != "*zds.Add u" {
			t.Errorf("told: %q", got)
		}
		if !captured(t, w.Pod) {
			t.Error("the pod came back and is not captured")
		}
		carries(t, "back", app, proxy)
	}
}

func TestTablesGoAtTheDeadline(t *testing.T) {
	w := podtest.New(t)
	m, _ := manager(t, t.TempDir(), often, func(c *enrol.Config) { c.DrainDeadline = 100 * time.Millisecond })
	looking(t, m)
	if err := m.Enrol(t.Context(), running("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	proxied(t, w)
	if err := m.Remove(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the tables", func() bool { return !hooked(t, w.Pod) })
}

func TestDeletedPodGoesAtOnce(t *testing.T) {
	w := podtest.New(t)
	m, p := manager(t, t.TempDir(), func(c *enrol.Config) { c.Parting = time.Hour })
	if err := m.Enrol(t.Context(), pod("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	proxied(t, w)
	p.onDel = func(string) error {
		if !captured(t, w.Pod) {
			t.Error("the rules of a deleted pod went before the proxy heard of it")
		}
		return nil
	}
	if err := m.Gone(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if hooked(t, w.Pod) {
		t.Error("rules of a deleted pod stay")
	}
	if err := m.Gone(t.Context(), "u"); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// A pod that leaves the mesh and is deleted while it drains.
func TestLeavingPodThatIsDeletedGoesAtOnce(t *testing.T) {
	w := podtest.New(t)
	m, _ := manager(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "ns")
	p := running("u", w.Pod)
	if err := os.Symlink(p.NetnsPath, path); err != nil {
		t.Fatal(err)
	}
	p.NetnsPath = path
	for _, end := range []struct {
		name string
		come func() error
	}{
		{"told", func() error { return m.Gone(t.Context(), "u") }},
		{"its path is gone", func() error { os.Remove(path); return m.Remove(t.Context(), "u") }},
	} {
		if err := m.Enrol(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		app, proxy := proxied(t, w)
		if err := m.Remove(t.Context(), "u"); err != nil {
			t.Fatal(err)
		}
		carries(t, end.name, app, proxy)
		if err := end.come(); err != nil || hooked(t, w.Pod) {
			t.Errorf("%s: rules stay, %v", end.name, err)
		}
		app.Close()
		proxy.Close()
	}
}
