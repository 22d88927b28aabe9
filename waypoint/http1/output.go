package http1

import (
	"net"
	"strconv"
	"time"
)

// output is the writing side of a connection. It gathers what is written in a buffer
// that it holds only while there is something in it. One goroutine writes at a time.
type output struct {
	conn net.Conn
	// vector tells that several pieces can be written by one system call.
	vector bool

	buf *buffer
	n   int

	// alarm is set for stall while a write waits, if stall is not 0.
	alarm *alarm
	stall time.Duration
	// failed is the error that writing ended with.
	failed error
	// total is how many octets the connection has taken.
	total int64

	pieces [3][]byte
	bufs   net.Buffers
	// line is memory for the line before a chunk.
	line [20]byte
}

func (o *output) start(conn net.Conn) {
	o.conn = conn
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		o.vector = true
	}
}

// reserve returns a buffer with room for n more octets behind o.n, nil if there is no
// such buffer.
func (o *output) reserve(n int) []byte {
	need := o.n + n
	if o.buf == nil || len(o.buf.b) < need {
		larger := borrowFor(need)
		if larger == nil {
			return nil
		}
		if o.buf != nil {
			copy(larger.b, o.buf.b[:o.n])
			o.buf.release()
		}
		o.buf = larger
	}
	return o.buf.b
}

// room is how many octets fit in the buffer.
func (o *output) room() int {
	if o.buf == nil {
		return 0
	}
	return len(o.buf.b) - o.n
}

// put adds p to the buffer, which must have room for it: what is cut short here would
// be read as something else.
func (o *output) put(p []byte) {
	if o.room() < len(p) {
		panic("http1: no room was reserved")
	}
	o.n += copy(o.buf.b[o.n:], p)
}

// pending reports whether something waits in the buffer.
func (o *output) pending() bool { return o.n > 0 }

// content adds content, with its frame if chunked, and sends all if it is much.
func (o *output) content(p []byte, chunked bool) error {
	if o.failed != nil {
		return o.failed
	}
	head := o.line[:0]
	need := len(p)
	if chunked {
		head = append(strconv.AppendUint(head, uint64(len(p)), 16), '\r', '\n')
		need += len(head) + len(crlf)
	}
	if o.n+need <= classSize[classMedium] {
		o.putContent(head, p, chunked)
		return nil
	}
	if o.vector {
		return o.gather(head, p, chunked)
	}
	// Without writev, what is small is copied to travel together with what is large.
	if o.n+need > classSize[classLarge] {
		if err := o.flush(); err != nil {
			return err
		}
	}
	switch {
	case o.n+need <= classSize[classLarge] && (o.n > 0 || chunked):
		o.putContent(head, p, chunked)
		return o.flush()
	case !chunked:
		return o.write(p)
	}
	o.reserve(len(head))
	o.put(head)
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.write(p); err != nil {
		return err
	}
	o.reserve(len(crlf))
	o.put(crlf)
	return nil
}

// putContent adds content to the buffer, which must be able to take it.
func (o *output) putContent(head, p []byte, chunked bool) {
	n := len(head) + len(p)
	if chunked {
		n += len(crlf)
	}
	o.reserve(n)
	o.put(head)
	o.put(p)
	if chunked {
		o.put(crlf)
	}
}

var crlf = []byte("\r\n")

// gather sends what waits, and content behind it, by one system call.
func (o *output) gather(head, p []byte, chunked bool) error {
	if chunked {
		if o.room() < len(head) {
			if o.reserve(len(head)) == nil {
				if err := o.flush(); err != nil {
					return err
				}
				o.reserve(len(head))
			}
		}
		o.put(head)
	}
	o.bufs = o.pieces[:0]
	if o.n > 0 {
		o.bufs = append(o.bufs, o.buf.b[:o.n])
	}
	o.bufs = append(o.bufs, p)
	if chunked {
		o.bufs = append(o.bufs, crlf)
	}
	err := o.attempt(func() error {
		n, err := o.bufs.WriteTo(o.conn)
		o.total += n
		return err
	})
	o.pieces = [3][]byte{}
	o.emptied()
	return err
}

// flush sends what waits in the buffer.
func (o *output) flush() error {
	if o.n == 0 {
		return o.failed
	}
	err := o.write(o.buf.b[:o.n])
	o.emptied()
	return err
}

func (o *output) emptied() {
	o.buf.release()
	o.buf, o.n = nil, 0
}

func (o *output) write(p []byte) error {
	return o.attempt(func() error {
		n, err := o.conn.Write(p)
		o.total += int64(n)
		return err
	})
}

// attempt calls write, with the alarm set. An error ends the writing side.
func (o *output) attempt(write func() error) error {
	if o.failed != nil {
		return o.failed
	}
	if o.stall > 0 {
		o.alarm.set(alarmWrite, time.Now().Add(o.stall))
		defer o.alarm.set(alarmWrite, time.Time{})
	}
	o.failed = write()
	return o.failed
}

// drop forgets what waits.
func (o *output) drop() { o.emptied() }
