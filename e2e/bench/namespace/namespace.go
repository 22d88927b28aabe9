// Package namespace runs a program again in namespaces of its own (mounts, processes,
// network), so that nothing outlives it however it ends: as process 1 there, its end is
// the end of every process that it started, and of every mount and link.
package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Role is the first argument of the program inside.
const Role = "inside"

// dirVariable names the folder that the outer process made and will remove.
const dirVariable = "TULLE_BENCH_DIR"

// ErrSaid says that the program inside failed, and has said why.
var ErrSaid = errors.New("failed")

// Run runs the program inside with its own arguments, and returns when that has ended.
// Paths are flags, "-name=path", that are given after the arguments, as absolute paths.
func Run(args []string, paths ...string) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run it with sudo")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args = append([]string{Role}, args...)
	for _, flag := range paths {
		name, path, _ := strings.Cut(flag, "=")
		if path, err = filepath.Abs(path); err != nil {
			return err
		}
		args = append(args, name+"="+path)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), dirVariable+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		// A terminal's interrupt goes to this process only, which passes it on once.
		Setpgid: true,
	}
	// The kernel sends Pdeathsig when the thread that started the process ends.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in namespaces of its own: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			cmd.Process.Signal(s)
		case err := <-done:
			if _, ok := errors.AsType[*exec.ExitError](err); ok {
				return ErrSaid
			}
			return err
		}
	}
}

// Enter makes the mounts of the program inside its own, and returns its folder.
func Enter() (dir string, err error) {
	dir = os.Getenv(dirVariable)
	if os.Getpid() != 1 || dir == "" {
		return "", fmt.Errorf("the role %q is for the program itself", Role)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return "", fmt.Errorf("mount /proc: %w", err)
	}
	return dir, nil
}
