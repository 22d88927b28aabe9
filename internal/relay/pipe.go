package relay

import (
	"syscall"
)

// pipe is a kernel buffer between two sockets.
type pipe struct{ r, w int }

// free holds empty pipes. A channel and not a sync.Pool: what the collector
// throws away would leave its descriptors open until a finalizer ran.
var free = make(chan pipe, maxFreePipes)

func borrowPipe() (pipe, error) {
	select {
	case p := <-free:
		return p, nil
	default:
	}
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return pipe{}, err
	}
	p := pipe{r: fds[0], w: fds[1]}
	// Refused when the user's pipe budget is used up; the default size serves too.
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(p.w), fSetPipeSize, pipeBytes)
	return p, nil
}

// fSetPipeSize is F_SETPIPE_SZ of fcntl(2), which package syscall does not name.
const fSetPipeSize = 1031

// putBack returns an empty pipe.
func (p pipe) putBack() {
	select {
	case free <- p:
	default:
		p.close()
	}
}

func (p pipe) close() {
	_ = syscall.Close(p.r)
	_ = syscall.Close(p.w)
}

// splice moves up to n bytes without waiting. It returns syscall.EAGAIN when
// nothing can move now, and 0 at the end of the stream.
func splice(from, to, n int) (int, error) {
	for {
		// SPLICE_F_MOVE|SPLICE_F_NONBLOCK of splice(2).
		moved, err := syscall.Splice(from, nil, to, nil, n, 0x1|0x2)
		if err != syscall.EINTR {
			return int(moved), err
		}
	}
}
