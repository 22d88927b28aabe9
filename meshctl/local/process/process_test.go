package process_test

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/meshctl/local/process"
)

func TestMain(m *testing.M) {
	if process.IsShim() {
		process.RunShim()
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("os/signal.loop"))
}

func reaper(t *testing.T) *process.Reaper {
	t.Helper()
	r := process.NewReaper()
	t.Cleanup(r.Close)
	return r
}

var env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}

// run starts a program and returns its output and exit.
func run(t *testing.T, r *process.Reaper, spec process.Spec) (string, process.Exit) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	spec.Stdout, spec.Stderr, spec.Env = write, write, env
	p, err := r.Start(spec)
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	read.SetReadDeadline(time.Now().Add(10 * time.Second))
	out, err := io.ReadAll(read)
	if err != nil {
		p.Signal(unix.SIGKILL, true)
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), p.Exit()
}

func TestExitCodesAndSignalsAreReported(t *testing.T) {
	r := reaper(t)
	if _, exit := run(t, r, process.Spec{Argv: []string{"sh", "-c", "exit 7"}}); exit.Code != 7 || exit.Signal != 0 {
		t.Errorf("exit %+v, want code 7", exit)
	}
	if _, exit := run(t, r, process.Spec{Argv: []string{"sh", "-c", "kill -9 $$"}}); exit.Signal != unix.SIGKILL || exit.Code != 137 {
		t.Errorf("exit %+v, want SIGKILL", exit)
	}
}

func TestAProgramThatIsNotThereSaysSo(t *testing.T) {
	r := reaper(t)
	if _, err := r.Start(process.Spec{Argv: []string{"no-such-program"}, Env: env}); err == nil || !strings.Contains(err.Error(), `"no-such-program"`) {
		t.Errorf("error %v", err)
	}
	roottest.Require(t)
	out, exit := run(t, r, process.Spec{Argv: []string{"no-such-program"}, Sandbox: &process.Sandbox{}})
	if exit.Code != 127 || !strings.Contains(out, "no-such-program") {
		t.Errorf("exit %+v, output %q", exit, out)
	}
}

func TestOrphansAreCollectedAndOthersStillFindTheirExit(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skip(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	r := reaper(t)
	// The inner shell ends after its parent and becomes ours.
	out, exit := run(t, r, process.Spec{Argv: []string{"sh", "-c", "sh -c 'echo $$; exec sleep 0.2' & wait $! & exit 3"}})
	if exit.Code != 3 {
		t.Errorf("exit %+v, want 3", exit)
	}
	pid, err := strconv.Atoi(out)
	if err != nil {
		t.Fatalf("output %q", out)
	}
	deadline := time.Now().Add(10 * time.Second)
	for unix.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestASandboxHasItsOwnNamesFilesProcessesAndNetwork(t *testing.T) {
	roottest.Require(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	hosts := t.TempDir() + "/hosts"
	if err := os.WriteFile(hosts, []byte("192.0.2.1 example\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := reaper(t)
	out, exit := run(t, r, process.Spec{
		Argv: []string{"sh", "-c", "hostname; cat /etc/hosts; echo $$; id -u; id -g; readlink /proc/self/ns/net; ls -d /proc/[0-9]* | wc -l; pwd"},
		Dir:  "/tmp", NS: ns,
		Sandbox: &process.Sandbox{Hostname: "pod-1", Binds: map[string]string{"/etc/hosts": hosts, "/etc/not-there": hosts},
			OwnPIDs: true, UID: ptr(65534), GID: ptr(65533)},
	})
	want := []string{"pod-1", "192.0.2.1 example", "1", "65534", "65533", ns.ID().String()}
	lines := strings.Split(out, "\n")
	if exit.Code != 0 || len(lines) != 8 {
		t.Fatalf("exit %+v, output:\n%s", exit, out)
	}
	for i, w := range want {
		if lines[i] != w {
			t.Errorf("line %d is %q, want %q", i, lines[i], w)
		}
	}
	if n, _ := strconv.Atoi(lines[6]); n > 4 {
		t.Errorf("the program sees %d processes, want its own only", n)
	}
	if lines[7] != "/tmp" {
		t.Errorf("working directory %q", lines[7])
	}
	if host, _ := os.Hostname(); host == "pod-1" {
		t.Error("our own host name changed")
	}
}

func TestStopEndsWhatIgnoresSIGTERMAndAllThatItStarted(t *testing.T) {
	roottest.Require(t)
	r := reaper(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	p, err := r.Start(process.Spec{Argv: []string{"sh", "-c", "trap '' TERM; setsid sleep 1000 & echo up; while :; do sleep 1; done"},
		Env: env, Stdout: write, Sandbox: &process.Sandbox{OwnPIDs: true}})
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	p.Stop(50 * time.Millisecond)
	if exit := p.Exit(); exit.Signal != unix.SIGKILL {
		t.Errorf("exit %v", exit)
	}
	// The pipe ends when the last process that holds it has ended.
	read.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(read); err != nil {
		t.Errorf("a process of the sandbox lives on: %v", err)
	}
}

// Many programs take a second SIGINT for "at once", so one must arrive as one.
func TestASignalToTheGroupArrivesOnce(t *testing.T) {
	python := roottest.Program(t, "python3", "python3")
	r := reaper(t)
	// Real-time signals queue, where two of the others may merge into one.
	const count = `
import signal as s
s.pthread_sigmask(s.SIG_BLOCK, {40, s.SIGTERM})
print('up', flush=True)
s.sigwait({40})
print('got', flush=True)
s.sigwait({s.SIGTERM})
while s.sigtimedwait({40}, 0):
    print('again', flush=True)
`
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	p, err := r.Start(process.Spec{Argv: []string{python, "-c", count}, Env: env, Stdout: write})
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(read)
	lines.Scan()
	p.Signal(unix.Signal(40), true)
	if lines.Scan(); lines.Text() != "got" {
		t.Fatalf("%q after the signal", lines.Text())
	}
	p.Signal(unix.SIGTERM, true)
	for lines.Scan() {
		t.Errorf("the signal arrived %s", lines.Text())
	}
	<-p.Done()
}

func ptr(i int) *int { return &i }
