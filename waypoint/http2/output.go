package http2

import (
	"encoding/binary"
	"runtime"
	"syscall"

	"github.com/tulle-mesh/tulle/internal/rawio"
)

// output is where the frames of all streams gather until somebody writes them. The
// connection's mu guards it, but for what only who flushes uses.
type output struct {
	b       []byte  // whole frames, in the order in which they leave
	buf     *buffer // what b lies in, unless b outgrew it
	control int     // octets in b that answer the peer
	taken   int64   // octets that were ever taken out of b to be written

	flushing bool // somebody writes, and looks at b again afterwards

	sys       syscall.RawConn // nil: the connection is no socket
	now       []byte          // of writeNow
	wrote     int
	writeErr  error
	writeFunc func(fd uintptr) bool
}

func (o *output) init(sys syscall.RawConn) { o.sys, o.writeFunc = sys, o.writeReady }

// at is the place behind everything that was ever put in.
func (o *output) at() int64 { return o.taken + int64(len(o.b)) }

// reserve makes room for n octets more.
func (o *output) reserve(n int) {
	if o.buf == nil {
		o.buf = borrowFor(n)
		o.b = o.buf.b[:0]
		return
	}
	if need := len(o.b) + n; need > cap(o.b) && o.buf.class < classLarge {
		bigger := borrowFor(need)
		b := append(bigger.b[:0], o.b...)
		o.buf.release()
		o.buf, o.b = bigger, b
	}
}

// frame appends a frame's header; its payload follows.
func (o *output) frame(length int, kind frameType, flags uint8, streamID uint32) {
	o.reserve(frameHeaderLen + length)
	o.b = appendFrameHeader(o.b, length, kind, flags, streamID)
}

// number appends a frame whose payload is a number.
func (o *output) number(kind frameType, streamID, v uint32) {
	o.reserve(frameHeaderLen + 4)
	o.b = appendUint32Frame(o.b, kind, streamID, v)
	o.control += frameHeaderLen + 4
}

// ping appends PING.
func (o *output) ping(flags uint8, data [8]byte) {
	o.frame(len(data), framePing, flags, 0)
	o.b = append(o.b, data[:]...)
	o.control += frameHeaderLen + len(data)
}

// goAway appends GOAWAY.
func (o *output) goAway(last, code uint32) {
	o.frame(8, frameGoAway, 0, 0)
	o.b = binary.BigEndian.AppendUint32(o.b, last)
	o.b = binary.BigEndian.AppendUint32(o.b, code)
}

// take empties o. The buffer is to be released when what it holds was written.
func (o *output) take() ([]byte, *buffer) {
	b, buf := o.b, o.buf
	o.taken += int64(len(b))
	o.b, o.buf, o.control = nil, nil, 0
	return b, buf
}

// mark sets END_STREAM on the frame at that place, if it has not left.
func (o *output) mark(at int64) bool {
	if at < o.taken {
		return false
	}
	o.b[at-o.taken+4] |= flagEndStream
	return true
}

// writeNow writes what the socket takes at once. Only who flushes calls it.
func (o *output) writeNow(p []byte) (int, error) {
	o.now, o.wrote, o.writeErr = p, 0, nil
	err := o.sys.Write(o.writeFunc)
	o.now = nil
	if err == nil {
		err = o.writeErr
	}
	return o.wrote, err
}

func (o *output) writeReady(fd uintptr) bool {
	// Less than all means a full socket; asking again would only cost a call.
	n, err := rawio.Write(int(fd), o.now)
	if o.wrote = n; err != syscall.EAGAIN {
		o.writeErr = err
	}
	return true
}

// kick sees to it that what gathered leaves, without ever waiting for the socket. mu
// is held, but may be free in between.
//
// Who is alone on the connection writes at once: that is the shortest way. With
// company, a goroutine is left to do it, which runs after the others that are ready,
// so that what they have to say leaves in the same write; there is no other
// connection that it could keep waiting. While somebody writes, the rest gathers.
func (c *conn) kick() {
	o := &c.out
	if o.flushing || len(o.b) == 0 || c.closing {
		return
	}
	o.flushing = true
	crowded := c.crowded()
	if o.sys == nil || crowded || c.err != nil {
		c.push(nil, nil, crowded)
		return
	}
	b, buf := o.take()
	c.mu.Unlock()
	n, err := o.writeNow(b)
	c.mu.Lock()
	switch {
	case err != nil:
		buf.release()
		o.flushing = false
		c.brokenWrite(err)
	case n < len(b):
		c.push(b[n:], buf, false)
	default:
		buf.release()
		o.flushing = false
		c.wakeCrowd()
		if len(o.b) > 0 || c.err != nil {
			o.flushing = true
			c.push(nil, nil, false)
		}
	}
}

// crowded tells whether others are likely to have something to send just now; mu is held.
func (c *conn) crowded() bool {
	if c.server != nil {
		return c.server.running > 1
	}
	return len(c.streams) > 1
}

// push starts the goroutine that writes rest, and all that gathers until nothing is
// left; with gather it lets others go first. The caller has set flushing; mu is held.
func (c *conn) push(rest []byte, buf *buffer, gather bool) {
	if c.closing {
		buf.release()
		c.out.flushing = false
		return
	}
	c.background.Add(1)
	go c.write(rest, buf, gather)
}

func (c *conn) write(b []byte, buf *buffer, gather bool) {
	defer c.background.Done()
	if gather {
		// Without it, 64 requests at a time took six times as many writes.
		runtime.Gosched()
	}
	for {
		if len(b) > 0 {
			err := c.writeAll(b)
			buf.release()
			if err != nil {
				c.mu.Lock()
				c.out.flushing = false
				c.brokenWrite(err)
				c.mu.Unlock()
				return
			}
		}
		c.mu.Lock()
		c.wakeCrowd()
		if len(c.out.b) == 0 {
			c.out.flushing = false
			over := c.err != nil
			c.mu.Unlock()
			if over {
				c.endWriting()
			}
			return
		}
		b, buf = c.out.take()
		c.mu.Unlock()
	}
}

// writeAll writes b, and waits for the socket only for what that does not take at once.
func (c *conn) writeAll(b []byte) (err error) {
	n := 0
	if c.out.sys != nil {
		n, err = c.out.writeNow(b)
	}
	if err == nil && n < len(b) {
		_, err = c.nc.Write(b[n:])
	}
	return err
}

// brokenWrite ends the connection because of a write that failed; mu is held, but
// free in between.
func (c *conn) brokenWrite(err error) {
	c.mu.Unlock()
	c.fail(&ConnError{Remote: true, Cause: &ioError{"write", err}})
	_ = c.nc.Close() // the reader sees it
	c.mu.Lock()
}

// endWriting ends the connection's way out, after the last frame has left. The peer
// gets a moment to read it and to close its side; see lingerTimeout.
func (c *conn) endWriting() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		return
	}
	_ = c.nc.Close()
}
