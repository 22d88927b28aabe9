package hbone

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// tunnel is one HTTP/2 connection, of a client or a server. One goroutine, in run,
// reads it; any goroutine may write through the write lock; mu guards the protocol
// state and is never held across I/O.
//
// Locks are taken in the order: stream.rmu or wmu, then mu.
type tunnel struct {
	link   *link
	server *serverSide // nil for a client
	opts   options
	budget *Budget

	// wmu is the write lock: it is held to encrypt and to flush, and so perhaps while
	// the socket is full. The reader only ever tries it.
	wmu     sync.Mutex
	waiting atomic.Int32 // goroutines about to take wmu, which will flush
	// controlReady tells that control is not empty; whoever leaves wmu looks at it.
	controlReady atomic.Bool
	pusherOn     atomic.Bool
	spare        []byte // the other half of control's double buffer; wmu

	mu      sync.Mutex
	err     *TunnelError // set once: the tunnel is over
	broken  *TunnelError // set once: nothing can be written, and what came is still read
	streams map[uint32]*stream
	nextID  uint32 // the next stream that this end opens
	lastID  uint32 // the highest stream that the peer opened

	control controlBuffer  // frames waiting for the write lock
	framer  *http2.Framer  // writes to control
	hbuf    bytes.Buffer   // of henc
	henc    *hpack.Encoder // in the order of control

	sendWindow     int64
	unsent         int64     // reserved of sendWindow and not written yet
	starved        []*stream // wait for sendWindow, or for less unsent
	peerWindow     int32     // SETTINGS_INITIAL_WINDOW_SIZE of the peer
	peerMaxStreams uint32
	draining       bool // no new streams, either way
	goAwaySent     bool // with the final stream number
	peerGone       bool // the peer sent GOAWAY
	closing        bool // run cleans up; no goroutine may be started any more
	resets         [recentResets]uint32
	resetNext      int
	drainPing      bool // the next PING ack completes the notice of a drain

	peerFrame      atomic.Int32 // SETTINGS_MAX_FRAME_SIZE of the peer
	dataFramesSent atomic.Int64 // since the reader last looked

	keep keepAlive
	in   reader

	background sync.WaitGroup // handlers and other goroutines of the tunnel
	load       load
	settled    chan struct{} // closed when the peer's SETTINGS arrived
	finished   chan struct{} // closed when all is over
}

// options are the settings that both sides have.
type options struct {
	keepAlive        time.Duration
	keepAliveTimeout time.Duration
	maxHeaderList    uint32
	maxStreams       uint32 // that the peer may open
	expiresAt        time.Time
}

func (o *options) setDefaults() {
	if o.keepAlive == 0 {
		o.keepAlive = keepAliveInterval
	}
	if o.keepAliveTimeout == 0 {
		o.keepAliveTimeout = keepAliveTimeout
	}
}

// newTunnel sets a tunnel up and queues what it says first.
func newTunnel(l *link, side *serverSide, opts options, budget *Budget) *tunnel {
	opts.setDefaults()
	if budget == nil {
		budget = NewBudget(budgetDefault)
	}
	t := &tunnel{
		link: l, server: side, opts: opts, budget: budget,
		streams:        map[uint32]*stream{},
		sendWindow:     defaultWindow,
		peerWindow:     defaultWindow,
		peerMaxStreams: maxStreamsUnknown,
		settled:        make(chan struct{}),
		finished:       make(chan struct{}),
	}
	t.peerFrame.Store(defaultFrame)
	t.framer = http2.NewFramer(&t.control, nil)
	t.henc = hpack.NewEncoder(&t.hbuf)
	t.in.init(t)

	settings := []http2.Setting{
		{ID: http2.SettingMaxHeaderListSize, Val: opts.maxHeaderList},
	}
	if side == nil {
		t.nextID = 1
		t.control.Write([]byte(http2.ClientPreface))
		settings = append(settings, http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxFrame})
	} else {
		t.nextID = 2
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: opts.maxStreams})
	}
	_ = t.framer.WriteSettings(settings...)
	_ = t.framer.WriteWindowUpdate(0, tunnelWindow-defaultWindow)
	t.controlReady.Store(true)
	t.keep.start(t)
	return t
}

// run reads the connection until it ends, and cleans up. It returns why.
func (t *tunnel) run() *TunnelError {
	t.kick()
	for {
		buf, n, err := t.link.read()
		var fault error
		if n > 0 {
			t.keep.alive()
			t.load.count(n)
			fault = t.in.consume(buf.b[:n])
		}
		buf.release()
		if fault != nil {
			t.fail(t.in.tunnelError(fault))
			break
		}
		if err != nil {
			t.fail(readError(err))
			break
		}
		t.kick()
		if t.over() {
			break
		}
	}
	t.linger()
	t.keep.stop()
	t.link.close()
	t.in.close()
	t.background.Wait()
	close(t.finished)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// readError makes the end of the connection an error of the tunnel.
func readError(err error) *TunnelError {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &TunnelError{Code: CodeNo, Remote: true, Cause: fmt.Errorf("connection closed by peer: %w", err)}
	}
	var ne net.Error
	remote := !errors.Is(err, net.ErrClosed) && !(errors.As(err, &ne) && ne.Timeout())
	return &TunnelError{Code: CodeInternal, Remote: remote, Cause: fmt.Errorf("read: %w", err)}
}

// writeFailed notes that the peer takes nothing more. What it had sent is read on, for
// farewellTime at most; the end of that fails the tunnel.
func (t *tunnel) writeFailed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil || t.broken != nil {
		return
	}
	t.broken = &TunnelError{Code: CodeInternal, Remote: true, Cause: fmt.Errorf("write: %w", err)}
	_ = t.link.conn.SetReadDeadline(time.Now().Add(farewellTime))
}

// over tells whether the tunnel has failed or ended.
func (t *tunnel) over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err != nil
}

// fail ends the tunnel: every stream breaks, and the peer is told when the fault
// is its own. The connection itself is closed by run.
func (t *tunnel) fail(err *TunnelError) {
	t.mu.Lock()
	if t.err != nil {
		t.mu.Unlock()
		return
	}
	if t.broken != nil {
		err = t.broken // it came first
	}
	t.err = err
	streams := make([]*stream, 0, len(t.streams))
	for _, s := range t.streams {
		streams = append(streams, s)
	}
	clear(t.streams)
	if !err.Remote {
		t.queueGoAway(t.lastID, err.Code, "")
	}
	for _, s := range streams {
		s.end(err)
	}
	t.mu.Unlock()

	for _, s := range streams {
		s.abort(err)
	}
	// A reader that waits for the socket must see it.
	_ = t.link.conn.SetReadDeadline(time.Now())
}

// linger says goodbye and waits a moment until the peer has heard it. What a peer says
// behind its own goodbye is read too: a connection that is closed over that is reset.
func (t *tunnel) linger() {
	deadline := time.Now().Add(lingerTimeout)
	t.mu.Lock()
	var goodbye *goAwayError
	gone := t.err.Remote && !errors.As(t.err, &goodbye)
	t.closing = true
	t.mu.Unlock()
	// A write that hangs since the peer stopped reading holds the lock; the deadline ends it.
	_ = t.link.wire.SetWriteDeadline(deadline)
	for !t.wmu.TryLock() {
		// A mutex has no deadline, and this is rare.
		time.Sleep(lingerTimeout / 100)
	}
	t.moveControl()
	half := t.link.closeWrite(deadline)
	t.wmu.Unlock()
	if gone || !half {
		return
	}
	_ = t.link.wire.SetReadDeadline(deadline)
	var sink [512]byte
	for read := 0; read < tunnelWindow; {
		n, err := t.link.wire.Conn.Read(sink[:])
		if err != nil {
			return
		}
		read += n
	}
}

// close ends the tunnel at this end's wish.
func (t *tunnel) close(cause error) {
	t.fail(&TunnelError{Code: CodeNo, Cause: cause})
}

// closeIfDrained ends a draining tunnel whose last stream ended; mu is held.
func (t *tunnel) closeIfDrained() {
	if t.draining && len(t.streams) == 0 && t.err == nil && (t.server == nil || t.goAwaySent) {
		if t.closing {
			return
		}
		// fail takes mu, which is held here.
		t.background.Add(1)
		go func() {
			defer t.background.Done()
			t.close(ErrDraining)
		}()
	}
}

// stats describes the tunnel now.
func (t *tunnel) stats() TunnelStats {
	t.mu.Lock()
	streams := make([]*stream, 0, len(t.streams))
	for _, s := range t.streams {
		streams = append(streams, s)
	}
	st := TunnelStats{
		Local: addrPort(t.link.conn.LocalAddr()), Remote: addrPort(t.link.conn.RemoteAddr()),
		Streams: len(t.streams), Draining: t.draining || t.peerGone,
	}
	t.mu.Unlock()
	for _, s := range streams {
		s.rmu.Lock()
		st.BufferedBytes += s.queue.size
		s.rmu.Unlock()
	}
	return st
}
