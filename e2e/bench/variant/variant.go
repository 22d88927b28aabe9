package variant

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/e2e/bench/topology"
)

// Variant is one way from the client pod to the server pod.
type Variant interface {
	// Name is how the variant is called in the results.
	Name() string
	// Start starts its processes in t and returns when they run; the way may need a
	// moment more to be open. Stop must be called in any case.
	Start(ctx context.Context, t *topology.Topology) (Running, error)
	// Stop ends what Start started.
	Stop()
}

// Checker is a Variant that can tell afterwards whether it was what was measured.
type Checker interface {
	Check() error
}

// Running describes a started variant.
type Running struct {
	// Addr is what the client dials to reach the server.
	Addr string
	// Proxies are the processes whose processor time and memory count.
	Proxies []int
	// Goroutines counts those of the proxies; nil when they have none.
	Goroutines func() (int, error)
	// HTTP is where clients of HTTP go instead of Addr.
	HTTP HTTP
	// Passed tells how many requests the proxies have seen, where clients could get past
	// them; nil elsewhere.
	Passed func() (float64, error)
}

// Config is what variants need to know.
type Config struct {
	// Self is the path of the benchmark's own program, which is also the relay.
	Self string
	// Bin is the folder with Tulle's programs.
	Bin string
	// Dir takes the configuration and the output of the processes.
	Dir string
}

// All returns every variant in the order of the table.
func All(c Config) []Variant {
	return []Variant{
		Direct{},
		&Relay{self: c.Self, processes: processes{dir: c.Dir}},
		&HAProxy{processes: processes{dir: c.Dir}},
		newTulle(c, "h2"),
		newTulle(c, "h3"),
	}
}

// Choose returns the variants of these names, in their order.
func Choose(all []Variant, names []string) ([]Variant, error) {
	var chosen []Variant
	for _, name := range names {
		i := slices.IndexFunc(all, func(v Variant) bool { return v.Name() == name })
		if i < 0 {
			return nil, fmt.Errorf("no variant %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// processes are those of one variant.
type processes struct {
	dir     string
	running []*process
}

type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// stopTimeout is the time that a process has to end by itself.
const stopTimeout = 5 * time.Second

// start starts a program in a namespace; its output goes to a file named after it and the namespace.
func (p *processes) start(ns *topology.Namespace, env []string, name string, args ...string) (int, error) {
	log := p.logFile(filepath.Base(name), ns.Name)
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), env...)
	if err := ns.Start(cmd); err != nil {
		return 0, err
	}
	proc := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(proc.done)
	}()
	p.running = append(p.running, proc)
	return cmd.Process.Pid, nil
}

func (p *processes) logFile(program, namespace string) string {
	return filepath.Join(p.dir, program+"-"+namespace+".log")
}

// Stop implements Variant: SIGTERM in reverse order, then SIGKILL.
func (p *processes) Stop() {
	for i := len(p.running) - 1; i >= 0; i-- {
		proc := p.running[i]
		proc.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-proc.done:
		case <-time.After(stopTimeout):
			proc.cmd.Process.Kill()
			<-proc.done
		}
	}
	p.running = nil
}

// logTailBytes is how much of each log explains a failure.
const logTailBytes = 2000

// explain adds to err the last words of the processes.
func (p *processes) explain(err error) error {
	for _, proc := range p.running {
		state := "running"
		select {
		case <-proc.done:
			state = proc.cmd.ProcessState.String()
		default:
		}
		b, _ := os.ReadFile(proc.log)
		if len(b) > logTailBytes {
			b = b[len(b)-logTailBytes:]
		}
		err = fmt.Errorf("%w\n--- %s (%s):\n%s", err, strings.Join(proc.cmd.Args, " "), state, b)
	}
	return err
}

// Explain adds to err what the processes of v said last.
func Explain(v Variant, err error) error {
	if e, ok := v.(interface{ explain(error) error }); ok && err != nil {
		return e.explain(err)
	}
	return err
}

// ErrMissing says that a program which a variant needs is not there.
var ErrMissing = errors.New("program is missing")

func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: %s", ErrMissing, name)
	}
	return path, nil
}
