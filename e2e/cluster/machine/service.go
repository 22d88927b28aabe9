package machine

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// Bounds of services.
const (
	// restartAfter is the pause before a service that ended is started again, so
	// that one that cannot start does not fill the log.
	restartAfter = time.Second
	// stopGrace is what a service has to end in before it is killed.
	stopGrace = 5 * time.Second
)

// service is one daemon of the node, started again whenever it ends, until it is stopped.
type service struct {
	name      string
	args, env []string
	log       string
	reaper    *reaper

	mu sync.Mutex
	// want tells that it shall run; pid is 0 while it does not.
	want    bool
	pid     int
	changed chan struct{}
}

func newService(r *reaper, name string, args, env []string, log string) *service {
	return &service{name: name, args: args, env: env, log: log, reaper: r, changed: make(chan struct{})}
}

// start makes it run, and stay running. A second call changes nothing.
func (s *service) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.want {
		return nil
	}
	ended, err := s.launch()
	if err != nil {
		return err
	}
	s.want = true
	go s.keep(ended)
	return nil
}

// launch is called with mu held.
func (s *service) launch() (<-chan syscall.WaitStatus, error) {
	pid, ended, err := s.reaper.start(s.args, s.env, s.log)
	s.pid = pid
	return ended, err
}

func (s *service) keep(ended <-chan syscall.WaitStatus) {
	for {
		status := <-ended
		s.mu.Lock()
		s.pid = 0
		close(s.changed)
		s.changed = make(chan struct{})
		want := s.want
		s.mu.Unlock()
		if !want {
			return
		}
		fmt.Fprintf(os.Stderr, "%s ended (%s), starting it again\n", s.name, describe(status))
		for {
			time.Sleep(restartAfter)
			s.mu.Lock()
			if !s.want {
				s.mu.Unlock()
				return
			}
			next, err := s.launch()
			s.mu.Unlock()
			if err == nil {
				ended = next
				break
			}
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// stop ends it and keeps it ended; it returns when it has ended.
func (s *service) stop() error {
	s.mu.Lock()
	s.want = false
	s.mu.Unlock()
	if s.signalAndWait(syscall.SIGTERM, stopGrace) || s.signalAndWait(syscall.SIGKILL, stopGrace) {
		return nil
	}
	return fmt.Errorf("%s does not end", s.name)
}

func (s *service) signalAndWait(sig syscall.Signal, bound time.Duration) bool {
	s.mu.Lock()
	pid, changed := s.pid, s.changed
	if pid != 0 {
		_ = syscall.Kill(pid, sig)
	}
	s.mu.Unlock()
	if pid == 0 {
		return true
	}
	select {
	case <-changed:
		return true
	case <-time.After(bound):
		return false
	}
}

// running returns its process id within the node, 0 while it does not run.
func (s *service) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "signal " + s.Signal().String()
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}
