package sandbox

import (
	"bytes"
	"regexp"
	"strings"
)

// podComponent is the part of a control group's path that names a pod:
// "pod" and the UID for the driver cgroupfs, a slice whose name ends so and has
// underscores for the systemd driver. Static pods have a hash of 32 digits.
var podComponent = regexp.MustCompile(`(?:^|-)pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?$`)

// podOf is a pod that a process belongs to, and how many levels below the pod's
// group the process is: a container's main processes are one below, what a
// container runs in groups of its own is deeper.
type podOf struct {
	uid   string
	depth int
}

// podsOf reads /proc/PID/cgroup, outermost pod first. There is more than one pod
// where a pod runs a kubelet of its own, or gives its groups such names. Paths
// may begin with /../ when the reader is in another
// cgroup namespace.
func podsOf(cgroup []byte) []podOf {
	var pods []podOf
	for line := range bytes.Lines(cgroup) {
		// hierarchy-ID:controllers:path, cgroups(7)
		parts := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(":"), 3)
		if len(parts) != 3 {
			continue
		}
		components := strings.Split(string(parts[2]), "/")
		for i, c := range components {
			m := podComponent.FindStringSubmatch(c)
			if m == nil {
				continue
			}
			pods = add(pods, podOf{uid: strings.ReplaceAll(m[1], "_", "-"), depth: len(components) - 1 - i})
		}
	}
	return pods
}

// add keeps the greatest depth of each pod: hierarchies that a container does
// not use leave its processes further up.
func add(pods []podOf, p podOf) []podOf {
	for i := range pods {
		if pods[i].uid == p.uid {
			pods[i].depth = max(pods[i].depth, p.depth)
			return pods
		}
	}
	return append(pods, p)
}
