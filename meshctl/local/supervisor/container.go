package supervisor

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/internal/backoff"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/process"
)

// container runs one container's command as its pod's restart policy says.
type container struct {
	pod  *pod
	spec *corev1.Container

	// mu guards what follows.
	mu       sync.Mutex
	proc     *process.Process
	restarts int
	lastExit string
	ready    bool
	reason   string // why it is not ready
	over     bool   // ended, and not to be started again
	failed   bool
}

func (c *container) run(ctx context.Context) {
	wait := backoff.New(restartMin, restartMax)
	policy := c.pod.current().Object.Spec.RestartPolicy
	for ctx.Err() == nil {
		exit, ran, err := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		failed := err != nil || exit.Code != 0
		text := exit.String()
		if err != nil {
			text = err.Error()
		}
		again := policy == "" || policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && failed
		c.mu.Lock()
		c.proc, c.ready, c.lastExit = nil, false, text
		c.reason = fmt.Sprintf("container %s: %s; see `meshctl local logs %s`", c.spec.Name, text, c.pod.current().PodKey)
		if !again {
			c.over, c.failed = true, failed
		} else {
			c.restarts++
		}
		c.mu.Unlock()
		c.pod.s.wakeSync()
		c.pod.log.Info("container ended", zap.String("container", c.spec.Name), zap.String("how", text), zap.Bool("again", again))
		if !again {
			return
		}
		if ran >= steadyAfter {
			wait.Reset()
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait.Next()):
		}
	}
}

// once starts the command and waits for its end; ctx ends it.
func (c *container) once(ctx context.Context) (process.Exit, time.Duration, error) {
	p := c.pod
	planned := p.current()
	out, err := p.s.openLog("pods", planned.Namespace, planned.Name, c.spec.Name)
	if err != nil {
		return process.Exit{}, 0, err
	}
	defer out.Close()
	if isWaypoint(planned) && p.s.tokens != nil {
		if err := p.s.tokens.writePod(planned, p.s.podToken(planned)); err != nil {
			return process.Exit{}, 0, err
		}
	}
	env := p.environment(c.spec.Env)
	proc, err := p.s.reaper.Start(process.Spec{
		Argv: expand(append(append([]string{}, c.spec.Command...), c.spec.Args...), env),
		Env:  env, Dir: c.dir(), Stdout: out, Stderr: out, NS: p.ns,
		Sandbox: p.sandbox(c.spec, true),
	})
	if err != nil {
		fmt.Fprintf(out, "meshctl local: %v\n", err)
		return process.Exit{}, 0, err
	}
	c.mu.Lock()
	c.proc = proc
	c.ready = c.spec.ReadinessProbe == nil
	c.reason = fmt.Sprintf("container %s: not ready yet", c.spec.Name)
	c.mu.Unlock()
	p.s.wakeSync()

	probing, stopProbe := context.WithCancel(ctx)
	var probe sync.WaitGroup
	if c.spec.ReadinessProbe != nil {
		probe.Go(func() { c.probe(probing, env) })
	}
	select {
	case <-proc.Done():
	case <-ctx.Done():
		proc.Stop(p.grace())
	}
	stopProbe()
	probe.Wait()
	return proc.Exit(), time.Since(proc.Started), nil
}

func (c *container) dir() string {
	if c.spec.WorkingDir != "" {
		return c.spec.WorkingDir
	}
	return c.pod.current().Dir
}

func (c *container) setReady(err error) {
	c.mu.Lock()
	changed := c.ready != (err == nil)
	c.ready = err == nil
	if err != nil {
		c.reason = fmt.Sprintf("container %s: %v", c.spec.Name, err)
	}
	c.mu.Unlock()
	if changed {
		c.pod.s.wakeSync()
	}
}

// unsteady says why the container does not count as running yet; empty when it
// does. Without a probe the only sign that a command is what it should be is
// that it goes on. c.mu is held.
func (c *container) unsteady() string {
	switch {
	case c.over && !c.failed:
		return ""
	case !c.ready:
		return c.reason
	case c.restarts > 0 && time.Since(c.proc.Started) < restartMax:
		times := "once"
		if c.restarts > 1 {
			times = fmt.Sprintf("%d times, the last time", c.restarts)
		}
		return fmt.Sprintf("container %s: restarted %s after: %s", c.spec.Name, times, c.lastExit)
	case c.spec.ReadinessProbe == nil && time.Since(c.proc.Started) < steadyWithoutProbe:
		return fmt.Sprintf("container %s: just started", c.spec.Name)
	}
	return ""
}

func (c *container) status() control.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := control.Container{Name: c.spec.Name, Restarts: c.restarts, LastExit: c.lastExit}
	if c.proc != nil {
		st.PID, st.Started = c.proc.PID, c.proc.Started
	}
	return st
}

// sandbox is the surroundings of a process in the pod; spec may be nil.
func (p *pod) sandbox(spec *corev1.Container, ownPIDs bool) *process.Sandbox {
	planned := p.current()
	box := &process.Sandbox{
		Hostname: planned.Hostname(),
		Binds: map[string]string{
			"/etc/hosts":       p.s.hostsFile(planned.PodKey),
			"/etc/resolv.conf": p.s.dir.Pods("resolv.conf"),
		},
		Hide:    []string{p.s.dir.Namespaces()},
		OwnPIDs: ownPIDs,
	}
	if p.s.settings.Rootless || os.Geteuid() != 0 {
		return box
	}
	security := planned.Object.Spec.SecurityContext
	if security != nil {
		box.UID, box.GID = number(security.RunAsUser), number(security.RunAsGroup)
	}
	if spec != nil && spec.SecurityContext != nil {
		if id := number(spec.SecurityContext.RunAsUser); id != nil {
			box.UID = id
		}
		if id := number(spec.SecurityContext.RunAsGroup); id != nil {
			box.GID = id
		}
	}
	if box.UID != nil && box.GID == nil {
		zero := 0 // as container runtimes do
		box.GID = &zero
	}
	return box
}

func number(n *int64) *int {
	if n == nil {
		return nil
	}
	i := int(*n)
	return &i
}

// expand replaces $(NAME) by the environment's value, as Kubernetes does in
// command and args; an unknown name stays as it is, and $$ is a dollar.
func expand(argv, env []string) []string {
	values := map[string]string{}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			values[name] = value
		}
	}
	out := make([]string, len(argv))
	for i, arg := range argv {
		var b strings.Builder
		for arg != "" {
			switch {
			case strings.HasPrefix(arg, "$$"):
				b.WriteByte('$')
				arg = arg[2:]
				continue
			case strings.HasPrefix(arg, "$("):
				if name, rest, ok := strings.Cut(arg[2:], ")"); ok {
					if value, known := values[name]; known {
						b.WriteString(value)
						arg = rest
						continue
					}
				}
			}
			b.WriteByte(arg[0])
			arg = arg[1:]
		}
		out[i] = b.String()
	}
	return out
}
