//go:build !linux || !(amd64 || arm64) || race

package rawio

import "syscall"

// Read is what it is on Linux, by the calls that the scheduler and the race detector know
// of; the descriptor must not block.
func Read(fd int, p []byte) (int, error) { return call(syscall.Read, fd, p) }

// Write is what it is on Linux, likewise.
func Write(fd int, p []byte) (int, error) { return call(syscall.Write, fd, p) }

func call(do func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := do(fd, p)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, err
		default:
			return n, nil
		}
	}
}
