package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// Spec tells what to start.
type Spec struct {
	// Argv is the program and its arguments; a program without a slash is
	// searched in Env's PATH. Path is the file to run when it is not Argv[0].
	Argv []string
	Path string
	Env  []string
	// Dir is the working directory; empty means /.
	Dir string
	// Stdin, Stdout and Stderr are borrowed; nil means /dev/null.
	Stdin, Stdout, Stderr *os.File
	// NS is the network namespace; nil means the supervisor's own. Borrowed.
	NS *netns.NS
	// Sandbox gives the program a pod's surroundings; nil starts it as a plain
	// child of the supervisor.
	Sandbox *Sandbox
}

// Sandbox is what makes a process part of a pod.
type Sandbox struct {
	Hostname string `json:"hostname,omitempty"`
	// Binds maps files of the pod's view (/etc/hosts) to files that take their
	// place. A target that does not exist is passed over.
	Binds map[string]string `json:"binds,omitempty"`
	// Hide are mounts that the pod does not keep alive or see.
	Hide []string `json:"hide,omitempty"`
	// OwnPIDs gives the program a process namespace of its own.
	OwnPIDs bool `json:"ownPIDs,omitempty"`
	// UID and GID are who runs it; nil leaves the supervisor's.
	UID *int `json:"uid,omitempty"`
	GID *int `json:"gid,omitempty"`
}

// shimName is argv[0] of the shim.
const shimName = "tulle-pod-shim"

// shimConfig goes from Start to RunShim.
type shimConfig struct {
	Sandbox
	Dir  string   `json:"dir"`
	Path string   `json:"path"`
	Argv []string `json:"argv"`
}

// Start starts a program. The error is about starting; a program in a sandbox
// that cannot be found ends with status 127 and says so on its Stderr.
func (r *Reaper) Start(spec Spec) (*Process, error) {
	if len(spec.Argv) == 0 {
		return nil, errors.New("start: no command")
	}
	dir := spec.Dir
	if dir == "" {
		dir = "/"
	}
	attr := &syscall.ProcAttr{Dir: dir, Env: spec.Env, Sys: &syscall.SysProcAttr{Setsid: true}}
	argv0, argv := "", spec.Argv
	if spec.Sandbox == nil {
		path, err := lookPath(spec.program(), spec.Env, dir)
		if err != nil {
			return nil, err
		}
		argv0 = path
	} else {
		config, err := json.Marshal(shimConfig{Sandbox: *spec.Sandbox, Dir: dir, Path: spec.program(), Argv: spec.Argv})
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", spec.Argv[0], err)
		}
		// The same binary that runs now, also when a newer one lies at its path.
		argv0, argv = "/proc/self/exe", []string{shimName, string(config)}
		attr.Dir = "/"
		attr.Sys.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS
		if spec.Sandbox.OwnPIDs {
			attr.Sys.Cloneflags |= syscall.CLONE_NEWPID
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Argv[0], err)
	}
	defer null.Close()
	for _, f := range []*os.File{spec.Stdin, spec.Stdout, spec.Stderr} {
		if f == nil {
			f = null
		}
		attr.Files = append(attr.Files, f.Fd())
	}

	p := &Process{done: make(chan struct{})}
	fork := func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		pid, _, err := syscall.StartProcess(argv0, argv, attr)
		if err != nil {
			return err
		}
		p.PID, p.Started = pid, time.Now()
		r.children[pid] = p
		return nil
	}
	if spec.NS != nil {
		err = spec.NS.Do(fork)
	} else {
		err = fork()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Argv[0], err)
	}
	return p, nil
}

func (s *Spec) program() string {
	if s.Path != "" {
		return s.Path
	}
	return s.Argv[0]
}

// lookPath finds a program as execvp would with the PATH of env.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	path := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	for _, d := range filepath.SplitList(path) {
		file := filepath.Join(d, name)
		if info, err := os.Stat(file); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("no program %q in PATH %s", name, path)
}
