package supervisor

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// strayRounds and strayPause bound the hunt for processes that fork while they
	// are being killed.
	strayRounds = 50
	strayPause  = 10 * time.Millisecond
)

// endStrays kills what still runs in the pod's network namespace after its
// containers and commands have ended: a command of exec that put itself into the
// background left its process group, and would go on with the pod's address, and
// outside the mesh once the pod is released.
func (p *pod) endStrays() {
	want := "net:[" + strconv.FormatUint(p.ns.ID().Ino, 10) + "]"
	for range strayRounds {
		pids := processesIn(want)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			p.log.Info("ending a process that outlived its pod", zap.Int("pid", pid))
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(strayPause)
	}
	p.log.Warn("processes go on in the network of a pod that ended")
}

// processesIn lists the processes of the mesh whose network namespace has the
// given name, zombies left out.
func processesIn(namespace string) []int {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is valid
	var pids []int
	for _, link := range links {
		// A process that has ended since, and a zombie, have no such link.
		if name, err := os.Readlink(link); err != nil || name != namespace {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(link))))
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
