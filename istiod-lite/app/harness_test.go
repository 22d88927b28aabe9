package app_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	apisecurity "github.com/tulle-mesh/tulle/api/security"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/nodetoken"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/istiod-lite/app"
	"github.com/tulle-mesh/tulle/istiod-lite/config"
)

// bound is how long a test waits for what must happen; reaching it fails.
const bound = 60 * time.Second

// plane is a control plane under test with its directories.
type plane struct {
	t         *testing.T
	configDir string
	stateDir  string
	key       *nodetoken.Key
	keyFile   string
	cfg       config.Config

	app    *app.App
	cancel context.CancelFunc
	done   chan error
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	dir := t.TempDir()
	p := &plane{t: t, configDir: filepath.Join(dir, "config"), stateDir: filepath.Join(dir, "state"), keyFile: filepath.Join(dir, "key.pub")}
	if err := os.Mkdir(p.configDir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.key, err = nodetoken.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	pub, err := p.key.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.keyFile, pub, 0o644); err != nil {
		t.Fatal(err)
	}
	p.cfg = config.Default()
	p.cfg.ConfigDir, p.cfg.StateDir, p.cfg.TokenKeys = p.configDir, p.stateDir, []string{p.keyFile}
	p.cfg.Listen, p.cfg.Admin = "127.0.0.1:0", "127.0.0.1:0"
	p.cfg.DrainDeadline = 200 * time.Millisecond
	return p
}

func (p *plane) start() *plane {
	p.t.Helper()
	a, err := app.New(p.cfg, app.Options{Logger: zap.NewNop()})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.app, p.cancel, p.done = a, cancel, make(chan error, 1)
	p.cfg.Listen = a.Addr().String() // a restart comes back where clients look
	go func() { p.done <- a.Run(ctx) }()
	p.t.Cleanup(p.stop)
	return p
}

func (p *plane) stop() {
	if p.cancel == nil {
		return
	}
	p.cancel()
	p.cancel = nil
	select {
	case err := <-p.done:
		if err != nil {
			p.t.Errorf("Run: %v", err)
		}
	case <-time.After(bound):
		p.t.Fatal("the control plane did not end")
	}
}

// write puts a file in place in one step, as meshctl does.
func (p *plane) write(name, content string) {
	p.t.Helper()
	path := filepath.Join(p.configDir, name)
	if err := os.WriteFile(path+".tmp", []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plane) token(account string) string {
	p.t.Helper()
	return p.tokenOf(nodetoken.Claims{Namespace: "istio-system", ServiceAccount: account, PodName: account + "-n1", PodUID: "u1", Node: "n1"})
}

func (p *plane) tokenOf(claims nodetoken.Claims) string {
	p.t.Helper()
	token, err := nodetoken.Mint(p.key, claims, time.Hour)
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *plane) dialConfig(account string) xdsclient.DialConfig {
	root := filepath.Join(p.stateDir, "root-cert.pem")
	return xdsclient.DialConfig{
		Address: p.cfg.Listen,
		TLS: func() (*tls.Config, error) {
			return mtls.ControlPlaneClient(mtls.RootsFromFile(root), "istiod.istio-system.svc"), nil
		},
		TokenFile: p.token(account),
		ClusterID: "Kubernetes",
	}
}

func (p *plane) get(path string, into any) int {
	p.t.Helper()
	client := &http.Client{Timeout: bound, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + p.app.AdminAddr().String() + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if s, ok := into.(*string); ok {
		*s = string(body)
	} else if into != nil {
		if err := json.Unmarshal(body, into); err != nil {
			p.t.Fatalf("%s: %v\n%s", path, err, body)
		}
	}
	return resp.StatusCode
}

// mirror is a proxy's copy of the mesh.
type mirror struct {
	t      *testing.T
	client *xdsclient.Client
	wake   chan struct{}

	mu       sync.Mutex
	state    map[string]proto.Message
	batches  [][]string // names of each delta, removals with a minus
	rejected map[string]bool
}

func (p *plane) connect(account string) *mirror {
	p.t.Helper()
	return connectMirror(p.t, p.dialConfig(account))
}

func connectMirror(t *testing.T, dial xdsclient.DialConfig) *mirror {
	t.Helper()
	m := &mirror{t: t, state: map[string]proto.Message{}, wake: make(chan struct{}, 1), rejected: map[string]bool{}}
	node, err := xdsclient.NewNode(xdsclient.Identity{Name: "ztunnel-n1", Namespace: "istio-system", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	m.client, err = xdsclient.New(xdsclient.Config{
		Dial: xdsclient.Dialer(dial), Node: node, Logger: zap.NewNop(),
		Handlers: map[string]xdsclient.Handler{
			xdsclient.AddressType:       xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection { return m.apply(d, new(apiworkload.Address)) }),
			xdsclient.AuthorizationType: xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection { return m.apply(d, new(apisecurity.Authorization)) }),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.client.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

func (m *mirror) apply(d xdsclient.Delta, kind proto.Message) (rejections []xdsclient.Rejection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, r := range d.Resources {
		names = append(names, r.Name)
		if m.rejected[r.Name] {
			rejections = append(rejections, xdsclient.Rejection{Name: r.Name, Err: fmt.Errorf("refused by the test")})
			continue
		}
		body := proto.Clone(kind)
		if err := r.Body.UnmarshalTo(body); err != nil {
			rejections = append(rejections, xdsclient.Rejection{Name: r.Name, Err: err})
			continue
		}
		m.state[r.Name] = body
	}
	for _, name := range d.Removed {
		names = append(names, "-"+name)
		delete(m.state, name)
	}
	m.batches = append(m.batches, names)
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return rejections
}

// await waits until cond holds of the state.
func (m *mirror) await(what string, cond func(state map[string]proto.Message) bool) {
	m.t.Helper()
	deadline := time.After(bound)
	for {
		m.mu.Lock()
		ok := cond(m.state)
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-m.wake:
		case <-deadline:
			m.t.Fatalf("waited %v for %s; status %+v", bound, what, m.client.Status())
		}
	}
}

func (m *mirror) synced() {
	m.t.Helper()
	select {
	case <-m.client.Synced():
	case <-time.After(bound):
		m.t.Fatalf("not synced within %v: %+v", bound, m.client.Status())
	}
}

// take returns the deltas since the last take.
func (m *mirror) take() [][]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.batches
	m.batches = nil
	return b
}

func podYAML(ns, name, ip, extra string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s, labels: {app: web%[4]s}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c}]}
status: {phase: Running, podIP: %[3]s, podIPs: [{ip: %[3]s}], conditions: [{type: Ready, status: "True"}]}
`, ns, name, ip, extra)
}

const namespaceYAML = `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
`

// deadline polls what has no event to wait for.
func deadline(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(bound)
	for !cond() {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", bound, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
