package supervisor

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

// prepareMounts makes the mount namespace ours: nothing that is mounted here is
// seen outside, and /proc shows the mesh's processes.
func prepareMounts(dir control.StateDir) error {
	if os.Getpid() != 1 {
		return errors.New("the supervisor must be PID 1 of its own process namespace; it is started by `meshctl local up`")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w (in a container, parts of its /proc are hidden and the kernel then refuses a fresh one: run it privileged, or unmask /proc)", err)
	}
	// The pods' namespaces are mounted below a file system of its own, so that
	// pods can let go of all of them at once.
	if err := os.MkdirAll(dir.Namespaces(), 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tulle", dir.Namespaces(), "tmpfs", 0, "mode=0700,size=1m"); err != nil {
		return fmt.Errorf("mount %s: %w", dir.Namespaces(), err)
	}
	return nil
}

// pinNamespace mounts a pod's network namespace at a path, by which an agent
// can open it. unpinNamespace takes it away again.
func pinNamespace(dir control.StateDir, uid string, ns *netns.NS) (string, error) {
	path := dir.Namespaces(uid)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.FD()), path, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("mount network namespace at %s: %w", path, err)
	}
	return path, nil
}

func unpinNamespace(dir control.StateDir, uid string) error {
	path := dir.Namespaces(uid)
	err := unix.Unmount(path, unix.MNT_DETACH)
	return errors.Join(err, os.Remove(path))
}
