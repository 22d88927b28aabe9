package enrol_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/agent/proxies"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

func running(uid string, ns *netns.NS) enrol.Pod {
	p := pod(uid, ns)
	p.Running = true
	return p
}

// looking runs the Manager until the test ends.
func looking(t *testing.T, m *enrol.Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(podtest.Patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func often(c *enrol.Config) { c.Interval = 10 * time.Millisecond }

func TestRunningPodIsCapturedAfterTheProxyHasIt(t *testing.T) {
	w := podtest.New(t)
	m, p := manager(t, t.TempDir())
	p.check = func(zds.Request) {
		if captured(t, w.Pod) {
			t.Error("a running pod was captured before the proxy had it")
		}
	}
	if err := m.Enrol(t.Context(), running("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	if s, _ := m.Pod("u"); !captured(t, w.Pod) || s.State != enrol.Enrolled {
		t.Errorf("Enrol returned with the pod captured %v, %s", captured(t, w.Pod), s.State)
	}
}

func TestRunningPodStaysAsItWasWithoutAProxy(t *testing.T) {
	w := podtest.New(t)
	podtest.Greet(t, w.Peer, "server", netip.AddrPortFrom(podtest.Peer4, 80))
	m, p := manager(t, t.TempDir(), often)
	m.Connected(false)
	p.refuse = proxies.ErrUnanswered // what comes of a Send without proxies
	looking(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Enrol(ctx, running("u", w.Pod)); !errors.Is(err, enrol.ErrNoProxy) {
		t.Errorf("Enrol without a proxy: %v", err)
	}
	if got, err := podtest.Call(t, w.Pod, netip.AddrPortFrom(podtest.Peer4, 80)); err != nil || got.Name != "server" {
		t.Errorf("the pod's connection came to %q, %v", got.Name, err)
	}
	if s, _ := m.Pod("u"); s.State != enrol.Pending {
		t.Errorf("without a proxy: %+v", s)
	}
	// A proxy comes, and gets the list.
	p.mu.Lock()
	p.refuse = nil
	p.mu.Unlock()
	m.Connected(true)
	p.Send("u")
	eventually(t, "the capture", func() bool { return captured(t, w.Pod) })
	// From here on it is like any other.
	m.Connected(false)
	if _, err := podtest.Call(t, w.Pod, netip.AddrPortFrom(podtest.Peer4, 80)); err == nil {
		t.Error("a captured pod's connection passed without a proxy")
	}
}

func TestRunningPodThatTheProxyRefusesIsNotCaptured(t *testing.T) {
	w := podtest.New(t)
	m, p := manager(t, t.TempDir(), often)
	p.refuse = &zds.RefusedError{Reason: "no room"}
	if err := m.Enrol(t.Context(), running("u", w.Pod)); err == nil {
		t.Fatal("enrolled though refused")
	}
	if captured(t, w.Pod) {
		t.Error("captured though refused")
	}
	p.mu.Lock()
	p.refuse = nil
	p.mu.Unlock()
	looking(t, m) // asks again
	eventually(t, "the capture", func() bool { return captured(t, w.Pod) })
}

func TestRestartInTheMiddleOfAJoin(t *testing.T) {
	w := podtest.New(t)
	dir := t.TempDir()
	m, p := manager(t, dir)
	p.refuse = proxies.ErrUnanswered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := m.Enrol(ctx, running("u", w.Pod)); err == nil {
		t.Fatal("enrolled without an answer")
	}
	m, p = restart(t, m, dir)
	m.Restore(t.Context())
	if captured(t, w.Pod) {
		t.Fatal("a restart captured a running pod that no proxy has")
	}
	if err := m.Enrol(t.Context(), running("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	// Once it joined, it stays captured, proxy or not.
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	unhook(t, w.Pod)
	m, _ = manager(t, dir)
	m.Connected(false)
	m.Restore(t.Context())
	if !captured(t, w.Pod) {
		t.Error("a joined pod is not captured after a restart")
	}
	if s, _ := m.Pod("u"); s.State != enrol.Pending {
		t.Errorf("without a proxy: %+v", s)
	}
}

func TestPodThatStartsAnewIsCapturedFirstThoughItWasRunningBefore(t *testing.T) {
	w := podtest.New(t)
	m, p := manager(t, t.TempDir())
	p.refuse = proxies.ErrUnanswered
	for _, pod := range []enrol.Pod{running("u", w.Pod), pod("u", w.Pod)} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := m.Enrol(ctx, pod); err == nil {
			t.Fatal("enrolled without an answer")
		}
		if captured(t, w.Pod) == pod.Running {
			t.Errorf("running %v: captured %v", pod.Running, captured(t, w.Pod))
		}
	}
}
