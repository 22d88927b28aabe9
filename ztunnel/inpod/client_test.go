package inpod_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is an agent's connection in memory: the test is the agent.
type wire struct {
	requests chan zds.Request
	acks     chan error
	hello    chan struct{}
	closed   chan struct{}
	once     sync.Once
}

func newWire() *wire {
	return &wire{
		requests: make(chan zds.Request), acks: make(chan error),
		hello: make(chan struct{}, 1), closed: make(chan struct{}),
	}
}

func (w *wire) SendHello() error { w.hello <- struct{}{}; return nil }

func (w *wire) Receive() (zds.Request, error) {
	select {
	case r := <-w.requests:
		return r, nil
	case <-w.closed:
		return nil, io.EOF
	}
}

func (w *wire) SendAck(err error) error {
	select {
	case w.acks <- err:
		return nil
	case <-w.closed:
		return io.ErrClosedPipe
	}
}

func (w *wire) Close() error { w.once.Do(func() { close(w.closed) }); return nil }

func (w *wire) ask(t *testing.T, r zds.Request) error {
	t.Helper()
	select {
	case w.requests <- r:
	case <-w.closed:
		t.Fatal("the client closed the connection")
	}
	select {
	case err := <-w.acks:
		return err
	case <-w.closed:
		t.Fatal("the client closed the connection instead of an answer")
		return nil
	}
}

// world runs a client against wires and proxies that the test controls.
type world struct {
	t      *testing.T
	client *inpod.Client
	ready  *readiness.Ready
	reg    *prometheus.Registry
	dialed chan *wire

	mu      sync.Mutex
	log     []string
	failure map[string]error // by UID: Start fails
	slow    map[string]bool  // by UID: Start waits for its context
	hold    chan struct{}    // Drain waits for it, or its context
	spaces  map[string]*netns.NS
}

type proxy struct {
	w   *world
	pod inpod.Pod
}

func (p proxy) Drain(ctx context.Context) {
	p.w.note("drain " + p.pod.UID)
	if p.w.hold != nil {
		select {
		case <-p.w.hold:
		case <-ctx.Done():
			p.w.note("cut " + p.pod.UID)
		}
	}
}

func (w *world) note(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, s)
}

func (w *world) expect(want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.log, want) {
		w.t.Errorf("happened: %q, want %q", w.log, want)
	}
	w.log = nil
}

func (w *world) start(ctx context.Context, pod inpod.Pod) (inpod.Proxy, error) {
	w.mu.Lock()
	err, slow := w.failure[pod.UID], w.slow[pod.UID]
	w.mu.Unlock()
	if slow {
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	if err != nil {
		w.note("fail " + pod.UID)
		return nil, err
	}
	w.note("start " + pod.UID)
	return proxy{w, pod}, nil
}

// bubble runs f in virtual time with a running client.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	roottest.Require(t)
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, ready: readiness.New(), reg: prometheus.NewRegistry(), dialed: make(chan *wire),
			failure: map[string]error{}, slow: map[string]bool{}, spaces: map[string]*netns.NS{},
		}
		var err error
		w.client, err = inpod.New(inpod.Config{
			Dial: func(ctx context.Context) (inpod.Agent, error) {
				c := newWire()
				select {
				case w.dialed <- c:
					return c, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
			Start: w.start, Readiness: w.ready, Registerer: w.reg, DrainDeadline: 20 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.client.Run(ctx) }()
		f(t, w)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		for _, ns := range w.spaces {
			ns.Close()
		}
	})
}

func (w *world) connect() *wire {
	w.t.Helper()
	c := <-w.dialed
	<-c.hello
	return c
}

// add makes an Add for uid whose namespace is the one called space.
func (w *world) add(uid, space string) *zds.Add {
	w.t.Helper()
	ns := w.spaces[space]
	if ns == nil {
		var err error
		if ns, err = netns.New(); err != nil {
			w.t.Fatal(err)
		}
		w.spaces[space] = ns
	}
	dup, err := ns.Dup()
	if err != nil {
		w.t.Fatal(err)
	}
	return &zds.Add{UID: uid, Info: zds.Info{Name: "pod-" + uid, Namespace: "shop", ServiceAccount: "sa"}, NS: dup}
}

func (w *world) pending() string {
	synctest.Wait()
	_, pending := w.ready.Status()
	return strings.Join(pending, ",")
}

// gather writes all metrics of reg without labels.
func gather(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		m := f.GetMetric()[0]
		all = append(all, fmt.Sprintf("%s=%v", f.GetName(), m.GetGauge().GetValue()+m.GetCounter().GetValue()))
	}
	return strings.Join(all, " ")
}

func TestPodsComeAndGo(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		if got := w.pending(); got != "list of the node agent's pods" {
			t.Errorf("pending before the first list: %q", got)
		}
		c := w.connect()
		if err := c.ask(t, w.add("a", "1")); err != nil {
			t.Fatal(err)
		}
		if err := c.ask(t, &zds.SnapshotSent{}); err != nil {
			t.Fatal(err)
		}
		if got := w.pending(); got != "" {
			t.Errorf("pending after the list: %q", got)
		}
		if err := c.ask(t, w.add("b", "2")); err != nil {
			t.Fatal(err)
		}
		w.expect("start a", "start b")
		if got := fmt.Sprint(w.client.Workloads()); got != "[{a {pod-a shop sa} true } {b {pod-b shop sa} true }]" {
			t.Errorf("workloads: %s", got)
		}
		if err := c.ask(t, &zds.Del{UID: "a"}); err != nil {
			t.Fatal(err)
		}
		if err := c.ask(t, &zds.Del{UID: "never"}); err != nil {
			t.Errorf("deleting an unknown pod: %v", err)
		}
		w.expect("drain a")
		want := "workload_manager_active_proxy_count=1 workload_manager_pending_proxy_count=0 " +
			"workload_manager_proxies_started_total=2 workload_manager_proxies_stopped_total=1"
		if got := gather(t, w.reg); got != want {
			t.Errorf("metrics: %s, want %s", got, want)
		}
	})
}

func TestReconnectKeepsProxiesAndReconciles(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := w.connect()
		for _, uid := range []string{"a", "b", "c"} {
			if err := c.ask(t, w.add(uid, uid)); err != nil {
				t.Fatal(err)
			}
		}
		c.ask(t, &zds.SnapshotSent{})
		w.expect("start a", "start b", "start c")
		c.Close()
		c = w.connect()
		w.expect()
		if err := c.ask(t, &zds.Keep{UID: "a"}); err != nil {
			t.Error(err)
		}
		if err := c.ask(t, w.add("b", "b")); err != nil { // the same once more
			t.Error(err)
		}
		if err := c.ask(t, &zds.Keep{UID: "unknown"}); err == nil {
			t.Error("an unknown pod was kept")
		}
		w.expect()
		c.ask(t, &zds.SnapshotSent{})
		w.expect("drain c")
	})
}

func TestSamePodInAnotherNamespaceIsReplaced(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := w.connect()
		c.ask(t, w.add("a", "1"))
		w.expect("start a")
		if err := c.ask(t, w.add("a", "2")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.mu.Lock()
		slices.Sort(w.log) // the two happen side by side
		w.mu.Unlock()
		w.expect("drain a", "start a")
	})
}

func TestFailedStartIsToldAndTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := w.connect()
		w.failure["a"] = errors.New("port taken")
		if err := c.ask(t, w.add("a", "1")); err == nil || err.Error() != "port taken" {
			t.Errorf("ack: %v", err)
		}
		c.ask(t, &zds.SnapshotSent{})
		if got := w.pending(); got != "proxy of shop/pod-a" {
			t.Errorf("pending: %q", got)
		}
		if got := w.client.Workloads(); len(got) != 1 || got[0].Up || got[0].Error != "port taken" {
			t.Errorf("workloads: %+v", got)
		}
		w.expect("fail a")
		time.Sleep(5 * time.Second)
		w.expect("fail a")
		c.Close() // tried again without a connection, too
		w.mu.Lock()
		delete(w.failure, "a")
		w.mu.Unlock()
		time.Sleep(5 * time.Second)
		w.expect("start a")
		if got := w.pending(); got != "" {
			t.Errorf("pending: %q", got)
		}
	})
}

func TestDelEndsRetries(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := w.connect()
		w.failure["a"] = errors.New("no")
		c.ask(t, w.add("a", "1"))
		c.ask(t, &zds.SnapshotSent{})
		c.ask(t, &zds.Del{UID: "a"})
		w.expect("fail a")
		time.Sleep(time.Minute)
		w.expect()
		if got := w.pending(); got != "" {
			t.Errorf("pending: %q", got)
		}
	})
}

func TestSlowStartIsAnsweredInTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := w.connect()
		w.slow["a"] = true
		begun := time.Now()
		if err := c.ask(t, w.add("a", "1")); err == nil {
			t.Error("a start that does not end was acknowledged")
		}
		if took := time.Since(begun); took >= 5*time.Second {
			t.Errorf("answered after %v", took)
		}
		w.expect("fail a")
	})
}

func TestPodThatComesBackWaitsForItsPorts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.hold = make(chan struct{})
		c := w.connect()
		c.ask(t, w.add("a", "1"))
		c.ask(t, &zds.Del{UID: "a"})
		w.expect("start a", "drain a")
		w.mu.Lock()
		w.failure["a"] = errors.New("address in use")
		w.mu.Unlock()
		time.AfterFunc(time.Second, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.failure, "a")
		})
		if err := c.ask(t, w.add("a", "1")); err != nil {
			t.Errorf("ack: %v", err)
		}
		close(w.hold)
	})
}

func TestDrainHasADeadline(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.hold = make(chan struct{})
		c := w.connect()
		c.ask(t, w.add("a", "1"))
		c.ask(t, &zds.Del{UID: "a"})
		time.Sleep(19 * time.Second)
		w.expect("start a", "drain a")
		time.Sleep(time.Second)
		w.expect("cut a")
	})
}

func TestProtocolErrorsEndTheConnectionAndNotTheProxies(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := w.connect()
		c.ask(t, w.add("a", "1"))
		c.ask(t, &zds.SnapshotSent{})
		c.requests <- &zds.Keep{UID: "a"} // after the list
		<-c.closed
		w.connect()
		w.expect("start a")
	})
}

func TestShutdownDrainsEverything(t *testing.T) {
	var w2 *world
	bubble(t, func(t *testing.T, w *world) {
		w2 = w
		c := w.connect()
		c.ask(t, w.add("a", "1"))
		c.ask(t, &zds.SnapshotSent{})
		w.expect("start a")
	})
	if w2 != nil && !slices.Equal(w2.log, []string{"drain a"}) {
		t.Errorf("at the end happened %q", w2.log)
	}
}
