package mesh_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/roottest"
)

// patience bounds every wait of these tests; none should come near it.
const patience = 60 * time.Second

// mesh is a running mesh of two nodes, shared by the tests of this package.
// Tests that change objects put them back.
type mesh struct {
	root  string // everything below one folder
	bin   string // the built binaries
	conf  string // what is given to meshctl local up -f
	state string
	args  []string // further arguments of up
}

// shared is started by the first test that asks and stopped by TestMain.
var shared struct {
	once sync.Once
	mesh *mesh
	err  error
}

// binaryDir is where binaries has built; TestMain removes it.
var binaryDir string

// binaries builds the programs, once for all meshes.
var binaries = sync.OnceValues(func() (dir string, err error) {
	if binaryDir, err = os.MkdirTemp("", "tulle-e2e-bin-"); err != nil {
		return "", err
	}
	// The pods run under other users too.
	return binaryDir, errors.Join(os.Chmod(binaryDir, 0o755), build(binaryDir))
})

func TestMain(m *testing.M) {
	code := m.Run()
	if s := shared.mesh; s != nil {
		if code != 0 {
			s.printLogs()
		}
		if err := s.end(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	os.Exit(code)
}

// start returns the shared mesh, up and converged. Its tunnels are HTTP/2.
func start(t *testing.T) *mesh {
	t.Helper()
	requirePeers(t)
	shared.once.Do(func() {
		shared.mesh = &mesh{}
		shared.err = shared.mesh.begin()
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.mesh
}

// startApart returns a mesh of the test's own, started with further arguments of up.
func startApart(t *testing.T, args ...string) *mesh {
	t.Helper()
	requirePeers(t)
	m := &mesh{args: args}
	t.Cleanup(func() {
		if t.Failed() {
			m.printLogs()
		}
		if err := m.end(); err != nil {
			t.Error(err)
		}
	})
	if err := m.begin(); err != nil {
		t.Fatal(err)
	}
	return m
}

// requirePeers skips or fails the test where root or a program is missing.
func requirePeers(t *testing.T) {
	t.Helper()
	roottest.Require(t)
	for program, pkg := range map[string]string{
		"curl": "curl", "nginx": "nginx-light", "redis-server": "redis-server", "redis-benchmark": "redis-tools",
		"redis-cli": "redis-tools", "psql": "postgresql-client", "iperf3": "iperf3",
	} {
		roottest.Program(t, program, pkg)
	}
	if postgresPath() == "" {
		roottest.Skip(t, "needs a PostgreSQL server; install the Debian package postgresql")
	}
}

// begin starts the mesh. After an error end must be called too.
func (m *mesh) begin() (err error) {
	if m.root, err = os.MkdirTemp("", "tulle-e2e-"); err != nil {
		return err
	}
	// The pods run under other users too.
	if err := os.Chmod(m.root, 0o755); err != nil {
		return err
	}
	m.conf, m.state = filepath.Join(m.root, "objects"), filepath.Join(m.root, "state")
	if err := os.Mkdir(m.conf, 0o755); err != nil {
		return err
	}
	if m.bin, err = binaries(); err != nil {
		return err
	}
	if err := m.writePods(); err != nil {
		return err
	}
	if out, err := m.converge(); err != nil {
		return fmt.Errorf("meshctl local up: %w\n%s", err, out)
	}
	return nil
}

// end takes the mesh down and removes everything.
func (m *mesh) end() error {
	defer os.RemoveAll(m.root)
	if out, err := m.meshctl(context.Background(), "down"); err != nil {
		return fmt.Errorf("meshctl local down: %w\n%s", err, out)
	}
	return nil
}

// converge runs meshctl local up.
func (m *mesh) converge() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	return m.meshctl(ctx, append([]string{"up", "-f", m.conf}, m.args...)...)
}

func build(dir string) error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	for out, packages := range map[string][]string{
		dir + "/":            {"./meshctl", "./istiod-lite", "./ztunnel", "./waypoint", "./e2e/peer", "./examples/samples"},
		dir + "/tulle-agent": {"./ztunnel/agent"},
	} {
		cmd := exec.Command("go", append([]string{"build", "-ldflags=-s -w", "-o", out}, packages...)...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if b, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, b)
		}
	}
	return nil
}

// meshctl runs meshctl local with the mesh's state folder.
func (m *mesh) meshctl(ctx context.Context, args ...string) (string, error) {
	cmd := m.command(ctx, args...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *mesh) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(m.bin, "meshctl"), append([]string{"local", "--state-dir", m.state}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// up writes objects under name and converges the mesh; an empty text removes them.
func (m *mesh) up(t *testing.T, name, objects string) {
	t.Helper()
	path := filepath.Join(m.conf, name)
	var err error
	if objects == "" {
		err = os.Remove(path)
	} else {
		err = os.WriteFile(path, []byte(objects), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := m.converge(); err != nil {
		t.Fatalf("meshctl local up: %v\n%s", err, out)
	}
}

// apply is up until the test's end.
func (m *mesh) apply(t *testing.T, name, objects string) {
	t.Helper()
	m.up(t, name, objects)
	t.Cleanup(func() { m.up(t, name, "") })
}

// exec runs a command in a pod, "namespace/name", and returns its standard
// output without the last newline; a failure is an error that holds standard error.
func (m *mesh) exec(ctx context.Context, pod string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	cmd := m.command(ctx, append([]string{"exec", pod, "--"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return strings.TrimSuffix(stdout.String(), "\n"), fmt.Errorf("%s: %v: %w: %s", pod, args, err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// peer runs the peer program in a pod.
func (m *mesh) peer(ctx context.Context, pod string, args ...string) (string, error) {
	return m.exec(ctx, pod, append([]string{filepath.Join(m.bin, "peer")}, args...)...)
}

// want runs a command in a pod and compares what it prints.
func (m *mesh) want(t *testing.T, pod, want string, args ...string) {
	t.Helper()
	got, err := m.peer(t.Context(), pod, args...)
	if err != nil {
		t.Errorf("%v", err)
	} else if got != want {
		t.Errorf("%s: peer %v printed %q, want %q", pod, args, got, want)
	}
}

// background is a command that runs on in a pod or a node.
type background struct {
	cmd   *exec.Cmd
	lines chan string
	err   *bytes.Buffer
}

// background starts a command whose lines are read one by one.
func (m *mesh) background(t *testing.T, args ...string) *background {
	t.Helper()
	cmd := m.command(context.Background(), append([]string{"exec"}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b := &background{cmd: cmd, lines: make(chan string, 1000), err: &bytes.Buffer{}}
	cmd.Stderr = b.err
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(b.lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			b.lines <- s.Text()
		}
	}()
	t.Cleanup(func() { b.interrupt(); b.drain() })
	return b
}

// line waits for the next line.
func (b *background) line(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-b.lines:
		if !ok {
			b.cmd.Wait()
			t.Fatalf("%v ended without a further line: %s", b.cmd.Args, b.err)
		}
		return line
	case <-time.After(patience):
		t.Fatalf("%v printed no line", b.cmd.Args)
	}
	return ""
}

func (b *background) interrupt() { b.cmd.Process.Signal(syscall.SIGTERM) }

func (b *background) drain() {
	for range b.lines {
	}
	b.cmd.Wait()
}

// capture sniffs a node's link to the other nodes until the returned function
// is called, which tells what was seen.
func (m *mesh) capture(t *testing.T, node, marker string) (stop func() sniffed) {
	t.Helper()
	b := m.background(t, "--node", node, "--", filepath.Join(m.bin, "peer"), "sniff", "eth0", marker)
	if line := b.line(t); line != "sniffing" {
		t.Fatalf("sniff printed %q", line)
	}
	return func() sniffed {
		t.Helper()
		b.interrupt()
		var s sniffed
		if err := json.Unmarshal([]byte(b.line(t)), &s); err != nil {
			t.Fatal(err)
		}
		if s.Dropped > 0 {
			t.Errorf("the capture missed %d packets, so it proves nothing", s.Dropped)
		}
		return s
	}
}

type sniffed struct {
	Packets, Marked, Dropped int
	Ports                    map[string]int
}

// eventually retries f until it returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %v: %v", what, patience, err)
}

// logs returns what a component or pod has logged so far.
func (m *mesh) logs(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.meshctl(t.Context(), append([]string{"logs"}, args...)...)
	if err != nil {
		t.Fatalf("meshctl local logs %v: %v\n%s", args, err, out)
	}
	return out
}

// wantLog waits until a log has a line with all of parts.
func (m *mesh) wantLog(t *testing.T, source []string, parts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("a line with %q in the log of %v", parts, source), func() error {
		for line := range strings.Lines(m.logs(t, source...)) {
			found := true
			for _, p := range parts {
				found = found && strings.Contains(line, p)
			}
			if found {
				return nil
			}
		}
		return errors.New("no such line")
	})
}

// printLogs shows the end of every component's log, after a failure.
func (m *mesh) printLogs() {
	for _, args := range [][]string{
		{"istiod-lite"}, {"ztunnel", "--node", "node-1"}, {"ztunnel", "--node", "node-2"},
		{"agent", "--node", "node-1"}, {"agent", "--node", "node-2"},
	} {
		out, err := m.meshctl(context.Background(), append([]string{"logs"}, args...)...)
		fmt.Fprintf(os.Stderr, "=== logs %v (%v), the end:\n%s\n", args, err, tail(out, 60))
	}
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func copyFile(dst io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(dst, f)
	return err
}
