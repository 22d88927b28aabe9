package app_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/istiod-lite/app"
	"github.com/tulle-mesh/tulle/istiod-lite/config"
)

// childEnv makes this test program a control plane: CONFIG|STATE|KEY|LISTEN.
const childEnv = "TULLE_TEST_ISTIOD"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		child(strings.Split(spec, "|"))
		return
	}
	goleak.VerifyTestMain(m)
}

func child(spec []string) {
	cfg := config.Default()
	cfg.ConfigDir, cfg.StateDir, cfg.TokenKeys, cfg.Listen, cfg.Admin = spec[0], spec[1], []string{spec[2]}, spec[3], "127.0.0.1:0"
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	a, err := app.New(cfg, app.Options{Logger: zap.NewNop()})
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString(a.Addr().String() + "\n")
	if err := a.Run(ctx); err != nil {
		os.Exit(1)
	}
}

// process is a control plane of its own that can be killed.
func (p *plane) process() *exec.Cmd {
	p.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{p.configDir, p.stateDir, p.keyFile, p.cfg.Listen}, "|"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(line, ":") {
		p.t.Fatalf("child: %q, %v", line, err)
	}
	p.cfg.Listen = strings.TrimSpace(line)
	return cmd
}

// TestAKilledControlPlaneRecoversByItself kills the process with SIGKILL, changes
// the mesh, and starts another on the same directories: the proxy, which was
// left alone, trusts it and gets what changed.
func TestAKilledControlPlaneRecoversByItself(t *testing.T) {
	p := newPlane(t)
	p.write("ns.yaml", namespaceYAML)
	p.write("a.yaml", podYAML("shop", "a", "10.0.0.1", ""))
	p.write("b.yaml", podYAML("shop", "b", "10.0.0.2", ""))
	cmd := p.process()
	m := p.connect("ztunnel")
	m.synced()
	m.await("both pods", func(s map[string]proto.Message) bool { return len(s) == 2 })
	root, err := os.ReadFile(p.cfg.RootFile())
	if err != nil {
		t.Fatal(err)
	}
	m.take()

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	deadline(t, "the loss to be noticed", func() bool { return !m.client.Status().Connected })
	if m.mu.Lock(); len(m.state) != 2 {
		t.Errorf("the proxy lost its state with the control plane: %v", m.state)
	}
	m.mu.Unlock()
	p.write("b.yaml", podYAML("shop", "b", "10.0.0.22", ""))
	p.write("c.yaml", podYAML("shop", "c", "10.0.0.3", ""))
	cmd = p.process()
	m.await("the changes", func(s map[string]proto.Message) bool {
		return len(s) == 3 && workload(s["Kubernetes//Pod/shop/b"]).GetAddresses()[0][3] == 22
	})
	for _, delta := range m.take() {
		for _, name := range delta {
			if name == "Kubernetes//Pod/shop/a" {
				t.Error("the unchanged pod was sent again")
			}
		}
	}
	if again, err := os.ReadFile(p.cfg.RootFile()); err != nil || string(again) != string(root) {
		t.Errorf("the root changed with the restart: %v", err)
	}

	// In order this time.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	case <-time.After(bound):
		cmd.Process.Kill()
		t.Fatal("SIGTERM did not end it")
	}
}
