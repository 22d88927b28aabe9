package machine

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// reaper starts children and collects every process that ends below PID 1,
// children and orphans alike. os/exec cannot be used besides it: both would wait
// for the same processes.
type reaper struct {
	mu sync.Mutex
	// waiting holds who is told of the end of a child, by process id.
	waiting map[int]chan syscall.WaitStatus
}

func newReaper() *reaper {
	r := &reaper{waiting: map[int]chan syscall.WaitStatus{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go r.run(ended)
	return r
}

// run lives as long as the process.
func (r *reaper) run(ended <-chan os.Signal) {
	// Besides the signals, of which several may become one, now and then.
	tick := time.NewTicker(time.Second)
	for {
		select {
		case <-ended:
		case <-tick.C:
		}
		for {
			var status syscall.WaitStatus
			r.mu.Lock()
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			ch := r.waiting[pid]
			delete(r.waiting, pid)
			r.mu.Unlock()
			if err == syscall.EINTR {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			if ch != nil {
				ch <- status
			}
		}
	}
}

// start starts a child that prints into log. The channel tells its end once.
func (r *reaper) start(args []string, env []string, log string) (pid int, ended <-chan syscall.WaitStatus, err error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return 0, nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, nil, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	ch := make(chan syscall.WaitStatus, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err = syscall.ForkExec(args[0], args, &syscall.ProcAttr{
		Dir: "/", Env: env, Files: []uintptr{null.Fd(), out.Fd(), out.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	r.waiting[pid] = ch
	return pid, ch, nil
}
