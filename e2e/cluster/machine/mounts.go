package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// disks are the directories of the host that a node has to itself, and where in
// Config.Dir they are kept.
var disks = []struct{ at, dir string }{
	{"/var/lib/containerd", "containerd"},
	{"/var/lib/kubelet", "kubelet"},
	{"/var/lib/cni", "cni-state"},
	{"/etc/cni/net.d", "cni-conf"},
	{"/opt/cni/bin", "cni-bin"},
	{"/var/log/pods", "log/pods"},
	{"/var/log/containers", "log/containers"},
}

// files are single files of the node's own.
var files = []struct{ at, file string }{
	{"/etc/hosts", "hosts"},
	{"/etc/resolv.conf", "resolv.conf"},
	{"/etc/machine-id", "machine-id"},
}

// sysctls are settings of the whole kernel that a kubelet demands. The node sees
// files that already hold the demanded values, so that it writes none of them.
var sysctls = map[string]string{
	"vm/overcommit_memory":     "1",
	"kernel/panic":             "10",
	"kernel/panic_on_oops":     "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// mountAll makes the node's view of the file system, in a mount namespace that is the caller's alone.
func mountAll(c Config) error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"let go of other nodes' network namespaces", releaseNamespaces},
		{"mount /proc", func() error { return unix.Mount("proc", "/proc", "proc", 0, "") }},
		{"mount /sys", func() error { return mountSys(c.Dir) }},
		{"mount /run", func() error { return unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755") }},
		{"make directories of /run", func() error {
			return errors.Join(os.MkdirAll("/run/containerd", 0o711), os.MkdirAll("/run/lock", 0o755), os.MkdirAll("/run/netns", 0o755))
		}},
		{"mount the node's disks", func() error { return mountDisks(c) }},
		{"shadow kernel settings", func() error { return shadowSysctls(c.Dir) }},
		// The kubelet and the network namespaces of CNI rely on mounts that propagate.
		{"make mounts shared", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// releaseNamespaces unmounts what this mount namespace inherited below
// /run/netns: a network namespace lives as long as any mount of it does.
func releaseNamespaces() error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	var points []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], "/run/netns") {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points)
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// mountSys mounts a sysfs, which shows the links of the network namespace that
// it is mounted in, with the host's cgroups, and an own BPF file system.
func mountSys(dir string) error {
	aside := filepath.Join(dir, "cgroup")
	if err := os.MkdirAll(aside, 0o755); err != nil {
		return err
	}
	const cgroups = "/sys/fs/cgroup"
	if err := unix.Mount(cgroups, aside, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount(aside, cgroups, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Unmount(aside, unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "")
}

func mountDisks(c Config) error {
	for _, d := range disks {
		dir := filepath.Join(c.Dir, d.dir)
		_, err := os.Stat(dir)
		isNew := errors.Is(err, fs.ErrNotExist)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(d.at, 0o755)); err != nil {
			return err
		}
		if d.at == "/opt/cni/bin" && isNew {
			if err := os.CopyFS(dir, os.DirFS(c.CNIBin)); err != nil {
				return err
			}
		}
		if err := unix.Mount(dir, d.at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", d.at, err)
		}
	}
	for _, f := range files {
		if _, err := os.Stat(f.at); errors.Is(err, fs.ErrNotExist) {
			if err := os.WriteFile(f.at, nil, 0o644); err != nil {
				return err
			}
		}
		if err := unix.Mount(filepath.Join(c.Dir, f.file), f.at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", f.at, err)
		}
	}
	return nil
}

func shadowSysctls(dir string) error {
	shadows := filepath.Join(dir, "sysctl")
	if err := os.MkdirAll(shadows, 0o755); err != nil {
		return err
	}
	for name, value := range sysctls {
		at := "/proc/sys/" + name
		if _, err := os.Stat(at); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		shadow := filepath.Join(shadows, filepath.Base(name))
		if err := os.WriteFile(shadow, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(shadow, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
