package proxies_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/agent/proxies"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// pods is a Source that the test controls.
type pods struct {
	ns *netns.NS

	mu        sync.Mutex
	requests  map[string]zds.Request // an Add gets ns
	answers   []string
	connected []bool
	news      chan struct{}
}

func newPods(t *testing.T, uids ...string) *pods {
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	p := &pods{ns: ns, requests: map[string]zds.Request{}, news: make(chan struct{}, 100)}
	for _, uid := range uids {
		p.add(uid)
	}
	return p
}

func (p *pods) add(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[uid] = &zds.Add{UID: uid, Info: zds.Info{Name: uid, Namespace: "shop"}, NS: p.ns}
}

func (p *pods) drop(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.requests, uid)
}

func (p *pods) UIDs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.requests))
}

func (p *pods) Request(uid string) (zds.Request, func(error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.requests[uid]
	if r == nil {
		return nil, nil
	}
	return r, func(err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.answers = append(p.answers, fmt.Sprintf("%s: %v", uid, err))
		p.news <- struct{}{}
	}
}

func (p *pods) Connected(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connected = append(p.connected, yes)
	p.news <- struct{}{}
}

// wait blocks until f holds, looking again at each piece of news.
func (p *pods) wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	late := time.After(patience)
	for {
		p.mu.Lock()
		ok := f()
		p.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-p.news:
		case <-late:
			t.Fatalf("waited in vain for %s; answers %q, connected %v", what, p.answers, p.connected)
		}
	}
}

func (p *pods) answered(t *testing.T, want string) {
	t.Helper()
	p.wait(t, want, func() bool { return slices.Contains(p.answers, want) })
}

type server struct {
	*proxies.Server
	path string
}

func run(t *testing.T, source proxies.Source, patience time.Duration) server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zds")
	s, err := proxies.Listen(proxies.Config{Socket: path, AckTimeout: patience, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, source) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return server{s, path}
}

// proxy is a node proxy that speaks the real protocol, driven by the test.
type proxy struct {
	t *testing.T
	*zds.Conn
}

func (s server) connect(t *testing.T) proxy {
	t.Helper()
	c, err := zds.Dial(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(patience))
	if err := c.SendHello(); err != nil {
		t.Fatal(err)
	}
	return proxy{t, c}
}

// next takes one request, says what it is, and answers it.
func (p proxy) next(want string, answer error) {
	p.t.Helper()
	p.take(want)
	if err := p.SendAck(answer); err != nil {
		p.t.Fatal(err)
	}
}

func (p proxy) take(want string) {
	p.t.Helper()
	r, err := p.Receive()
	if err != nil {
		p.t.Fatalf("instead of %s: %v", want, err)
	}
	got := ""
	switch r := r.(type) {
	case *zds.Add:
		r.NS.Close()
		got = "add " + r.UID
	case *zds.Keep:
		got = "keep " + r.UID
	case *zds.Del:
		got = "del " + r.UID
	case *zds.SnapshotSent:
		got = "end"
	}
	if got != want {
		p.t.Fatalf("got %s, want %s", got, want)
	}
}

func (p proxy) ended() {
	p.t.Helper()
	if r, err := p.Receive(); !errors.Is(err, io.EOF) {
		p.t.Fatalf("got %v, %v; want the end of the connection", r, err)
	}
}

func TestListThenChanges(t *testing.T) {
	source := newPods(t, "a", "b")
	source.requests["k"] = &zds.Keep{UID: "k"}
	s := run(t, source, patience)
	p := s.connect(t)
	p.next("add a", nil)
	p.next("add b", errors.New("no room"))
	p.next("keep k", nil)
	p.next("end", nil)
	source.answered(t, "a: <nil>")
	source.answered(t, "b: the proxy refused: no room")
	source.answered(t, "k: <nil>")

	s.Send("k") // may not be kept any more
	source.answered(t, "k: "+proxies.ErrUnanswered.Error())
	s.Send("gone")
	source.add("c")
	s.Send("c")
	p.next("add c", nil)
	source.answered(t, "c: <nil>")

	source.drop("a")
	deleted := make(chan error, 1)
	go func() { deleted <- s.Delete(t.Context(), "a") }()
	p.next("del a", nil)
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	source.mu.Lock()
	defer source.mu.Unlock()
	if !slices.Equal(source.connected, []bool{true}) {
		t.Errorf("connected: %v", source.connected)
	}
}

func TestPodThatLeavesAndComesBackIsToldInOrder(t *testing.T) {
	source := newPods(t)
	s := run(t, source, patience)
	p := s.connect(t)
	p.take("end") // hold the queue by not answering yet
	source.add("a")
	s.Send("a")
	s.Send("a") // once is enough
	source.drop("a")
	deleted := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	deleted <- s.Delete(ctx, "a") // queued, not waited for
	if err := <-deleted; !errors.Is(err, context.Canceled) {
		t.Errorf("Delete with an ended context: %v", err)
	}
	source.add("a")
	s.Send("a")
	if err := p.SendAck(nil); err != nil {
		t.Fatal(err)
	}
	p.next("add a", nil) // of the first Send, with what is true now
	p.next("del a", nil)
	p.next("add a", nil)
	source.answered(t, "a: <nil>")
}

func TestNewestGetsPodsAndAllHearOfLeaving(t *testing.T) {
	source := newPods(t, "a")
	s := run(t, source, patience)
	old := s.connect(t)
	old.next("add a", nil)
	old.next("end", nil)
	source.answered(t, "a: <nil>")
	fresh := s.connect(t)
	// What the newest one does not take stays with the older one.
	fresh.next("add a", errors.New("no room"))
	fresh.next("end", nil)
	s.Send("a")
	fresh.next("add a", nil)
	old.next("del a", nil)
	source.add("b")
	s.Send("b")
	fresh.next("add b", nil)
	old.next("del b", nil)
	source.drop("a")
	deleted := make(chan error, 1)
	go func() { deleted <- s.Delete(t.Context(), "a") }()
	old.next("del a", nil)
	fresh.next("del a", nil)
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	// When the newest goes, the older one gets the pods.
	fresh.Close()
	old.next("add b", nil)
	source.mu.Lock()
	for _, c := range source.connected {
		if !c {
			t.Errorf("connected: %v", source.connected)
		}
	}
	source.mu.Unlock()
	old.Close()
	source.wait(t, "the end", func() bool { return len(source.connected) > 0 && !source.connected[len(source.connected)-1] })
}

func TestSilentProxyIsCutOff(t *testing.T) {
	source := newPods(t, "a")
	s := run(t, source, 50*time.Millisecond)
	p := s.connect(t)
	p.take("add a")
	p.ended()
	source.answered(t, "a: "+proxies.ErrUnanswered.Error())
	// One that says nothing at all, too.
	c, err := zds.Dial(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	proxy{t, c}.ended()
}

func TestUnaskedAckEndsTheConnection(t *testing.T) {
	s := run(t, newPods(t), patience)
	p := s.connect(t)
	p.next("end", nil)
	if err := p.SendAck(nil); err != nil {
		t.Fatal(err)
	}
	p.ended()
}

func TestDeleteWithoutProxies(t *testing.T) {
	s := run(t, newPods(t), patience)
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	s.Send("a")
}

func TestDeleteDoesNotWaitForAProxyThatDies(t *testing.T) {
	source := newPods(t)
	s := run(t, source, patience)
	p := s.connect(t)
	p.next("end", nil)
	deleted := make(chan error, 1)
	go func() { deleted <- s.Delete(t.Context(), "a") }()
	p.take("del a")
	p.Close()
	if err := <-deleted; err != nil {
		t.Error(err)
	}
}

func TestProxyThatBreaksTheProtocolInItsHello(t *testing.T) {
	s := run(t, newPods(t), patience)
	c, err := zds.Dial(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	if err := c.SendAck(errors.New("not a hello")); err != nil {
		t.Fatal(err)
	}
	proxy{t, c}.ended()
}
