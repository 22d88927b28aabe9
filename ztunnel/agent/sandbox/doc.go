// Package sandbox finds the network namespaces of running pods without asking
// the container runtime: by the control groups of processes, whose paths carry
// the pod's UID, and by the namespaces that the runtime keeps mounted.
//
// It knows the names of both cgroup drivers (cgroupfs and systemd) and of both
// versions of control groups. It reads only, and what it returns is true for the
// moment of the look: a process may end, and its number come back, right after.
// So a result carries the namespace's identity, which whoever opens the path
// compares.
//
//	found, err := sandbox.Finder{Proc: "/host/proc", Netns: "/var/run/netns"}.Find([]string{uid})
//	if s, ok := found[uid]; ok { netns.Open(s.Path) … }
package sandbox
