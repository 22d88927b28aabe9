package netns

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned by what needs the descriptor of a closed NS.
var ErrClosed = errors.New("network namespace is closed")

// ID identifies a network namespace on this machine for as long as it lives:
// two NS are the same namespace exactly when their IDs are equal and one of
// them is still open. The kernel may give the number of a dead namespace to a
// new one. The zero ID is no namespace.
type ID struct {
	// Dev is the device number of nsfs.
	Dev uint64
	// Ino is the inode, the number in the text "net:[4026531840]".
	Ino uint64
}

// String has the form that the kernel shows in /proc/PID/ns/net.
func (id ID) String() string { return fmt.Sprintf("net:[%d]", id.Ino) }

// NS holds one network namespace by a descriptor of its own. Its methods are
// safe for concurrent use; Close waits for nobody, running calls keep the
// descriptor until they are done.
type NS struct {
	file   *os.File
	fd     int
	id     ID
	closed atomic.Bool
}

// Current returns the namespace of the calling thread. Outside Do that is the
// process's namespace.
func Current() (*NS, error) { return Open("/proc/thread-self/ns/net") }

// Open opens the namespace at path: a bind mount as in /var/run/netns, or
// /proc/PID/ns/net. It fails when path is anything else.
func Open(path string) (*NS, error) {
	fd, err := openRetry(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	ns, err := FromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return ns, nil
}

// FromFD makes an NS of a descriptor and owns it from then on: it is closed
// also when FromFD fails because it is not a network namespace.
func FromFD(fd int) (*NS, error) {
	if fd < 0 {
		return nil, fmt.Errorf("descriptor %d: %w", fd, unix.EBADF)
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("descriptor is not a namespace: %w", err)
	}
	if kind != unix.CLONE_NEWNET {
		unix.Close(fd)
		return nil, fmt.Errorf("descriptor is a namespace of another kind (%#x), not of the network: %w", kind, unix.EINVAL)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("stat of the network namespace: %w", err)
	}
	id := ID{Dev: uint64(st.Dev), Ino: st.Ino}
	return &NS{file: os.NewFile(uintptr(fd), id.String()), fd: fd, id: id}, nil
}

// Dup returns a second, independent hold on the same namespace.
func (n *NS) Dup() (*NS, error) {
	fd := -1
	err := n.hold(func(own int) error {
		var err error
		fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("duplicate network namespace %v: %w", n.id, err)
	}
	return FromFD(fd)
}

// ID identifies the namespace; it stays readable after Close.
func (n *NS) ID() ID { return n.id }

// FD returns the descriptor for calls that take one (netlink sockets,
// SCM_RIGHTS). It stays ours: do not close it, and keep n open while it is in
// use.
func (n *NS) FD() int { return n.fd }

// Close lets go of the namespace. A second Close returns ErrClosed.
func (n *NS) Close() error {
	if n.closed.Swap(true) {
		return ErrClosed
	}
	return n.file.Close()
}

// hold runs f with the descriptor, which cannot be closed, and so not be
// reused for something else, meanwhile.
func (n *NS) hold(f func(fd int) error) error {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return ErrClosed
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return ErrClosed
	}
	return inner
}

func openRetry(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
