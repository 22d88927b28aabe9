package zds

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Listener accepts proxies.
type Listener struct {
	sock *net.UnixListener
	path string
	made os.FileInfo
}

// Listen makes the socket at path, for the owner only (0600), in place of what
// a dead agent left there. That no living agent serves the path is for the
// caller to know.
func Listen(path string) (*Listener, error) {
	// Bound under another name until its permissions are set, so that there is no
	// moment in which others may connect.
	temporary := path + "." + strconv.Itoa(os.Getpid())
	l := &Listener{path: path}
	err := reach(temporary, func(short string) error {
		var err error
		l.sock, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: short, Net: "unixpacket"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on ZDS socket %s: %w", path, err)
	}
	l.sock.SetUnlinkOnClose(false)
	err = os.Chmod(temporary, 0o600)
	if err == nil {
		l.made, err = os.Lstat(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		l.sock.Close()
		os.Remove(temporary)
		return nil, fmt.Errorf("listen on ZDS socket %s: %w", path, err)
	}
	return l, nil
}

// Accept waits for the next proxy.
func (l *Listener) Accept() (*Conn, error) {
	c, err := l.sock.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("accept on ZDS socket %s: %w", l.path, err)
	}
	return &Conn{sock: c}, nil
}

// Close stops listening and removes the socket, unless another agent has put
// its own there meanwhile.
func (l *Listener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(l.made, now) {
		err = os.Remove(l.path)
		return errors.Join(err, l.sock.Close())
	}
	return l.sock.Close()
}

// reach calls f with a name for path that fits a socket address.
func reach(path string, f func(short string) error) error {
	if len(path) <= maxPath {
		return f(path)
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return f("/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path))
}
