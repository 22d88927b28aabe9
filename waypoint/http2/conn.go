package http2

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/waypoint/http2/hpack"
)

// conn is one connection, of a server or a client. One goroutine, in run, reads it;
// see output.go for who writes. mu guards the protocol's state and is never held
// while something may block.
//
// Locks are taken in the order: stream.rmu, then mu.
type conn struct {
	nc     net.Conn
	server *serverSide // nil for a client
	budget *Budget
	in     input
	r      reader
	watch  watch

	mu      sync.Mutex
	err     *ConnError // set once: the connection is over
	closing bool       // run cleans up; no goroutine may be started any more
	streams map[uint32]*stream
	nextID  uint32 // the next stream that this end opens
	lastID  uint32 // the highest stream that the peer opened

	out output
	enc hpack.Encoder // in the order of out

	sendWindow     int64
	starved        []*stream // wait for sendWindow
	crowd          []*stream // wait for room in out
	peerWindow     int64     // SETTINGS_INITIAL_WINDOW_SIZE of the peer
	peerFrame      int       // SETTINGS_MAX_FRAME_SIZE of the peer
	peerMaxStreams uint32
	peerConnect    bool // SETTINGS_ENABLE_CONNECT_PROTOCOL of the peer
	draining       bool // no new streams
	goAwaySent     bool // with the final stream number
	drainPing      bool // the next acknowledged PING completes the notice of a drain
	resets         [recentResets]uint32
	resetNext      int

	dataSent atomic.Int64 // DATA frames sent since the reader last looked
	inOrder  atomic.Int64 // requests that ended in order since the reader last looked

	settled    chan struct{} // closed when the peer's SETTINGS arrived
	finished   chan struct{} // closed when all is over
	background sync.WaitGroup
}

// init sets a connection up and puts in what it says first.
func (c *conn) init(nc net.Conn, side *serverSide, budget *Budget) {
	if budget == nil {
		budget = NewBudget(budgetDefault)
	}
	c.nc, c.server, c.budget = nc, side, budget
	c.streams = map[uint32]*stream{}
	c.sendWindow, c.peerWindow = defaultWindow, defaultWindow
	c.peerFrame = defaultFrame
	c.peerMaxStreams = maxStreamsUnknown
	c.settled, c.finished = make(chan struct{}), make(chan struct{})
	sys := rawConn(nc)
	c.in.init(nc, sys)
	c.out.init(sys)
	c.r.init(c)

	var settings []byte
	settings = appendSetting(settings, settingMaxHeaderListSize, maxHeadList)
	if side == nil {
		c.nextID = 1
		c.out.reserve(len(preface))
		c.out.b = append(c.out.b, preface...)
		settings = appendSetting(settings, settingEnablePush, 0)
	} else {
		c.nextID = 2
		settings = appendSetting(settings, settingMaxStreams, side.maxStreams)
		settings = appendSetting(settings, settingConnectProtocol, 1)
	}
	c.out.frame(len(settings), frameSettings, 0, 0)
	c.out.b = append(c.out.b, settings...)
	c.out.number(frameWindowUpdate, 0, connWindow-defaultWindow)
}

// run reads the connection until it ends, and cleans up. It returns why.
func (c *conn) run() *ConnError {
	c.mu.Lock()
	if c.server != nil {
		c.kick() // a client's first request leaves together with what it says first
	}
	c.mu.Unlock()
	for over := false; ; {
		p, err := c.in.read()
		if len(p) > 0 && !over {
			c.watch.alive()
			if fault := c.r.consume(p); fault != nil {
				end := connError(fault)
				c.fail(end)
				if end.Remote {
					c.part()
				}
			}
		}
		c.in.release()
		if err != nil {
			c.fail(c.readError(err))
			break
		}
		c.mu.Lock()
		c.kick()
		over = c.err != nil // what still comes is read, so that the goodbye is
		c.mu.Unlock()
	}
	c.watch.stop()
	_ = c.nc.Close()
	c.mu.Lock()
	c.closing = true
	if c.server != nil {
		c.dismissAll()
		c.stopDiscards()
	}
	end := c.err
	c.mu.Unlock()
	c.background.Wait()
	close(c.finished)
	return end
}

// ioError says which operation on the connection failed.
type ioError struct {
	op  string
	err error
}

func (e *ioError) Error() string { return e.op + ": " + e.err.Error() }
func (e *ioError) Unwrap() error { return e.err }

// readError makes the end of what can be read the connection's error. It is an orderly
// one when the peer closed the connection, and when nothing was under way.
func (c *conn) readError(err error) *ConnError {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &ConnError{Remote: true, Cause: fmt.Errorf("closed by the peer: %w", err)}
	}
	end := &ConnError{Remote: true, Cause: &ioError{"read", err}}
	c.mu.Lock()
	defer c.mu.Unlock()
	under := len(c.streams)
	if c.server != nil {
		under -= c.server.discards.open // they have their answers
	}
	if under > 0 {
		end.Code = codeInternal
	}
	return end
}

// connError makes what the reader found the connection's error.
func connError(err error) *ConnError {
	var e *ConnError
	if errors.As(err, &e) {
		return e
	}
	return &ConnError{Code: codeInternal, Cause: err}
}

// fail ends the connection: every stream breaks, and the peer is told when it is not
// gone itself.
func (c *conn) fail(err *ConnError) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	streams := make([]*stream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
		s.end(s.unsent(err))
	}
	clear(c.streams)
	c.starved = c.wakeList(c.starved, waitCredit)
	c.crowd = c.wakeList(c.crowd, waitRoom)
	c.end(err)
	c.mu.Unlock()
	for _, s := range streams {
		s.abort()
	}
}

// end notes why the connection is over and says goodbye; mu is held. The reader goes
// on, to leave the peer time to hear it, until the peer closes or lingerTimeout.
func (c *conn) end(err *ConnError) {
	c.err = err
	c.draining = true
	if err.Remote {
		return
	}
	if c.server == nil {
		// Nobody waits for the answers any more: what has not left never shall.
		_, buf := c.out.take()
		buf.release()
	}
	c.goAwaySent = true
	c.out.goAway(c.lastID, err.Code)
	c.watch.linger()
	c.kick()
}

// part leaves a peer that said goodbye the time to close its side, and reads what it
// says meanwhile: a connection that is closed over that is reset.
func (c *conn) part() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch.linger()
	if !c.out.flushing {
		c.out.flushing = true
		c.push(nil, nil, false) // it ends the writing
	}
}

// endIfDrained ends a connection whose last stream ended and that takes no more; mu
// is held.
func (c *conn) endIfDrained() {
	if c.draining && len(c.streams) == 0 && c.err == nil && (c.server == nil || c.goAwaySent) {
		c.end(&ConnError{Cause: ErrDraining})
	}
}

// queueReset puts RST_STREAM in and remembers it; mu is held.
func (c *conn) queueReset(id, code uint32) {
	c.out.number(frameRSTStream, id, code)
	c.resets[c.resetNext] = id
	c.resetNext = (c.resetNext + 1) % len(c.resets)
}

// wasReset tells whether the stream is one of those that were reset lately; mu is held.
func (c *conn) wasReset(id uint32) bool {
	for _, r := range c.resets {
		if r == id {
			return true
		}
	}
	return false
}
