package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// notStarted is the status of a shim that could not become its program, the one
// that shells give a command that is not there.
const notStarted = 127

// IsShim tells whether this process was started as the shim. main asks before
// it does anything else, and calls RunShim then.
func IsShim() bool { return len(os.Args) == 2 && os.Args[0] == shimName }

// RunShim prepares a pod's surroundings and becomes its program. It does not
// return.
func RunShim() {
	err := shim(os.Args[1])
	fmt.Fprintf(os.Stderr, "meshctl local: %v\n", err)
	os.Exit(notStarted)
}

func shim(config string) error {
	var c shimConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return fmt.Errorf("read the pod's settings: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the pod's mounts private: %w", err)
	}
	for target, source := range c.Binds {
		err := unix.Mount(source, target, "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("put %s at %s: %w", source, target, err)
		}
	}
	for _, mount := range c.Hide {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("hide %s: %w", mount, err)
		}
	}
	if c.OwnPIDs {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	if c.Hostname != "" {
		if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
	}
	if err := c.become(); err != nil {
		return err
	}
	if err := os.Chdir(c.Dir); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	path, err := lookPath(c.Path, os.Environ(), c.Dir)
	if err != nil {
		return err
	}
	// Go leaves SIGHUP and SIGINT ignored when it was started so (nohup, a shell's
	// background job); the program shall get the default, as in a container.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT)
	if err := syscall.Exec(path, c.Argv, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

// become takes on the pod's user. In a user namespace that maps one user only
// there is no other to become; the supervisor refuses such pods before.
func (c *shimConfig) become() error {
	if c.GID != nil {
		if err := syscall.Setgroups([]int{*c.GID}); err != nil {
			return fmt.Errorf("set groups: %w", err)
		}
		if err := syscall.Setgid(*c.GID); err != nil {
			return fmt.Errorf("become group %d: %w", *c.GID, err)
		}
	}
	if c.UID != nil {
		if err := syscall.Setuid(*c.UID); err != nil {
			return fmt.Errorf("become user %d: %w", *c.UID, err)
		}
	}
	return nil
}
