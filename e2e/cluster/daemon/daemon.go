// Package daemon starts processes that outlive their starter, in a network
// namespace and with other namespaces of their own, and ends exactly those again:
// a process is known by its id and the moment it was started, so that an id that
// the kernel gave to somebody else in the meantime is never signalled.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// Process identifies one process of this machine for ever.
type Process struct {
	PID int `json:"pid"`
	// Started is in clock ticks since boot, as /proc/PID/stat has it.
	Started uint64 `json:"started"`
}

// Spec is what to start.
type Spec struct {
	// Netns is the namespace it runs in; nil is the caller's own.
	Netns *netns.NS
	// Path is the program, Args all arguments after its name.
	Path string
	Args []string
	// Env is added to the caller's environment.
	Env []string
	// Log takes what it prints; it is appended to.
	Log string
	// Files are descriptors 3 and up.
	Files []*os.File
	// Cloneflags are CLONE_NEW flags besides the network's.
	Cloneflags uintptr
}

// Start starts the process in a session of its own.
func Start(s Spec) (Process, error) {
	if err := os.MkdirAll(filepath.Dir(s.Log), 0o755); err != nil {
		return Process{}, err
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Process{}, err
	}
	defer log.Close()
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, s.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: s.Cloneflags}
	// A child is born in the network namespace of the thread that forks it.
	start := cmd.Start
	if s.Netns != nil {
		start = func() error { return s.Netns.Do(cmd.Start) }
	}
	if err := start(); err != nil {
		return Process{}, fmt.Errorf("start %s: %w", filepath.Base(s.Path), err)
	}
	// Collected in the background, lest a caller that lives on has a zombie that looks alive.
	go cmd.Wait() //nolint:errcheck
	p, err := Find(cmd.Process.Pid)
	if err != nil {
		return Process{}, fmt.Errorf("%s ended at once; see %s", filepath.Base(s.Path), s.Log)
	}
	return p, nil
}

// Find identifies the running process that has the id now.
func Find(pid int) (Process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, err
	}
	// The second field, the name in parentheses, may hold anything; what follows the last one is plain.
	_, rest, ok := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return Process{}, fmt.Errorf("/proc/%d/stat: unknown form", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return Process{}, os.ErrNotExist
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return Process{PID: pid, Started: started}, nil
}

// Alive tells whether this very process runs. The zero Process does not.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	now, err := Find(p.PID)
	return err == nil && now == p
}

// Signal does nothing to a process that has ended.
func (p Process) Signal(sig syscall.Signal) error {
	if !p.Alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// pollEvery is how often the end of a foreign process is looked for: a human
// does not notice it, and reading one file of /proc costs microseconds.
const pollEvery = 20 * time.Millisecond

// Wait returns nil when the process has ended, and an error when ctx did first.
func (p Process) Wait(ctx context.Context) error {
	for p.Alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d still runs: %w", p.PID, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
	return nil
}

// Stop asks the process to end, and ends it when it has not within grace.
func (p Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	asked, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if p.Wait(asked) == nil {
		return nil
	}
	return p.Kill()
}

// killWithin bounds the wait for a killed process: the kernel may have to end a
// whole process namespace with it.
const killWithin = 20 * time.Second

// Kill ends the process, and with the first process of a namespace all others in it.
func (p Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), killWithin)
	defer cancel()
	return p.Wait(ctx)
}
