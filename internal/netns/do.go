package netns

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Do runs f on a thread that is inside the namespace and returns what f
// returned. It waits for f.
//
// Only the goroutine that runs f is inside: goroutines that f starts run
// outside, and so does what library code does on goroutines of its own (a
// net.Dialer racing several addresses, a resolver). Sockets belong for ever to
// the namespace in which they were made, so f need only make them. f keeps a
// whole thread for itself; it should not block for long.
//
// A panic in f is not recovered. f may call runtime.Goexit, as testing.T's
// FailNow does; the caller of Do then exits as well.
func (n *NS) Do(f func() error) error {
	return n.hold(func(fd int) error {
		return onThread(func() error {
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace %v: %w", n.id, err)
			}
			return f()
		})
	})
}

// away holds the ids of the threads that are inside a Do, for Socket, which
// may be called there.
var away sync.Map

// onFirstThread tells whether the caller runs on the thread whose namespace
// others see as /proc/PID/ns/net. No f runs on it: seen from outside, the
// process would be in another namespace, for ever if it could not come back.
func onFirstThread() bool { return unix.Gettid() == unix.Getpid() }

// onThread runs f on a goroutine that is locked to a thread, and puts the
// thread back into the namespace in which it was found. When that fails (as
// root of a user namespace one may leave a namespace of the parent and not
// come back) the goroutine ends while locked, whereby the runtime ends the
// thread instead of scheduling others on it.
func onThread(f func() error) error {
	var (
		err      error
		returned bool
		done     = make(chan struct{})
	)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if onFirstThread() {
			// Kept busy here, the first thread cannot be the one that is taken below.
			defer runtime.UnlockOSThread()
			err = onThread(f)
			returned = true
			return
		}
		home, herr := openRetry("/proc/thread-self/ns/net")
		if herr != nil {
			err, returned = fmt.Errorf("open own network namespace: %w", herr), true
			return // still locked; a needless loss of one thread, and safe
		}
		defer unix.Close(home)
		tid := unix.Gettid()
		away.Store(tid, struct{}{})
		defer func() {
			away.Delete(tid)
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = f()
		returned = true
	}()
	<-done
	if !returned {
		runtime.Goexit()
	}
	return err
}
