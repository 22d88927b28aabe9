package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// Finder looks for pods. Its zero value looks in /proc and /var/run/netns.
type Finder struct {
	// Proc is a proc file system in which all processes of the node are seen.
	Proc string
	// Netns is where the runtime keeps network namespaces mounted. It may be
	// missing.
	Netns string
}

// Sandbox is where a pod's network namespace was found.
type Sandbox struct {
	// Path is the runtime's mount where there is one, and else the entry of the
	// pod's oldest process, which lives shorter.
	Path string
	ID   netns.ID
}

// candidate is a process of a pod that is wanted.
type candidate struct {
	Sandbox
	mounted bool
	depth   int
	start   uint64
}

// before tells whether c is the better one. Processes in a namespace that the
// runtime mounted come first; then those of a container rather than of what a
// container started in groups of its own; then the oldest, which is the pause
// container's.
func (c candidate) before(o candidate) bool {
	switch {
	case c.mounted != o.mounted:
		return c.mounted
	case c.depth != o.depth:
		return c.depth < o.depth
	}
	return c.start < o.start
}

// Find looks at all processes once and returns those of uids that it found. A
// pod that has no process, or only such in the network of the node, is not
// found. It needs the right to look into foreign processes (CAP_SYS_PTRACE).
//
// uids are those of all of the node's pods, not only of who is looked for: a
// process belongs to the outermost of them in its path, because below its own
// group a container that may make groups can give them any name, another pod's
// UID too.
func (f Finder) Find(uids []string) (map[string]Sandbox, error) {
	if len(uids) == 0 {
		return nil, nil
	}
	wanted := make(map[string]bool, len(uids))
	for _, uid := range uids {
		wanted[uid] = true
	}
	own, err := netns.Current()
	if err != nil {
		return nil, fmt.Errorf("find pods: %w", err)
	}
	defer own.Close()
	mounts, err := f.mounts()
	if err != nil {
		return nil, err
	}
	processes, err := os.ReadDir(f.proc())
	if err != nil {
		return nil, fmt.Errorf("find pods: %w", err)
	}
	best := map[string]candidate{}
	var denied error
	for _, p := range processes {
		if _, err := strconv.ParseUint(p.Name(), 10, 32); err != nil {
			continue
		}
		dir := filepath.Join(f.proc(), p.Name())
		cgroup, err := readFile(filepath.Join(dir, "cgroup"), maxCgroup)
		if err != nil {
			continue // ended meanwhile
		}
		pod, ok := outermost(podsOf(cgroup), wanted)
		if !ok {
			continue
		}
		c, err := f.look(dir, pod, mounts)
		if errors.Is(err, os.ErrPermission) {
			denied = err
		}
		if err != nil || c.ID == own.ID() {
			continue
		}
		if b, ok := best[pod.uid]; !ok || c.before(b) {
			best[pod.uid] = c
		}
	}
	if len(best) == 0 && denied != nil {
		return nil, fmt.Errorf("find pods: %w; the node agent needs CAP_SYS_PTRACE and no AppArmor profile", denied)
	}
	found := make(map[string]Sandbox, len(best))
	for uid, c := range best {
		found[uid] = c.Sandbox
	}
	return found, nil
}

// outermost is the pod that a process belongs to: the first one that is wanted.
func outermost(pods []podOf, wanted map[string]bool) (podOf, bool) {
	for _, p := range pods {
		if wanted[p.uid] {
			return p, true
		}
	}
	return podOf{}, false
}

// Inhabited tells whether any process that can be looked into is in the
// namespace; when none can but our own, that is an error.
func (f Finder) Inhabited(id netns.ID) (bool, error) {
	processes, err := os.ReadDir(f.proc())
	if err != nil {
		return false, fmt.Errorf("look for processes in %v: %w", id, err)
	}
	seen := 0
	var denied error
	for _, p := range processes {
		if _, err := strconv.ParseUint(p.Name(), 10, 32); err != nil {
			continue
		}
		there, err := identity(filepath.Join(f.proc(), p.Name(), "ns", "net"))
		switch {
		case err == nil && there == id:
			return true, nil
		case err == nil:
			seen++
		case errors.Is(err, os.ErrPermission):
			denied = err
		}
	}
	if denied != nil && seen <= 1 {
		return false, fmt.Errorf("look for processes in %v: %w; the node agent needs CAP_SYS_PTRACE and no AppArmor profile", id, denied)
	}
	return false, nil
}

// All lists every network namespace of the node but our own, once each: those
// that are mounted and those that a process is in.
func (f Finder) All() ([]Sandbox, error) {
	own, err := netns.Current()
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	defer own.Close()
	all, err := f.mounts()
	if err != nil {
		return nil, err
	}
	processes, err := os.ReadDir(f.proc())
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	for _, p := range processes {
		path := filepath.Join(f.proc(), p.Name(), "ns", "net")
		if id, err := identity(path); err == nil && all[id] == "" {
			all[id] = path
		}
	}
	delete(all, own.ID())
	list := make([]Sandbox, 0, len(all))
	for id, path := range all {
		list = append(list, Sandbox{Path: path, ID: id})
	}
	return list, nil
}

// look takes the namespace of one process.
func (f Finder) look(dir string, pod podOf, mounts map[netns.ID]string) (candidate, error) {
	path := filepath.Join(dir, "ns", "net")
	id, err := identity(path)
	if err != nil {
		return candidate{}, err
	}
	stat, err := readFile(filepath.Join(dir, "stat"), maxStat)
	if err != nil {
		return candidate{}, err
	}
	start, ok := startTime(stat)
	if !ok {
		return candidate{}, fmt.Errorf("%s/stat: not understood", dir)
	}
	// The number may have been given to another process between two reads.
	cgroup, err := readFile(filepath.Join(dir, "cgroup"), maxCgroup)
	if err != nil {
		return candidate{}, err
	}
	still := false
	for _, p := range podsOf(cgroup) {
		still = still || p.uid == pod.uid
	}
	if !still {
		return candidate{}, os.ErrNotExist
	}
	c := candidate{Sandbox: Sandbox{Path: path, ID: id}, depth: pod.depth, start: start}
	if mount, ok := mounts[id]; ok {
		c.Path, c.mounted = mount, true
	}
	return c, nil
}

// mounts lists the namespaces that the runtime keeps.
func (f Finder) mounts() (map[netns.ID]string, error) {
	dir := f.Netns
	if dir == "" {
		dir = "/var/run/netns"
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("find pods: %w", err)
	}
	mounts := make(map[netns.ID]string, len(entries))
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		// A name that is left without its mount is an ordinary file.
		var fs unix.Statfs_t
		if unix.Statfs(path, &fs) != nil || int64(fs.Type) != nsfsMagic {
			continue
		}
		if id, err := identity(path); err == nil {
			mounts[id] = path
		}
	}
	return mounts, nil
}

func (f Finder) proc() string {
	if f.Proc == "" {
		return "/proc"
	}
	return f.Proc
}

func identity(path string) (netns.ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return netns.ID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return netns.ID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// startTime is field 22 of /proc/PID/stat, proc_pid_stat(5). The second field is
// a name in parentheses that may hold anything.
func startTime(stat []byte) (uint64, bool) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, false
	}
	fields := bytes.Fields(stat[end+1:])
	const field = 22 - 3 // the first one after the name is number 3
	if len(fields) <= field {
		return 0, false
	}
	start, err := strconv.ParseUint(string(fields[field]), 10, 64)
	return start, err == nil
}

func readFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}
