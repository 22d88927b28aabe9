package local_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/meshctl/cli"
	"github.com/tulle-mesh/tulle/meshctl/local/process"
)

// This test binary is also meshctl (called by that name, as the supervisor is),
// the shim of pods, and the program in the pods.
func TestMain(m *testing.M) {
	if process.IsShim() {
		process.RunShim()
	}
	if os.Args[0] == "meshctl" {
		os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	if role := os.Getenv("TEST_ROLE"); role != "" {
		os.Exit(play(role))
	}
	code := m.Run()
	removeBinaries()
	os.Exit(code)
}

// play is what runs in pods: a server that says who it is and whom it sees, or
// a client that prints that.
func play(role string) int {
	switch role {
	case "server":
		host, _ := os.Hostname()
		err := http.ListenAndServe(":"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprintf(w, "%s sees %s\n", host, from)
		}))
		fmt.Fprintln(os.Stderr, err)
	case "client":
		client := &http.Client{Timeout: 5 * time.Second}
		res, err := client.Get(os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer res.Body.Close()
		io.Copy(os.Stdout, res.Body)
		return 0
	}
	return 1
}

// ctl runs meshctl for one mesh.
type ctl struct {
	t     *testing.T
	state string
	path  string
	cred  *syscall.Credential
	bin   string // where the mesh's programs are; empty runs without a mesh
}

// newCtl prepares a mesh without control plane and proxies, which is taken down
// at the end.
func newCtl(t *testing.T) *ctl {
	t.Helper()
	roottest.Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &ctl{t: t, path: self, state: filepath.Join(shortDir(t), "s")}
	t.Cleanup(func() {
		if out, err := c.run("down"); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		if t.Failed() {
			t.Logf("supervisor: %s", c.log())
		}
	})
	return c
}

func (c *ctl) log() string {
	data, _ := os.ReadFile(filepath.Join(c.state, "logs/supervisor.log"))
	return string(data)
}

// shortDir is a folder whose path leaves room for sockets below it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// meshctl runs a command that is not about the local mesh alone.
func (c *ctl) meshctl(args ...string) string {
	c.t.Helper()
	cmd := c.command()
	cmd.Args = append([]string{"meshctl"}, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("meshctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (c *ctl) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, c.path)
	cmd.Args = append([]string{"meshctl", "local", "--state-dir", c.state}, args...)
	if c.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
		cmd.Dir = "/"
	}
	return cmd
}

// run returns standard output and standard error together. It calls meshctl
// without a process of its own, which takes a second under the race detector.
func (c *ctl) run(args ...string) (string, error) {
	if c.cred != nil {
		out, err := c.command(args...).CombinedOutput()
		return string(out), err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		c.t.Fatal(err)
	}
	defer null.Close()
	read, write, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	defer read.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	code := make(chan int, 1)
	go func() {
		code <- cli.Run(ctx, append([]string{"local", "--state-dir", c.state}, args...), null, write, write)
		write.Close()
	}()
	out, err := io.ReadAll(read)
	if err != nil {
		c.t.Fatal(err)
	}
	if n := <-code; n != 0 {
		return string(out), statusError(n)
	}
	return string(out), nil
}

type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func (c *ctl) must(args ...string) string {
	c.t.Helper()
	out, err := c.run(args...)
	if err != nil {
		c.t.Fatalf("meshctl local %s: %v\n%s\nsupervisor: %s", strings.Join(args, " "), err, out, c.log())
	}
	return out
}

func (c *ctl) up(files ...string) string {
	c.t.Helper()
	return c.must(c.upArgs(files...)...)
}

func (c *ctl) upArgs(files ...string) []string {
	args := []string{"up", "--no-mesh"}
	if c.bin != "" {
		args = []string{"up", "--bin-dir", c.bin}
	}
	for _, f := range files {
		args = append(args, "-f", f)
	}
	return args
}

// file writes objects; SELF is replaced by this test binary.
func (c *ctl) file(text string) string {
	c.t.Helper()
	dir := shortDir(c.t)
	os.Chmod(dir, 0o755)
	path := filepath.Join(dir, "objects.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "SELF", c.path)), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// exitCode is the status of a command that ended by itself.
func exitCode(err error) int {
	var status statusError
	if errors.As(err, &status) {
		return int(status)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
