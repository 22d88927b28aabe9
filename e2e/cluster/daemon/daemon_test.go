package daemon_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/e2e/cluster/daemon"
)

func start(t *testing.T, args ...string) daemon.Process {
	t.Helper()
	p, err := daemon.Start(daemon.Spec{Path: "/bin/sh", Args: args, Log: filepath.Join(t.TempDir(), "logs", "log")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

func TestStoppedProcessIsGone(t *testing.T) {
	p := start(t, "-c", "sleep 60")
	if !p.Alive() {
		t.Fatal("not alive after its start")
	}
	if err := p.Stop(5 * time.Second); err != nil || p.Alive() {
		t.Errorf("alive %v: %v", p.Alive(), err)
	}
	// Whoever comes later does no harm.
	if err := p.Stop(time.Second); err != nil {
		t.Error(err)
	}
}

func TestProcessThatIgnoresRequestsIsKilled(t *testing.T) {
	p := start(t, "-c", "trap '' TERM; while :; do sleep 0.1; done")
	if err := p.Stop(200 * time.Millisecond); err != nil || p.Alive() {
		t.Errorf("alive %v: %v", p.Alive(), err)
	}
}

func TestReusedIDIsNotSignalled(t *testing.T) {
	// This very process, as it would look if the id had been another's before.
	self, err := daemon.Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	self.Started--
	if self.Alive() {
		t.Error("another process's id counts as alive")
	}
	if err := self.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestZeroProcessIsNotAlive(t *testing.T) {
	var p daemon.Process
	if p.Alive() || p.Kill() != nil {
		t.Error("the zero process is something")
	}
}
