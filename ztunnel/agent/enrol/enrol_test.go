package enrol_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/agent/proxies"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proxy acknowledges what it is told, or what the test wants.
type proxy struct {
	manager *enrol.Manager

	mu     sync.Mutex
	log    []string
	refuse error
	check  func(zds.Request)
	onDel  func(uid string) error
}

func (p *proxy) Send(uid string) {
	request, answered := p.manager.Request(uid)
	if request == nil {
		return
	}
	p.mu.Lock()
	p.log = append(p.log, fmt.Sprintf("%T %s", request, uid))
	refuse, check := p.refuse, p.check
	p.mu.Unlock()
	if check != nil {
		check(request)
	}
	answered(refuse)
}

func (p *proxy) Delete(_ context.Context, uid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, "del "+uid)
	if p.onDel != nil {
		return p.onDel(uid)
	}
	return nil
}

func (p *proxy) took() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := p.log
	p.log = nil
	return log
}

// manager makes a Manager on dir with a connected proxy.
func manager(t *testing.T, dir string, change ...func(*enrol.Config)) (*enrol.Manager, *proxy) {
	t.Helper()
	p := &proxy{}
	cfg := enrol.Config{StateDir: dir, Proxies: p, Registerer: prometheus.NewRegistry(), Parting: time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	m, err := enrol.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	p.manager = m
	m.Connected(true)
	return m, p
}

func pod(uid string, ns *netns.NS) enrol.Pod {
	return enrol.Pod{
		UID: uid, Name: "web-0", Namespace: "shop", ServiceAccount: "web",
		NetnsPath: fmt.Sprintf("/proc/self/fd/%d", ns.FD()),
	}
}

func captured(t *testing.T, ns *netns.NS) bool {
	t.Helper()
	diffs, err := redirect.Verify(ns, redirect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return len(diffs) == 0
}

func TestRulesComeBeforeTheProxyAndItsTablesGoAfterIt(t *testing.T) {
	w := podtest.New(t)
	m, p := manager(t, t.TempDir())
	p.check = func(zds.Request) {
		if !captured(t, w.Pod) {
			t.Error("the proxy heard of a pod that is not captured")
		}
	}
	p.onDel = func(string) error {
		if captured(t, w.Pod) || !hooked(t, w.Pod) {
			t.Error("when the proxy hears that a pod leaves, new connections must pass it by and the tables be there")
		}
		return nil
	}
	if err := m.Enrol(t.Context(), pod("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if got := p.took(); !slices.Equal(got, []string{"*zds.Add u", "del u"}) {
		t.Errorf("told: %q", got)
	}
	if captured(t, w.Pod) {
		t.Error("rules stay after Remove")
	}
}

func TestRemoveGoesOnWhenTheProxyDoesNotAnswer(t *testing.T) {
	w := podtest.New(t)
	m, p := manager(t, t.TempDir())
	p.onDel = func(string) error { return errors.New("silent") }
	if err := m.Enrol(t.Context(), pod("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if captured(t, w.Pod) {
		t.Error("rules stay after Remove")
	}
}

func TestOlderConnectionsOfAStrictPodAreEnded(t *testing.T) {
	w := podtest.New(t)
	at := netip.AddrPortFrom(podtest.Peer4, 80)
	client, server := podtest.Connect(t, w.Pod, w.Peer, at)
	local, _ := podtest.Connect(t, w.Pod, w.Pod, netip.AddrPortFrom(podtest.Pod4, 8080)) // with itself
	m, _ := manager(t, t.TempDir(), func(c *enrol.Config) {
		c.Interval, c.StrictGrace = 10*time.Millisecond, 300*time.Millisecond
	})
	if err := m.Enrol(t.Context(), pod("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	defer func() { cancel(); <-done }()

	s, _ := m.Pod("u")
	if s.OlderCount != 1 || s.OlderConnections[0].Remote != at || s.OlderConnections[0].State != "ESTAB" {
		t.Errorf("older connections: %+v", s.OlderConnections)
	}
	// Not strict: it goes on, however long.
	if _, err := client.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	strict := pod("u", w.Pod)
	strict.Strict = true
	if err := m.Enrol(t.Context(), strict); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the older connection ended with %v", err)
	}
	if _, err := local.Write([]byte("x")); err != nil {
		t.Errorf("the pod's connection with itself was ended: %v", err)
	}
}

// restart makes a second Manager on the state of the first.
func restart(t *testing.T, m *enrol.Manager, dir string, change ...func(*enrol.Config)) (*enrol.Manager, *proxy) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return manager(t, dir, change...)
}

func TestRestartRestoresRules(t *testing.T) {
	w := podtest.New(t)
	dir := t.TempDir()
	m, _ := manager(t, dir)
	if err := m.Enrol(t.Context(), pod("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	before, _ := m.Pod("u")
	m, p := restart(t, m, dir)
	if err := redirect.Remove(w.Pod); err != nil {
		t.Fatal(err)
	}
	m.Restore(t.Context())
	if !captured(t, w.Pod) {
		t.Error("the pod is not captured after a restart")
	}
	p.Send("u")
	after, ok := m.Pod("u")
	if !ok || after.State != enrol.Enrolled || !after.Since.Equal(before.Since) || after.Pod != before.Pod {
		t.Errorf("after the restart: %+v, before: %+v", after, before)
	}
}

func TestRestartFinishesARemoval(t *testing.T) {
	w := podtest.New(t)
	dir := t.TempDir()
	m, p := manager(t, dir)
	if err := m.Enrol(t.Context(), pod("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	// The agent dies while it removes the pod: what the disk says then.
	state := filepath.Join(dir, "pods", "u.json")
	p.onDel = func(string) error {
		b, err := os.ReadFile(state)
		if err != nil {
			return err
		}
		return os.WriteFile(state+".copy", b, 0o600)
	}
	if err := m.Remove(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(state+".copy", state); err != nil {
		t.Fatal(err)
	}
	if err := redirect.Apply(w.Pod, redirect.Config{}); err != nil {
		t.Fatal(err)
	}
	m, p = restart(t, m, dir, func(c *enrol.Config) { c.Interval = 10 * time.Millisecond })
	m.Restore(t.Context())
	if uids := m.UIDs(); len(uids) != 0 {
		t.Errorf("a pod that leaves is told to the proxy: %v", uids)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	for deadline := time.Now().Add(podtest.Patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(state); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the removal was not finished")
		}
	}
	cancel()
	<-done
	if captured(t, w.Pod) {
		t.Error("rules stay")
	}
}

func TestPodWhoseNamespaceIsGoneIsKeptThenForgotten(t *testing.T) {
	w := podtest.New(t)
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", w.Pod.FD()), path); err != nil {
		t.Fatal(err)
	}
	m, _ := manager(t, dir)
	p1 := pod("u", w.Pod)
	p1.NetnsPath = path
	if err := m.Enrol(t.Context(), p1); err != nil {
		t.Fatal(err)
	}
	// After the restart the path leads to another namespace.
	os.Remove(path)
	if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", w.Peer.FD()), path); err != nil {
		t.Fatal(err)
	}
	m, p := restart(t, m, dir, func(c *enrol.Config) { c.Interval = 10 * time.Millisecond })
	m.Restore(t.Context())
	if captured(t, w.Peer) {
		t.Fatal("another namespace got the rules")
	}
	p.Send("u")
	if got := p.took(); !slices.Equal(got, []string{"*zds.Keep u"}) {
		t.Errorf("told: %q", got)
	}
	if s, _ := m.Pod("u"); s.State != enrol.Enrolled {
		t.Errorf("a kept pod: %+v", s)
	}
	// A proxy that does not know it either ends the matter.
	p.refuse = &zds.RefusedError{Reason: "unknown"}
	p.Send("u")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	for deadline := time.Now().Add(podtest.Patience); len(m.Pods()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the pod was not forgotten")
		}
	}
	cancel()
	<-done
}

func TestStateOfAnotherBootIsForgotten(t *testing.T) {
	w := podtest.New(t)
	dir := t.TempDir()
	m, _ := manager(t, dir)
	if err := m.Enrol(t.Context(), pod("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pods", "u.json")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v %v", info.Mode(), err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	other := strings.ReplaceAll(string(b), strings.TrimSpace(string(boot)), "another")
	if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	m, _ = restart(t, m, dir)
	m.Restore(t.Context())
	if len(m.Pods()) != 0 {
		t.Errorf("pods of another boot: %+v", m.Pods())
	}
}

func TestPodThatCameBackInTheSameNamespaceStaysCaptured(t *testing.T) {
	w := podtest.New(t)
	m, _ := manager(t, t.TempDir())
	for _, uid := range []string{"old", "new"} {
		if err := m.Enrol(t.Context(), pod(uid, w.Pod)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Remove(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	if !captured(t, w.Pod) {
		t.Error("removing the old pod released the new one")
	}
}

func TestPodInAnotherNamespaceReplacesTheOldOne(t *testing.T) {
	a, b := podtest.New(t), podtest.New(t)
	m, p := manager(t, t.TempDir())
	for _, w := range []podtest.World{a, b} {
		if err := m.Enrol(t.Context(), pod("u", w.Pod)); err != nil {
			t.Fatal(err)
		}
	}
	if captured(t, a.Pod) || !captured(t, b.Pod) {
		t.Errorf("captured: old %v, new %v", captured(t, a.Pod), captured(t, b.Pod))
	}
	if got := p.took(); len(got) != 2 {
		t.Errorf("told: %q", got)
	}
}

func TestAnswersOfAReplacedPodDoNotCount(t *testing.T) {
	a, b := podtest.New(t), podtest.New(t)
	m, p := manager(t, t.TempDir())
	if err := m.Enrol(t.Context(), pod("u", a.Pod)); err != nil {
		t.Fatal(err)
	}
	_, late := m.Request("u")
	p.refuse = proxies.ErrUnanswered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Enrol(ctx, pod("u", b.Pod)); err == nil {
		t.Error("enrolled without an answer")
	}
	late(nil)
	if s, _ := m.Pod("u"); s.State != enrol.Pending {
		t.Errorf("the answer for the old namespace made it %+v", s)
	}
}

func TestManyAtOnce(t *testing.T) {
	w := podtest.New(t)
	m, _ := manager(t, t.TempDir(), func(c *enrol.Config) { c.Interval = time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 5 {
				p := pod("u", w.Pod)
				p.Strict = i%2 == 0
				// One's Remove may come between the other's steps.
				if err := m.Enrol(ctx, p); err != nil && !strings.Contains(err.Error(), "meanwhile") {
					t.Error(err)
				}
				m.Pods()
				if i == 3 {
					if err := m.Remove(ctx, "u"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := m.Remove(ctx, "u"); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
	if captured(t, w.Pod) {
		t.Error("rules stay")
	}
}

// The rules of a pod would cut the node off.
func TestOwnNamespaceIsNotCaptured(t *testing.T) {
	roottest.Require(t)
	own, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	m, p := manager(t, t.TempDir())
	var invalid *enrol.InvalidError
	if err := m.Enrol(t.Context(), pod("u", own)); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "own network namespace") {
		t.Errorf("Enrol: %v", err)
	}
	if present, err := redirect.Present(own); err != nil || present {
		t.Errorf("rules are there: %v, %v", present, err)
	}
	if told := p.took(); len(told) != 0 || len(m.Pods()) != 0 {
		t.Errorf("told %v, pods %v", told, m.Pods())
	}
}

func TestTruncatedStateIsReported(t *testing.T) {
	w := podtest.New(t)
	dir := t.TempDir()
	m, _ := manager(t, dir)
	if err := m.Enrol(t.Context(), pod("u", w.Pod)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "pods", "u.json"))
	if err != nil {
		t.Fatal(err)
	}
	whole = []byte(strings.TrimSpace(string(whole)))
	for n := range whole {
		if enrol.DecodeRecord(whole[:n]) == nil {
			t.Errorf("%d of %d bytes were taken for a record", n, len(whole))
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"uid":"u","name":"a","namespace":"b","netnsPath":"/x","netns":{"Dev":1,"Ino":2}}`))
	f.Fuzz(func(t *testing.T, b []byte) { enrol.DecodeRecord(b) })
}
