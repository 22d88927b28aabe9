package redirect_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// childEnv marks the copy of this test binary that runs as root of a user
// namespace.
const childEnv = "TULLE_REDIRECT_TEST_CHILD"

// The mesh on one machine runs without root inside a user namespace.
func TestAsRootOfAUserNamespace(t *testing.T) {
	roottest.Require(t)
	for _, own := range []uintptr{0, unix.CLONE_NEWNET} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), childEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | own,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("clone flags %#x: %v\n%s", cmd.SysProcAttr.Cloneflags, err, out)
		}
	}
}

func userNamespaceChild() int {
	fail := func(what string, err any) int { fmt.Println(what, err); return 1 }
	ns, err := netns.New()
	if err != nil {
		return fail("new", err)
	}
	if err := redirect.Apply(ns, redirect.Config{}); err != nil {
		return fail("apply", err)
	}
	if diffs, err := redirect.Verify(ns, redirect.Config{}); err != nil || len(diffs) > 0 {
		return fail("verify", fmt.Sprint(diffs, err))
	}
	if err := redirect.Remove(ns); err != nil {
		return fail("remove", err)
	}
	return 0
}
