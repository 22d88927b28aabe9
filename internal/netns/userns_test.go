package netns_test

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
)

// childEnv marks the copy of this test binary that runs as root of a user
// namespace.
const childEnv = "TULLE_NETNS_TEST_CHILD"

// Root of a user namespace may enter namespaces of its own and not return to
// the one that it started in, which belongs to the parent.
func TestUserNamespaceRootThatCannotComeBack(t *testing.T) {
	roottest.Require(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func userNamespaceChild() int {
	fail := func(format string, args ...any) int {
		fmt.Printf(format+"\n", args...)
		return 1
	}
	before, err := netns.Current()
	if err != nil {
		return fail("current: %v", err)
	}
	ns, err := netns.New()
	if err != nil {
		return fail("new: %v", err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 1000)
	for range 8 {
		wg.Go(func() {
			for range 10 {
				errs <- ns.Do(func() error {
					in, err := netns.Current()
					if err != nil {
						return err
					}
					defer in.Close()
					if in.ID() != ns.ID() {
						return fmt.Errorf("inside Do in %v", in.ID())
					}
					return nil
				})
				fd, err := ns.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
				errs <- err
				unix.Close(fd)
				at, err := netns.Current()
				if err == nil && at.ID() != before.ID() {
					err = fmt.Errorf("a goroutine was scheduled in %v", at.ID())
				}
				errs <- err
				at.Close()
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return fail("%v", err)
		}
	}
	return 0
}
