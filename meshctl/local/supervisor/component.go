package supervisor

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/backoff"
	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/process"
)

// component is one program of the mesh, kept running.
type component struct {
	name string
	// argv is asked for at every start.
	argv []string
	env  []string
	ns   *netns.NS
	log  []string // the name of its log
	// needs is a file without which it need not be started; empty for none.
	needs string
	// ask returns nil when the component is ready.
	ask func(ctx context.Context) error

	cancel context.CancelFunc
	done   chan struct{}

	// mu guards what follows.
	mu       sync.Mutex
	proc     *process.Process
	restarts int
	ready    bool
	reason   string
	// changed is closed and replaced when ready changes.
	changed chan struct{}
}

// startComponent runs c until its stop is called. It does not wait for it to be
// ready.
func (s *Supervisor) startComponent(c *component) {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel, c.done = cancel, make(chan struct{})
	c.changed = make(chan struct{})
	c.reason = "starting"
	go func() {
		defer close(c.done)
		s.keepRunning(ctx, c)
	}()
}

func (s *Supervisor) keepRunning(ctx context.Context, c *component) {
	wait := backoff.New(restartMin, restartMax)
	log := s.log.With(zap.String("component", c.name))
	for !exists(c.needs) {
		c.set(false, "waits for "+c.needs)
		select {
		case <-ctx.Done():
			return
		case <-time.After(readinessPeriod):
		}
	}
	for {
		out, err := s.openLog(c.log...)
		if err != nil {
			c.set(false, err.Error())
			log.Error("cannot open log", zap.Error(err))
			return
		}
		proc, err := s.reaper.Start(process.Spec{Argv: c.argv, Env: c.env, NS: c.ns, Stdout: out, Stderr: out})
		if err == nil {
			log.Info("started", zap.Int("pid", proc.PID))
			c.mu.Lock()
			c.proc = proc
			c.mu.Unlock()
			s.watch(ctx, c, proc)
			if ctx.Err() != nil {
				out.Close()
				return
			}
			if time.Since(proc.Started) >= steadyAfter {
				wait.Reset()
			}
			err = fmt.Errorf("ended with %v", proc.Exit())
			if said := lastLine(out.Name()); said != "" {
				err = fmt.Errorf("%w, saying: %s", err, said)
			}
		}
		delay := wait.Next()
		fmt.Fprintf(out, "meshctl local: %s ended; it is started again in %v\n", c.name, delay.Round(time.Millisecond))
		out.Close()
		log.Warn("restarting", zap.Error(err), zap.Duration("delay", delay))
		c.mu.Lock()
		c.restarts++
		c.mu.Unlock()
		c.set(false, fmt.Sprintf("%v, restarting; see `meshctl local logs %s`", err, c.logName()))
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return path == "" || err == nil
}

// lastLine is the end of a log, where programs say why they ended.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const enough = 1024
	if info, err := f.Stat(); err == nil && info.Size() > enough {
		f.Seek(-enough, io.SeekEnd)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}

// watch asks a running component whether it is ready until it ends, or ends it
// when ctx does.
func (s *Supervisor) watch(ctx context.Context, c *component, proc *process.Process) {
	period := readinessPeriod
	for {
		timer := time.NewTimer(period)
		select {
		case <-ctx.Done():
			timer.Stop()
			proc.Stop(componentGrace)
			c.set(false, "stopped")
			return
		case <-proc.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		question, cancel := context.WithTimeout(ctx, askTimeout)
		err := c.ask(question)
		cancel()
		if err != nil {
			c.set(false, err.Error())
			period = readinessPeriod
			continue
		}
		c.set(true, "")
		period = steadyPeriod
	}
}

func (c *component) set(ready bool, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reason = reason
	if ready != c.ready {
		c.ready = ready
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// state returns whether it is ready, why not, and a channel that is closed when
// that changes.
func (c *component) state() (ready bool, reason string, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready, c.reason, c.changed
}

func (c *component) stop() {
	c.cancel()
	<-c.done
}

// logName is what `meshctl local logs` takes.
func (c *component) logName() string {
	if len(c.log) == 2 {
		return c.log[1] + " --node " + c.log[0]
	}
	return c.log[0]
}

func (c *component) status() control.Component {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := control.Component{Name: c.name, Restarts: c.restarts, Reason: c.reason, State: "not ready"}
	switch {
	case c.ready:
		st.State = "ready"
	case c.restarts > 0:
		st.State = "restarting"
	case c.proc == nil || time.Since(c.proc.Started) < steadyAfter:
		st.State = "starting"
	}
	if c.proc != nil {
		select {
		case <-c.proc.Done():
		default:
			st.PID, st.Started = c.proc.PID, c.proc.Started
			st.CPUSeconds, st.ResidentBytes = usage(c.proc.PID)
		}
	}
	return st
}

// baseEnv is the environment of everything that the supervisor starts: little,
// so that what works does not depend on the shell that `up` was typed in.
func (s *Supervisor) baseEnv() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	env := []string{"PATH=" + s.settings.BinDir + ":" + path}
	for _, name := range []string{"HOME", "USER", "LANG", "TZ", "TMPDIR"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}
