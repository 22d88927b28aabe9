//go:build (amd64 || arm64) && !race

package rawio

import (
	"syscall"
	"unsafe"
)

// Read reads what there is into p. It returns 0 and no error at the end of the stream, and
// syscall.EAGAIN where nothing is there; a blocking descriptor does not make it wait. An
// empty p reads nothing.
func Read(fd int, p []byte) (int, error) {
	return call(syscall.SYS_RECVFROM, fd, p, syscall.MSG_DONTWAIT)
}

// Write writes as much of p as the socket takes, or returns syscall.EAGAIN where that is
// nothing. A peer that has gone is syscall.EPIPE, and no signal.
func Write(fd int, p []byte) (int, error) {
	return call(syscall.SYS_SENDTO, fd, p, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

func call(trap uintptr, fd int, p []byte, flags uintptr) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, syscall.EAGAIN
		default:
			return 0, errno
		}
	}
}
