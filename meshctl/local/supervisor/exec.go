package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
	"github.com/tulle-mesh/tulle/meshctl/local/process"
)

// serveExec runs one command for each connection, until ctx ends.
func (s *Supervisor) serveExec(ctx context.Context, ln *net.UnixListener) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := ln.AcceptUnix()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				s.log.Error("cannot accept on exec.sock", zap.Error(err))
				time.Sleep(restartMin) // out of descriptors, most likely
				continue
			}
			return
		}
		running.Go(func() {
			defer conn.Close()
			s.exec(ctx, conn)
		})
	}
}

func (s *Supervisor) exec(ctx context.Context, conn *net.UnixConn) {
	var request control.Exec
	stdio, err := control.Receive(conn, &request, 3)
	if err != nil {
		s.log.Warn("unreadable request on exec.sock", zap.Error(err))
		return
	}
	closeStdio := func() {
		for _, f := range stdio {
			f.Close()
		}
	}
	proc, pod, err := s.startExec(request, stdio)
	// The command has them now; ours would keep pipes open after its end.
	closeStdio()
	if err != nil {
		control.Send(conn, control.ExecMessage{Error: err.Error()})
		return
	}
	var (
		ending <-chan struct{}
		leave  = func() {}
	)
	if pod != nil {
		ending, leave = pod.ending, pod.leave
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			var m control.ExecMessage
			if _, err := control.Receive(conn, &m, 0); err != nil {
				return
			}
			if m.Signal > 0 {
				proc.Signal(syscall.Signal(m.Signal), true)
			}
		}
	}()
	select {
	case <-proc.Done():
		control.Send(conn, control.ExecMessage{Exited: true, Code: proc.Exit().Code})
	case <-gone:
		// The caller is gone: its command goes too, as with a lost terminal.
		proc.Signal(unix.SIGHUP, true)
		proc.Stop(defaultGrace)
	case <-ending:
		proc.Stop(pod.grace())
		control.Send(conn, control.ExecMessage{Error: fmt.Sprintf("pod %v was stopped, and the command with it", pod.current().PodKey)})
	case <-ctx.Done():
		proc.Stop(defaultGrace)
	}
	leave()
	conn.Close()
	<-gone
}

// visit is a pod that a command was started in, and how to leave it.
type visit struct {
	*pod
	leave func()
}

// startExec starts the command; the visit is nil when it is not in a pod.
func (s *Supervisor) startExec(request control.Exec, stdio []*os.File) (_ *process.Process, in *visit, err error) {
	defer func() {
		if err != nil && in != nil {
			in.leave()
		}
	}()
	if len(stdio) != 3 || len(request.Argv) == 0 {
		return nil, nil, errors.New("a command, and its standard input, output and error are needed")
	}
	spec := process.Spec{Argv: request.Argv, Dir: request.Dir, Stdin: stdio[0], Stdout: stdio[1], Stderr: stdio[2]}
	switch {
	case request.ControlPlane:
		spec.NS, spec.Env = s.home, s.baseEnv()
		spec.Sandbox = &process.Sandbox{Hostname: "control-plane"}
	case request.Node != "":
		n := s.node(request.Node)
		if n == nil {
			return nil, nil, fmt.Errorf("no node %q: the nodes are node-1 to node-%d", request.Node, len(s.nodes))
		}
		spec.NS, spec.Env = n.net.NS, s.baseEnv()
		spec.Sandbox = &process.Sandbox{Hostname: n.Name}
	default:
		p, err := s.findPod(request.Namespace, request.Pod)
		if err != nil {
			return nil, nil, err
		}
		c := p.containers[0]
		for _, other := range p.containers {
			if other.spec.Name == request.Container {
				c = other
			}
		}
		if request.Container != "" && c.spec.Name != request.Container {
			return nil, nil, fmt.Errorf("pod %v has no container %q", p.current().PodKey, request.Container)
		}
		leave, err := p.enter()
		if err != nil {
			return nil, nil, err
		}
		in = &visit{pod: p, leave: leave}
		spec.NS, spec.Env, spec.Sandbox = p.ns, p.environment(c.spec.Env), p.sandbox(c.spec, false)
		if spec.Dir == "" {
			spec.Dir = c.dir()
		}
	}
	spec.Env = append(spec.Env, request.Env...)
	if request.Self {
		spec.Path, spec.Argv = "/proc/self/exe", append([]string{"meshctl"}, spec.Argv...)
	}
	proc, err := s.reaper.Start(spec)
	return proc, in, err
}

// findPod finds a pod by "name", "namespace/name" or "deploy/name"; without a
// namespace the name must be the only one in the mesh.
func (s *Supervisor) findPod(namespace, name string) (*pod, error) {
	deployment := ""
	if kind, rest, ok := strings.Cut(name, "/"); ok {
		switch kind {
		case "deploy", "deployment", "deployments":
			deployment = rest
		case "pod", "pods":
			name = rest
		default:
			namespace, name = kind, rest
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*pod
	if s.plan != nil {
		for _, planned := range s.plan.Pods {
			if namespace != "" && planned.Namespace != namespace {
				continue
			}
			p := s.pods[planned.PodKey]
			if p == nil {
				continue
			}
			if deployment != "" && ownedBy(planned, deployment) {
				return p, nil // any of them will do
			}
			if planned.Name == name {
				found = append(found, p)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("no pod %q in the mesh; `meshctl local status` lists the pods", name)
	}
	return nil, fmt.Errorf("%d pods are called %q; say which with -n NAMESPACE", len(found), name)
}

// ownedBy tells whether a pod belongs to a Deployment: its ReplicaSet is called
// NAME-HASH.
func ownedBy(p *plan.Pod, deployment string) bool {
	for _, o := range p.Object.OwnerReferences {
		if o.Kind == "ReplicaSet" && strings.HasPrefix(o.Name, deployment+"-") && !strings.Contains(o.Name[len(deployment)+1:], "-") {
			return true
		}
	}
	return false
}
