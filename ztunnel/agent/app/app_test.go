package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/agent/app"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is an agent, and a proxy that greets instead of carrying, with the real
// enrolment client.
type node struct {
	t      *testing.T
	dir    string
	cfg    app.Config
	client *http.Client
	log    *logBuffer

	stopAgent, stopProxy func()

	mu      sync.Mutex
	refusal error
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newNode(t *testing.T) *node {
	dir := t.TempDir()
	n := &node{t: t, dir: dir, log: &logBuffer{}, cfg: app.Config{
		ZDSSocket: filepath.Join(dir, "zds", "s"), APISocket: filepath.Join(dir, "api", "s"),
		StateDir: filepath.Join(dir, "state"), LogLevel: "debug",
	}}
	n.cfg.LogOutput = n.log
	n.client = &http.Client{Timeout: podtest.Patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", n.cfg.APISocket)
		},
	}}
	t.Cleanup(func() {
		if n.stopProxy != nil {
			n.stopProxy()
		}
		if n.stopAgent != nil {
			n.stopAgent()
		}
		if t.Failed() {
			t.Log("log of agent and proxy:\n" + n.log.String())
		}
	})
	return n
}

// startAgent runs the agent and waits until it answers.
func (n *node) startAgent() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx, n.cfg) }()
	n.stopAgent = func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("agent: %v", err)
		}
		n.stopAgent = nil
	}
	n.eventually("the agent answers", func() bool {
		res, err := n.client.Get("http://agent/healthz/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// eventually polls: the other side is another process's state.
func (n *node) eventually(what string, f func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(podtest.Patience); ; {
		if f() {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type greeter struct{ stops []func() }

func (g *greeter) Drain(context.Context) {
	for _, stop := range g.stops {
		stop()
	}
}

// startProxy runs a proxy whose listeners greet with the port's purpose.
func (n *node) startProxy() {
	n.t.Helper()
	client, err := inpod.New(inpod.Config{Socket: n.cfg.ZDSSocket, Start: func(_ context.Context, pod inpod.Pod) (inpod.Proxy, error) {
		n.mu.Lock()
		refusal := n.refusal
		n.mu.Unlock()
		if refusal != nil {
			return nil, refusal
		}
		g := &greeter{}
		for port, name := range map[uint16]string{15001: "outbound", 15006: "inbound", 15008: "hbone"} {
			lns, err := inpod.Listen(pod.NS, port)
			if err != nil {
				g.Drain(context.Background())
				return nil, err
			}
			for _, ln := range lns {
				g.stops = append(g.stops, podtest.GreetOn(name, ln))
			}
		}
		return g, nil
	}})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	n.stopProxy = func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("proxy: %v", err)
		}
		n.stopProxy = nil
	}
}

func (n *node) do(method, path, body string) (int, string) {
	n.t.Helper()
	req, err := http.NewRequest(method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	res, err := n.client.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func podBody(ns *netns.NS, strict bool) string {
	return fmt.Sprintf(`{"name":"web-0","namespace":"shop","serviceAccount":"web","netnsPath":"/proc/self/fd/%d","strict":%v}`, ns.FD(), strict)
}

func (n *node) enrol(ns *netns.NS) {
	n.t.Helper()
	if code, body := n.do("PUT", "/v1/pods/uid-1", podBody(ns, false)); code != http.StatusOK {
		n.t.Fatalf("PUT: %d %s", code, body)
	}
}

func (n *node) status() enrol.Status {
	n.t.Helper()
	code, body := n.do("GET", "/v1/pods/uid-1", "")
	if code != http.StatusOK {
		n.t.Fatalf("GET: %d %s", code, body)
	}
	var s enrol.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

var (
	server  = netip.AddrPortFrom(podtest.Peer4, 80)
	service = netip.AddrPortFrom(podtest.Pod4, 8080)
)

// traffic starts an application in the pod and a server outside.
func traffic(t *testing.T) podtest.World {
	t.Helper()
	w := podtest.New(t)
	podtest.Greet(t, w.Peer, "server", server)
	podtest.Greet(t, w.Pod, "app", service)
	return w
}

// expect calls in both directions.
func expect(t *testing.T, w podtest.World, when, out, in string) {
	t.Helper()
	for _, c := range []struct {
		direction, want string
		from            *netns.NS
		to              netip.AddrPort
	}{{"outbound", out, w.Pod, server}, {"inbound", in, w.Peer, service}} {
		g, err := podtest.Call(t, c.from, c.to)
		switch {
		case c.want == "refused":
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s, %s: came to %q, %v; want refused", when, c.direction, g.Name, err)
			}
		case err != nil || g.Name != c.want:
			t.Errorf("%s, %s: came to %q, %v; want %s", when, c.direction, g.Name, err, c.want)
		}
	}
}

func TestEnrolAndRelease(t *testing.T) {
	w := traffic(t)
	n := newNode(t)
	n.startAgent()
	n.startProxy()
	expect(t, w, "before", "server", "app")
	n.enrol(w.Pod)
	expect(t, w, "enrolled", "outbound", "inbound")
	if s := n.status(); s.State != enrol.Enrolled || !strings.Contains(s.UDP, "not captured") || s.OlderConnections == nil {
		t.Errorf("status %+v", s)
	}
	n.enrol(w.Pod) // once more
	expect(t, w, "enrolled twice", "outbound", "inbound")
	for range 2 {
		if code, body := n.do("DELETE", "/v1/pods/uid-1", ""); code != http.StatusOK {
			t.Fatalf("DELETE: %d %s", code, body)
		}
		expect(t, w, "released", "server", "app")
	}
	if code, _ := n.do("GET", "/v1/pods/uid-1", ""); code != http.StatusNotFound {
		t.Errorf("GET after DELETE: %d", code)
	}
	if files, _ := os.ReadDir(filepath.Join(n.cfg.StateDir, "pods")); len(files) != 0 {
		t.Errorf("state left behind: %v", files)
	}
}

func TestWithoutProxyRefusedAndNotPlain(t *testing.T) {
	w := traffic(t)
	n := newNode(t)
	n.startAgent()
	code, body := n.do("PUT", "/v1/pods/uid-1?timeout=50ms", podBody(w.Pod, false))
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "no ztunnel") {
		t.Errorf("PUT without a proxy: %d %s", code, body)
	}
	expect(t, w, "no proxy", "refused", "refused")
	if s := n.status(); s.State != enrol.Pending {
		t.Errorf("status %+v", s)
	}
	n.startProxy()
	n.eventually("the pod is enrolled", func() bool { return n.status().State == enrol.Enrolled })
	expect(t, w, "enrolled", "outbound", "inbound")
	n.stopProxy()
	n.eventually("the pod is pending", func() bool { return n.status().State == enrol.Pending })
	expect(t, w, "proxy gone", "refused", "refused")
	n.startProxy()
	n.eventually("the pod is enrolled again", func() bool { return n.status().State == enrol.Enrolled })
	expect(t, w, "proxy back", "outbound", "inbound")
}

func TestAgentRestartKeepsPods(t *testing.T) {
	w := traffic(t)
	n := newNode(t)
	n.startAgent()
	n.startProxy()
	n.enrol(w.Pod)
	n.stopAgent()
	expect(t, w, "no agent", "outbound", "inbound")
	n.startAgent()
	n.eventually("the pod is enrolled again", func() bool { return n.status().State == enrol.Enrolled })
	expect(t, w, "agent back", "outbound", "inbound")

	// Rules lost while the agent was away are back before anybody is told.
	n.stopAgent()
	if err := redirect.Remove(w.Pod); err != nil {
		t.Fatal(err)
	}
	expect(t, w, "rules lost", "server", "app")
	n.startAgent()
	expect(t, w, "rules back", "outbound", "inbound")
	n.stopProxy()
	n.stopAgent()
	expect(t, w, "all down", "refused", "refused")
}

func TestFlushedRulesAreWrittenAgain(t *testing.T) {
	w := traffic(t)
	n := newNode(t)
	n.startAgent()
	n.startProxy()
	n.enrol(w.Pod)
	if err := redirect.Remove(w.Pod); err != nil {
		t.Fatal(err)
	}
	n.eventually("the pod is captured again", func() bool {
		g, err := podtest.Call(t, w.Pod, server)
		return err == nil && g.Name == "outbound"
	})
	if !strings.Contains(n.log.String(), "somebody changed the pod's rules") {
		t.Error("nobody was warned")
	}
}

func TestRefusedPodIsToldAndTriedAgain(t *testing.T) {
	w := traffic(t)
	n := newNode(t)
	n.refusal = errors.New("no certificate")
	n.startAgent()
	n.startProxy()
	code, body := n.do("PUT", "/v1/pods/uid-1", podBody(w.Pod, false))
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "no certificate") {
		t.Errorf("PUT of a refused pod: %d %s", code, body)
	}
	if s := n.status(); s.State != enrol.Failed || !strings.Contains(s.Reason, "no certificate") {
		t.Errorf("status %+v", s)
	}
	expect(t, w, "refused pod", "refused", "refused")
	n.mu.Lock()
	n.refusal = nil
	n.mu.Unlock()
	n.eventually("the pod is enrolled", func() bool { return n.status().State == enrol.Enrolled })
	expect(t, w, "enrolled", "outbound", "inbound")
}

func TestOlderConnectionsAreListed(t *testing.T) {
	w := traffic(t)
	n := newNode(t)
	c, s := podtest.Connect(t, w.Pod, w.Peer, netip.AddrPortFrom(podtest.Peer4, 81))
	n.startAgent()
	n.startProxy()
	n.enrol(w.Pod)
	st := n.status()
	if st.OlderCount != 1 || len(st.OlderConnections) != 1 || st.OlderConnections[0].Remote != netip.AddrPortFrom(podtest.Peer4, 81) {
		t.Errorf("older connections: %+v", st.OlderConnections)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Errorf("the older connection broke: %v", err)
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	if err := app.Run(t.Context(), n.cfg); !errors.Is(err, enrol.ErrLocked) {
		t.Errorf("a second agent on the same state: %v", err)
	}
	if code, _ := n.do("GET", "/v1/pods", ""); code != http.StatusOK {
		t.Errorf("the first agent answers %d", code)
	}
}

func TestBadRequestsSayWhatIsWrong(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	for _, tc := range []struct{ path, body, says string }{
		{"/v1/pods/u", `{`, "request body"},
		{"/v1/pods/u", `{"name":"a","namespce":"b"}`, "namespce"},
		{"/v1/pods/u", `{"name":"a","namespace":"b","netnsPath":"/x"} {}`, "more after"},
		{"/v1/pods/u", `{"name":"A b","namespace":"b","netnsPath":"/x"}`, `name \"A b\"`},
		{"/v1/pods/u", `{"name":"a","namespace":"b","netnsPath":"x"}`, "absolute"},
		{"/v1/pods/u", `{"name":"a","namespace":"b","netnsPath":"/nowhere"}`, "/nowhere"},
		{"/v1/pods/u", `{"name":"a","namespace":"b","netnsPath":"/dev/null"}`, "/dev/null"},
		{"/v1/pods/..%2Fx", `{"name":"a","namespace":"b","netnsPath":"/x"}`, "uid"},
		{"/v1/pods/u?timeout=1h", `{"name":"a","namespace":"b","netnsPath":"/x"}`, "timeout"},
	} {
		if code, body := n.do("PUT", tc.path, tc.body); code != http.StatusBadRequest || !strings.Contains(body, tc.says) {
			t.Errorf("%s %s: %d %s, want 400 and %q", tc.path, tc.body, code, body, tc.says)
		}
	}
	if code, _ := n.do("DELETE", "/v1/pods/never", ""); code != http.StatusOK {
		t.Errorf("DELETE of an unknown pod: %d", code)
	}
}

// The whole life of many pods leaves no descriptor.
func TestNoDescriptorIsLeft(t *testing.T) {
	w := traffic(t)
	round := func() {
		n := newNode(t)
		n.startAgent()
		n.startProxy()
		n.enrol(w.Pod)
		n.do("DELETE", "/v1/pods/uid-1", "")
		n.enrol(w.Pod)
		n.stopProxy()
		n.stopAgent()
		if err := redirect.Remove(w.Pod); err != nil {
			t.Fatal(err)
		}
	}
	round()
	before := podtest.OpenFDs(t)
	for range 3 {
		round()
	}
	if after := podtest.OpenFDs(t); after > before {
		links, _ := exec.Command("ls", "-l", fmt.Sprintf("/proc/%d/fd", os.Getpid())).CombinedOutput()
		t.Errorf("%d descriptors more than before\n%s", after-before, links)
	}
}
