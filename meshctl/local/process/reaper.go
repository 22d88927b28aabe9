package process

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Reaper starts processes and collects every child of this process that ends,
// also the orphans that PID 1 inherits. There must be at most one, and nobody
// else may wait for children while it lives (os/exec in particular).
type Reaper struct {
	// mu is held over a fork, so that a child that ends at once is known by the
	// time it is collected.
	mu       sync.Mutex
	children map[int]*Process

	signals chan os.Signal
	stop    chan struct{}
	done    chan struct{}
}

// NewReaper starts collecting. Close ends it.
func NewReaper() *Reaper {
	r := &Reaper{
		children: map[int]*Process{},
		signals:  make(chan os.Signal, 1),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
	}
	signal.Notify(r.signals, unix.SIGCHLD)
	go r.loop()
	return r
}

// Close stops collecting; children go on.
func (r *Reaper) Close() {
	signal.Stop(r.signals)
	close(r.stop)
	<-r.done
}

func (r *Reaper) loop() {
	defer close(r.done)
	for {
		r.collect()
		select {
		case <-r.signals:
		case <-r.stop:
			return
		}
	}
}

func (r *Reaper) collect() {
	for {
		var (
			status unix.WaitStatus
			usage  unix.Rusage
		)
		r.mu.Lock()
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, &usage)
		child := r.children[pid]
		if child != nil && (status.Exited() || status.Signaled()) {
			delete(r.children, pid)
		}
		r.mu.Unlock()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || pid <= 0:
			return // ECHILD: none left; 0: none has ended
		case child == nil:
			continue // an orphan
		case status.Exited() || status.Signaled():
			child.finish(status, usage)
		}
	}
}

// Exit tells how a process ended.
type Exit struct {
	// Code is the exit status, or 128 + Signal as shells count it.
	Code int
	// Signal is not 0 when a signal ended it.
	Signal syscall.Signal
	// CPU is the time that it and its collected children used.
	CPU time.Duration
}

// String says it in words.
func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("killed by %v", e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Process is one started program.
type Process struct {
	// PID is its number in the supervisor's process namespace.
	PID     int
	Started time.Time

	// mu guards ended, so that no signal is sent to a number that another
	// process has got by now.
	mu    sync.Mutex
	ended bool
	exit  Exit
	done  chan struct{}
}

func (p *Process) finish(status unix.WaitStatus, usage unix.Rusage) {
	p.mu.Lock()
	p.ended = true
	p.exit.Code = status.ExitStatus()
	if status.Signaled() {
		p.exit.Signal = syscall.Signal(status.Signal())
		p.exit.Code = 128 + int(status.Signal())
	}
	p.exit.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	p.mu.Unlock()
	close(p.done)
}

// Done is closed when the process has ended and was collected.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit tells how it ended; it waits for the end.
func (p *Process) Exit() Exit {
	<-p.done
	return p.exit
}

// Signal sends a signal to the process, or to its whole group when group is set,
// which it leads. A process that has ended is left alone.
func (p *Process) Signal(sig syscall.Signal, group bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	pid := p.PID
	if group {
		pid = -pid // the leader is in it: one more to it would count twice
	}
	unix.Kill(pid, sig)
}

// Stop asks the process to end and kills it after grace. It returns when it has
// ended.
func (p *Process) Stop(grace time.Duration) {
	p.Signal(unix.SIGTERM, true)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Signal(unix.SIGKILL, true)
		<-p.done
	}
}
