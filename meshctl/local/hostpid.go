package local

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

// hostPIDs fills in the numbers by which the processes of the mesh go here,
// outside its process namespace, so that ps, kill and perf find them.
func (m *Mesh) hostPIDs(st *control.Status) {
	supervisor := supervisorPID(m.dir)
	if supervisor == 0 {
		return
	}
	st.SupervisorPID = supervisor
	numbers := innerToOuter(supervisor)
	if st.ControlPlane != nil {
		st.ControlPlane.HostPID = numbers[st.ControlPlane.PID]
	}
	for i := range st.Nodes {
		for j := range st.Nodes[i].Components {
			c := &st.Nodes[i].Components[j]
			c.HostPID = numbers[c.PID]
		}
	}
	for i := range st.Pods {
		for j := range st.Pods[i].Containers {
			c := &st.Pods[i].Containers[j]
			c.HostPID = numbers[c.PID]
		}
	}
}

// innerToOuter maps the process numbers of a supervisor's namespace to ours. A
// process's numbers in all namespaces, ours first, are in its NSpid line
// (proc_pid_status(5)); which namespace they belong to follows from the
// processes being children of the supervisor.
func innerToOuter(supervisor int) map[int]int {
	parent, inner := map[int]int{}, map[int]int{}
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			switch {
			case len(fields) == 2 && fields[0] == "PPid:":
				parent[pid], _ = strconv.Atoi(fields[1])
			case len(fields) >= 3 && fields[0] == "NSpid:":
				inner[pid], _ = strconv.Atoi(fields[2])
			}
		}
	}
	numbers := map[int]int{}
	for pid, n := range inner {
		if parent[pid] == supervisor {
			numbers[n] = pid
		}
	}
	return numbers
}
