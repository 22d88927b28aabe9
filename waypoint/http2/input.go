package http2

import (
	"io"
	"net"
	"syscall"

	"github.com/tulle-mesh/tulle/internal/rawio"
)

// idleRead is how many octets a connection that is no socket waits for data with: it
// takes most heads. Sockets tell when there is something, and are waited for with
// nothing.
const idleRead = 1 << 10

// input reads a connection into borrowed buffers, larger ones while much comes. One
// goroutine uses it.
type input struct {
	nc    net.Conn
	sys   syscall.RawConn // nil when nc is no socket
	class int             // of the next buffer, -1: idle
	idle  []byte
	buf   *buffer
	n     int
	err   error
	ready func(fd uintptr) bool
}

func (in *input) init(nc net.Conn, sys syscall.RawConn) {
	in.nc, in.sys, in.ready = nc, sys, in.readReady
	if sys == nil {
		in.class = -1
	}
}

// rawConn returns the descriptor of sockets, nil for other connections.
func rawConn(nc net.Conn) syscall.RawConn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return rc
}

// read blocks until something came, and returns it; it is good until release. Both
// octets and an error may come.
func (in *input) read() ([]byte, error) {
	if in.sys != nil {
		if err := in.sys.Read(in.ready); err != nil {
			return nil, err
		}
		in.adapt()
		return in.buf.b[:in.n], in.err
	}
	b := in.idle
	if in.class < 0 {
		if b == nil {
			in.idle = make([]byte, idleRead)
			b = in.idle
		}
	} else {
		in.buf = borrow(in.class)
		b = in.buf.b
	}
	in.n, in.err = in.nc.Read(b)
	in.adapt()
	return b[:in.n], in.err
}

// release gives the buffer back that read borrowed.
func (in *input) release() {
	in.buf.release()
	in.buf = nil
}

// adapt chooses the class of the next buffer after what this read brought.
func (in *input) adapt() {
	smallest := classSmall
	if in.sys == nil {
		smallest = -1
	}
	size := idleRead
	if in.class >= 0 {
		size = classSize[in.class]
	}
	switch {
	case in.n == size:
		in.class = min(in.class+1, classLarge)
	case in.n <= idleRead/2:
		in.class = smallest
	}
}

// readReady reads the descriptor; it reports false to wait for readability.
func (in *input) readReady(fd uintptr) bool {
	in.buf = borrow(in.class)
	in.err = nil
	n, err := rawio.Read(int(fd), in.buf.b)
	switch {
	case err == syscall.EAGAIN:
		in.release()
		return false
	case err != nil:
		in.err = err
	case n == 0:
		in.err = io.EOF
	}
	in.n = n
	return true
}
