package netns_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(userNamespaceChild())
	}
	goleak.VerifyTestMain(m)
}

func fresh(t testing.TB) *netns.NS {
	t.Helper()
	roottest.Require(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func current(t testing.TB) netns.ID {
	t.Helper()
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	return ns.ID()
}

func TestDoRunsInsideAndTheProcessStaysOutside(t *testing.T) {
	ns := fresh(t)
	home := current(t)
	if home == ns.ID() {
		t.Fatal("the fresh namespace is our own")
	}
	err := ns.Do(func() error {
		if got := current(t); got != ns.ID() {
			t.Errorf("inside Do the namespace is %v, want %v", got, ns.ID())
		}
		other := make(chan netns.ID)
		go func() { other <- current(t) }()
		if got := <-other; got != home {
			t.Errorf("a goroutine started inside runs in %v, want %v", got, home)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	noThreadInside(t, ns)
}

func TestDoReturnsTheError(t *testing.T) {
	ns := fresh(t)
	want := errors.New("no luck")
	if err := ns.Do(func() error { return want }); err != want {
		t.Errorf("got %v, want the very error", err)
	}
}

func TestNestedDoReturnsToTheOuterNamespace(t *testing.T) {
	outer, inner := fresh(t), fresh(t)
	err := outer.Do(func() error {
		if err := inner.Do(func() error {
			if got := current(t); got != inner.ID() {
				t.Errorf("inner Do runs in %v", got)
			}
			return nil
		}); err != nil {
			return err
		}
		fd, err := inner.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		unix.Close(fd)
		if got := current(t); got != outer.ID() {
			t.Errorf("after the inner Do the outer runs in %v", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGoexitInsideDoEndsTheCallerAndRestoresTheThread(t *testing.T) {
	ns := fresh(t)
	after := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		ns.Do(func() error { runtime.Goexit(); return nil })
		after = true
	}()
	<-done
	if after {
		t.Error("Do returned after Goexit")
	}
	noThreadInside(t, ns)
}

func TestNewHasLoopbackUp(t *testing.T) {
	ns := fresh(t)
	err := ns.Do(func() error {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSocketIsMadeInside(t *testing.T) {
	ns := fresh(t)
	fd, err := ns.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// SIOCGSKNS gives the namespace of a socket.
	nsfd, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		t.Fatal(err)
	}
	got, err := netns.FromFD(nsfd)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if got.ID() != ns.ID() {
		t.Errorf("the socket is in %v, want %v", got.ID(), ns.ID())
	}
	if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
		t.Error("the socket blocks")
	}
	if _, err := ns.Socket(unix.AF_INET, 99, 0); err == nil {
		t.Error("a socket of an unknown kind was made")
	}
	noThreadInside(t, ns)
}

func TestOpenRefusesWhatIsNoNetworkNamespace(t *testing.T) {
	for _, path := range []string{"/proc/self/ns/mnt", "/dev/null", filepath.Join(t.TempDir(), "none")} {
		before := openFDs(t)
		ns, err := netns.Open(path)
		if err == nil {
			ns.Close()
			t.Errorf("Open(%s) worked", path)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name %s: %v", path, err)
		}
		if after := openFDs(t); after != before {
			t.Errorf("Open(%s) left %d descriptors", path, after-before)
		}
	}
}

func TestClosedNamespaceIsRefused(t *testing.T) {
	ns := fresh(t)
	dup, err := ns.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer dup.Close()
	if dup.ID() != ns.ID() || dup.FD() == ns.FD() {
		t.Error("Dup is not a second hold on the same namespace")
	}
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ns.Close(); !errors.Is(err, netns.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if err := ns.Do(func() error { return nil }); !errors.Is(err, netns.ErrClosed) {
		t.Errorf("Do after Close: %v", err)
	}
	if _, err := ns.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); !errors.Is(err, netns.ErrClosed) {
		t.Errorf("Socket after Close: %v", err)
	}
	if _, err := ns.Dup(); !errors.Is(err, netns.ErrClosed) {
		t.Errorf("Dup after Close: %v", err)
	}
	if err := dup.Do(func() error { return nil }); err != nil {
		t.Errorf("the duplicate does not outlive the original: %v", err)
	}
}

func TestConcurrentUseLeavesEveryThreadHome(t *testing.T) {
	a, b := fresh(t), fresh(t)
	var wg sync.WaitGroup
	for i := range 16 {
		ns := a
		if i%2 == 1 {
			ns = b
		}
		wg.Go(func() {
			for range 50 {
				if err := ns.Do(func() error {
					if got := current(t); got != ns.ID() {
						t.Errorf("in %v, want %v", got, ns.ID())
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
				fd, err := ns.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
				if err != nil {
					t.Error(err)
					continue
				}
				unix.Close(fd)
			}
		})
	}
	wg.Wait()
	noThreadInside(t, a, b)
}

// noThreadInside looks at all threads of the process.
func noThreadInside(t testing.TB, spaces ...*netns.NS) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		link, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
		if err != nil {
			continue // the thread ended meanwhile
		}
		for _, ns := range spaces {
			if link == ns.ID().String() {
				t.Errorf("thread %s is still in %s", task.Name(), link)
			}
		}
	}
}

func openFDs(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func BenchmarkDoSocket(b *testing.B) {
	ns := fresh(b)
	for b.Loop() {
		if err := ns.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSocket(b *testing.B) {
	ns := fresh(b)
	for b.Loop() {
		fd, err := ns.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
}
