package netns

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// restoreAttempts and restorePause bound how long Socket tries to bring its
// thread home. The only failure left once comingHome holds is the kernel being
// short of memory for some 100 bytes; a second of that is a dying machine.
const (
	restoreAttempts = 100
	restorePause    = 10 * time.Millisecond
)

// Socket makes a socket inside the namespace, non-blocking and close-on-exec,
// as socket(2). The caller owns the descriptor.
//
// This is the way to dial: a connection needs only its socket made inside, and
// connect waits outside without holding a thread. It is cheaper than Do (see
// BenchmarkSocket), because it enters the namespace on the caller's own thread
// where that thread is sure to come back.
func (n *NS) Socket(domain, kind, protocol int) (int, error) {
	fd := -1
	open := func(nsfd int) error {
		if err := unix.Setns(nsfd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %v: %w", n.id, err)
		}
		var err error
		fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		return os.NewSyscallError("socket", err)
	}
	err := n.hold(func(nsfd int) error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		home, ok := comingHome()
		// Unlike Do, this may be on the process's first thread: it is away for two
		// system calls and comes back.
		if _, inside := away.Load(unix.Gettid()); !ok || inside {
			return onThread(func() error { return open(nsfd) })
		}
		err := open(nsfd)
		for i := 0; unix.Setns(home, unix.CLONE_NEWNET) != nil; i++ {
			if i == restoreAttempts {
				// Going on would make sockets in a pod's namespace that belong elsewhere.
				panic("netns: thread cannot leave network namespace " + n.id.String())
			}
			time.Sleep(restorePause)
		}
		return err
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, err
	}
	return fd, nil
}

// comingHome returns a descriptor of the process's own namespace, kept for the
// life of the process, and whether a thread that left it may enter it again:
// not so as root of a user namespace that started inside a network namespace
// of the parent. Tried once, on a thread that may be lost.
var comingHome = sync.OnceValues(func() (home int, ok bool) {
	err := onThread(func() error {
		var err error
		if home, err = openRetry("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return unix.Setns(home, unix.CLONE_NEWNET)
	})
	return home, err == nil
})
