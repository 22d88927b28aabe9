package sandbox

// Pod is podOf, for tests.
type Pod struct {
	UID   string
	Depth int
}

// PodsOf reads /proc/PID/cgroup.
func PodsOf(cgroup []byte) []Pod {
	var out []Pod
	for _, p := range podsOf(cgroup) {
		out = append(out, Pod{p.uid, p.depth})
	}
	return out
}

// StartTime reads /proc/PID/stat.
func StartTime(stat []byte) (uint64, bool) { return startTime(stat) }
