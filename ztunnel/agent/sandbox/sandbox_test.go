package sandbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/ztunnel/agent/sandbox"
)

const (
	uid   = "ffffffff-10e8-4b62-a39c-4165e6fcb3b8"
	other = "0a2b9c51-3f5e-4c1f-9d36-5b1c8c0f7e11"
	hash  = "0123456789abcdef0123456789abcdef"
)

func TestPodsOf(t *testing.T) {
	slice := "kubepods-burstable-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice"
	for _, tc := range []struct {
		name, cgroup string
		want         []sandbox.Pod
	}{
		{"version 2, cgroupfs", "0::/kubepods/burstable/pod" + uid + "/f00\n", []sandbox.Pod{{uid, 1}}},
		{"version 2, systemd", "0::/kubepods.slice/kubepods-burstable.slice/" + slice + "/cri-containerd-f00.scope\n", []sandbox.Pod{{uid, 1}}},
		{"version 2, guaranteed, systemd", "0::/kubepods.slice/kubepods-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice/crio-f00.scope\n", []sandbox.Pod{{uid, 1}}},
		{"seen from another pod's cgroup namespace", "0::/../../../burstable/pod" + uid + "/f00\n", []sandbox.Pod{{uid, 1}}},
		{"version 1", "12:pids:/kubepods/besteffort/pod" + uid + "/f00\n11:cpu,cpuacct:/kubepods/besteffort/pod" + uid + "/f00\n0::/\n", []sandbox.Pod{{uid, 1}}},
		{"version 1, a root of the kubelet's own", "3:memory:/kp/n1/kubepods/pod" + uid + "/f00\n", []sandbox.Pod{{uid, 1}}},
		{"a static pod", "0::/kubepods/pod" + hash + "/f00\n", []sandbox.Pod{{hash, 1}}},
		{"a container in a container", "0::/kubepods/pod" + uid + "/f00/docker/f01\n", []sandbox.Pod{{uid, 3}}},
		{"a pod in a pod", "0::/kubepods/pod" + other + "/f00/kubelet/kubepods/pod" + uid + "/f01\n", []sandbox.Pod{{other, 5}, {uid, 1}}},
		{"no pod", "0::/system.slice/kubelet.service\n", nil},
		{"a name that looks like one", "0::/pod-things/mypod" + uid + "/x\n", nil},
		{"empty", "", nil},
		{"not a line", "pod" + uid, nil},
	} {
		if got := sandbox.PodsOf([]byte(tc.cgroup)); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestStartTime(t *testing.T) {
	const stat = "17 (a) (b c) S 1 17 17 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 10\n"
	if got, ok := sandbox.StartTime([]byte(stat)); !ok || got != 4711 {
		t.Errorf("%d, %v", got, ok)
	}
	for n := range strings.Index(stat, "4711") {
		if got, ok := sandbox.StartTime([]byte(stat[:n])); ok {
			t.Errorf("%d of %d bytes gave %d", n, len(stat), got)
		}
	}
}

func FuzzPodsOf(f *testing.F) {
	f.Add([]byte("0::/kubepods/pod" + uid + "/f00\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range sandbox.PodsOf(b) {
			if p.Depth < 0 || len(p.UID) < 32 {
				t.Errorf("%q gave %+v", b, p)
			}
		}
		sandbox.StartTime(b)
	})
}

// hierarchy is a directory of control groups that processes can be put into.
func hierarchy(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		dir := filepath.Join(root, "tulle-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) == nil {
			t.Cleanup(func() { os.Remove(dir) })
			return dir
		}
	}
	roottest.Skip(t, "cannot make a control group under /sys/fs/cgroup")
	return ""
}

// process runs a program in ns and in the group dir/name until the test ends.
func process(t *testing.T, ns *netns.NS, dir string, names ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(roottest.Program(t, "sleep"), "600")
	start := cmd.Start
	if err := ns.Do(start); err != nil {
		t.Fatal(err)
	}
	group := dir
	var made []string
	for _, n := range names {
		group = filepath.Join(group, n)
		if os.Mkdir(group, 0o755) == nil {
			made = append(made, group)
		}
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		for _, g := range slices.Backward(made) {
			unix.Rmdir(g)
		}
	})
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func newNS(t *testing.T) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func find(t *testing.T, f sandbox.Finder, uids ...string) map[string]sandbox.Sandbox {
	t.Helper()
	found, err := f.Find(uids)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFindsRunningPods(t *testing.T) {
	roottest.Require(t)
	groups := hierarchy(t)
	pod, inner, second := newNS(t), newNS(t), newNS(t)
	f := sandbox.Finder{Netns: t.TempDir()}
	if found := find(t, f, uid); len(found) != 0 {
		t.Errorf("before there is one: %v", found)
	}
	// A process on its way into its container is still in the node's network.
	own, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	process(t, own, groups, "pod"+uid, "early")
	if found := find(t, f, uid); len(found) != 0 {
		t.Errorf("a process in the node's network was taken for the pod: %v", found)
	}
	process(t, inner, groups, "pod"+uid, "app", "docker") // older, but the pod's own container
	pause := process(t, pod, groups, "pod"+uid, "pause")
	process(t, inner, groups, "pod"+uid, "app2")
	process(t, second, groups, "pod"+other, "pause")
	found := find(t, f, uid, hash)
	if s := found[uid]; len(found) != 1 || s.ID != pod.ID() || s.Path != fmt.Sprintf("/proc/%d/ns/net", pause.Process.Pid) {
		t.Errorf("found %v, want %v of process %d", found, pod.ID(), pause.Process.Pid)
	}
	if found := find(t, f, uid, other); len(found) != 2 || found[other].ID != second.ID() {
		t.Errorf("found %v", found)
	}
	all, err := f.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []netns.ID{pod.ID(), inner.ID(), second.ID()} {
		if n := len(slices.DeleteFunc(slices.Clone(all), func(s sandbox.Sandbox) bool { return s.ID != want })); n != 1 {
			t.Errorf("%v is listed %d times", want, n)
		}
	}
	if slices.ContainsFunc(all, func(s sandbox.Sandbox) bool { return s.ID == own.ID() }) {
		t.Error("the node's own namespace is listed")
	}
}

// The runtime's mount is preferred: it lives as long as the pod.
func TestPrefersTheMountedNamespace(t *testing.T) {
	roottest.Require(t)
	groups := hierarchy(t)
	pod, inner := newNS(t), newNS(t)
	dir := t.TempDir()
	mount := filepath.Join(dir, "cni-1")
	for _, name := range []string{mount, filepath.Join(dir, "left-behind")} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", pod.FD()), mount, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(mount, unix.MNT_DETACH)
	process(t, inner, groups, "pod"+uid, "first")
	process(t, pod, groups, "pod"+uid, "second")
	found := find(t, sandbox.Finder{Netns: dir}, uid)
	if s := found[uid]; s.ID != pod.ID() || s.Path != mount {
		t.Errorf("found %+v, want %v at %s", s, pod.ID(), mount)
	}
}

// A container that may make control groups gives one the name of another pod: its
// processes stay its own, however old and near to the top they are.
func TestGroupNamedAfterAnotherPodDoesNotTakeItsPlace(t *testing.T) {
	roottest.Require(t)
	groups := hierarchy(t)
	pod, liar := newNS(t), newNS(t)
	process(t, liar, groups, "pod"+other, "app", "pod"+uid)
	process(t, liar, groups, "pod"+other, "app", "pod"+uid, "pause")
	f := sandbox.Finder{Netns: t.TempDir()}
	if found := find(t, f, uid, other); len(found) != 1 || found[other].ID != liar.ID() {
		t.Errorf("before the pod is there: %v", found)
	}
	process(t, pod, groups, "pod"+uid, "pause")
	if found := find(t, f, uid, other); found[uid].ID != pod.ID() || found[other].ID != liar.ID() {
		t.Errorf("found %v, want %v and %v", found, pod.ID(), liar.ID())
	}
}

func TestTellsWhetherANamespaceIsInhabited(t *testing.T) {
	roottest.Require(t)
	groups, ns := hierarchy(t), newNS(t)
	f := sandbox.Finder{}
	if yes, err := f.Inhabited(ns.ID()); err != nil || yes {
		t.Errorf("nobody is there: %v, %v", yes, err)
	}
	cmd := process(t, ns, groups, "pod"+uid, "pause")
	if yes, err := f.Inhabited(ns.ID()); err != nil || !yes {
		t.Errorf("somebody is there: %v, %v", yes, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if yes, err := f.Inhabited(ns.ID()); err != nil || yes {
		t.Errorf("they have ended: %v, %v", yes, err)
	}
}

func TestNothingIsAskedForNothing(t *testing.T) {
	if found, err := (sandbox.Finder{Proc: "/nowhere"}).Find(nil); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
	if _, err := (sandbox.Finder{Proc: "/nowhere"}).Find([]string{uid}); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("%v", err)
	}
}

func BenchmarkFind(b *testing.B) {
	f := sandbox.Finder{}
	for b.Loop() {
		if _, err := f.Find([]string{uid}); err != nil {
			b.Fatal(err)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(processes)), "processes")
}
