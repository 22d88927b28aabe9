package http1

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// ClientConfig is empty so far: a client needs no choice.
type ClientConfig struct{}

var (
	errBusy      = errors.New("the connection has a request under way")
	errUnusable  = errors.New("the connection takes no more requests")
	errTooMany   = message.Malformed("too many interim responses")
	errEarlyRead = errors.New("content read before the head of the response")
)

// ClientConn is a connection to a server, with one request at a time. It implements
// message.Client.
type ClientConn struct {
	in  wire
	out output

	// active is 1 while an exchange has the connection.
	active atomic.Int32
	// unusable tells that no other request can follow.
	unusable atomic.Bool
	done     chan struct{}
	end      sync.Once
}

// NewClient returns a client on conn, which it owns. It sends and reads nothing yet.
func NewClient(conn net.Conn, _ ClientConfig) (*ClientConn, error) {
	c := &ClientConn{done: make(chan struct{})}
	c.in.conn = conn
	c.in.next, c.in.floor = classSmall, classSmall
	c.in.watch.client = true
	c.in.watch.gone = func(error) { c.shut() }
	c.out.start(conn)
	return c, nil
}

// Usable implements message.Client.
func (c *ClientConn) Usable() bool { return !c.unusable.Load() && c.active.Load() == 0 }

// Active implements message.Client.
func (c *ClientConn) Active() int { return int(c.active.Load()) }

// Done implements message.Client.
func (c *ClientConn) Done() <-chan struct{} { return c.done }

// Close implements message.Client.
func (c *ClientConn) Close() error {
	c.shut()
	if c.active.CompareAndSwap(0, 1) {
		c.in.close()
		c.active.Store(0)
	}
	return nil
}

// shut closes the connection. Whoever reads or writes on it gets an error.
func (c *ClientConn) shut() {
	c.end.Do(func() {
		c.unusable.Store(true)
		_ = c.in.conn.Close()
		close(c.done)
	})
}

// Open implements message.Client. Nothing is sent before the first Flush, Response,
// or so much content that it is worth a packet. ctx bounds the whole exchange: also
// Write and the content's Read return its error when it ends, if a little late.
func (c *ClientConn) Open(ctx context.Context, r *message.Request, end bool) (message.ClientExchange, error) {
	if err := ctx.Err(); err != nil {
		return nil, &message.UnsentError{Err: err}
	}
	if !c.active.CompareAndSwap(0, 1) {
		return nil, &message.UnsentError{Err: errBusy}
	}
	x := &clientExchange{c: c, ctx: ctx}
	c.in.acquire(watchCaller, x)
	if c.unusable.Load() || !c.in.watched && c.in.failed != nil || len(c.in.buffered()) > 0 {
		c.shut()
		c.in.close()
		c.active.Store(0)
		return nil, &message.UnsentError{Err: errUnusable}
	}
	if err := x.open(r, end); err != nil {
		c.in.release()
		c.active.Store(0)
		return nil, &message.UnsentError{Err: err}
	}
	if at, ok := ctx.Deadline(); ok && time.Until(at) < 2*patience {
		c.in.watch.mu.Lock()
		x.follow()
		c.in.watch.mu.Unlock()
	}
	return x, nil
}

// clientExchange is one request and its response. It implements
// message.ClientExchange. It is made anew for each request, so that whoever keeps one
// too long gets errors and not the next request's response.
type clientExchange struct {
	c *ClientConn
	// ctx is that of Open, which bounds the exchange.
	ctx context.Context
	// stop ends the watch over ctx, if there is one; guarded by the mutex of c.in.watch.
	stop func() bool
	// canceled tells that ctx, or that of Response, has ended the connection.
	canceled atomic.Bool

	headOnly, connect bool // the method
	protocol          string
	key               string // of a WebSocket, if it is ours
	response          message.Response
	fields            [inlineFields]message.Field
	body              body
	interim           int
	answered          bool
	keepAlive         bool
	switched          bool

	// mu guards what follows, and the connection's output. Whoever writes holds it while
	// the server takes nothing, so that no reader may wait for it.
	mu      sync.Mutex
	chunked bool
	left    int64 // of the request's content, -1 if only its end tells
	head    int64 // out.total once the head has left
	sent    bool  // the request is whole
	closed  bool
	writing error // why writing failed
	// eager tells that somebody waits for the response, so that nothing is put off.
	eager atomic.Bool
}

// open renders the head of the request.
func (x *clientExchange) open(r *message.Request, end bool) error {
	method, target := r.Method, r.Target()
	x.headOnly = method == "HEAD"
	x.protocol = r.Protocol
	switch {
	case method == "CONNECT" && r.Protocol == "":
		x.connect = true
		target = r.Authority
	case method == "CONNECT":
		return errHeadInvalid
	}
	if !validMethod(method) || !validTarget(target) {
		return errHeadInvalid
	}
	length := r.Length
	switch {
	case x.connect || x.protocol != "":
		length, end = 0, true
	case end:
		length = 0
	}
	out := &x.c.out
	l, err := out.begin(r.Header, len(method)+len(target)+len(r.Authority)+len(r.Protocol), length)
	if err != nil {
		return err
	}
	l.line(method, " ", target, " HTTP/1.1")
	l.line("host: ", r.Authority)
	l.fields(r.Header)
	switch {
	case x.connect || x.protocol != "":
	case length > 0 || length == 0 && (!end || wantsContent(method)):
		l.length(length)
	case length < 0:
		x.chunked = true
		l.line("transfer-encoding: chunked")
	}
	if r.ExpectContinue && !end {
		l.line("expect: 100-continue")
	}
	switch {
	case x.protocol != "":
		l.line("connection: upgrade")
		l.line("upgrade: ", r.Protocol)
		if r.Protocol == "websocket" && !r.Header.Has("sec-websocket-key") {
			// The client came by RFC 8441, which has no such key.
			x.key = newKey()
			l.line("sec-websocket-key: ", x.key)
		}
	case l.te:
		l.line("connection: te")
	}
	if err := out.end(&l); err != nil {
		return err
	}
	x.head = out.total + int64(out.n)
	x.left = length
	x.sent = end
	return nil
}

// wantsContent reports whether servers expect a method's requests to have content, so
// that its lack is said (RFC 9110, 8.6).
func wantsContent(method string) bool {
	return method == "POST" || method == "PUT" || method == "PATCH"
}

func validMethod(s string) bool {
	for i := range len(s) {
		if lower[s[i]] == 0 {
			return false
		}
	}
	return s != ""
}

// newKey returns a key for a WebSocket handshake (RFC 6455, 4.1).
func newKey() string {
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	return base64.StdEncoding.EncodeToString(key[:])
}

// Write implements message.ClientExchange.
func (x *clientExchange) Write(p []byte) (int, error) {
	if err := x.writer(func() error { return x.writeLocked(p) }); err != nil {
		return 0, err
	}
	return len(p), nil
}

// writer calls write with the lock. If the response is waited for, it sends what was
// put off, also if that wait began meanwhile.
func (x *clientExchange) writer(write func() error) error {
	x.mu.Lock()
	err := write()
	x.mu.Unlock()
	if err == nil && x.eager.Load() {
		err = x.Flush()
	}
	return err
}

func (x *clientExchange) writeLocked(p []byte) error {
	switch {
	case x.closed || x.sent:
		return errEnded
	case x.writing != nil || len(p) == 0:
		return x.writing
	case x.left >= 0:
		if int64(len(p)) > x.left {
			x.writing = errLength
			return errLength
		}
		x.left -= int64(len(p))
	}
	return x.wrote(x.c.out.content(p, x.chunked))
}

// Flush implements message.ClientExchange.
func (x *clientExchange) Flush() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return errEnded
	}
	return x.flushLocked()
}

func (x *clientExchange) flushLocked() error {
	if x.writing != nil || !x.c.out.pending() {
		return x.writing
	}
	return x.wrote(x.c.out.flush())
}

// CloseWrite implements message.ClientExchange.
func (x *clientExchange) CloseWrite(trailer message.Header) error {
	return x.writer(func() error { return x.closeWriteLocked(trailer) })
}

func (x *clientExchange) closeWriteLocked(trailer message.Header) error {
	switch {
	case x.closed:
		return errEnded
	case x.sent || x.writing != nil:
		return x.writing
	case x.left > 0:
		x.writing = errLength
		return errLength
	case x.chunked:
		if err := x.wrote(x.c.out.trailers(trailer)); err != nil {
			return err
		}
	}
	x.sent = true
	return nil
}

// wrote remembers the first error of writing.
func (x *clientExchange) wrote(err error) error {
	if err != nil && x.writing == nil {
		if ended := x.ctx.Err(); ended != nil {
			err = ended
		}
		if x.c.out.total < x.head {
			// Nobody acts on half a head.
			err = &message.UnsentError{Err: err}
		}
		x.writing = err
	}
	return x.writing
}

// follow implements caller: it has the connection closed when ctx ends, now that the
// exchange lasts long enough to pay for that.
func (x *clientExchange) follow() {
	if x.stop == nil && x.ctx.Done() != nil {
		x.stop = context.AfterFunc(x.ctx, x.cancel)
	}
}

// cancel ends what waits on the connection.
func (x *clientExchange) cancel() {
	x.canceled.Store(true)
	x.c.shut()
}

// input implements source.
func (x *clientExchange) input() *wire { return &x.c.in }

// fill implements source.
func (x *clientExchange) fill() (bool, error) {
	room, err := x.c.in.fill()
	return room, x.explain(err)
}

// readInto implements source.
func (x *clientExchange) readInto(p []byte) (int, error) {
	n, err := x.c.in.readInto(p)
	return n, x.explain(err)
}

// explain returns why a read failed.
func (x *clientExchange) explain(err error) error {
	if err != nil && x.canceled.Load() {
		if ended := x.ctx.Err(); ended != nil {
			return ended
		}
	}
	return err
}

// Response implements message.ClientExchange. ctx bounds this wait in addition to that
// of Open, if it is another one.
func (x *clientExchange) Response(ctx context.Context) (*message.Response, error) {
	x.body.mu.Lock()
	defer x.body.mu.Unlock()
	if x.answered {
		return nil, errTwoHeads
	}
	if ctx != x.ctx {
		// Its end ends the exchange, which would have no response otherwise.
		stop := context.AfterFunc(ctx, x.cancel)
		defer stop()
	}
	r, err := x.readResponse()
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return r, err
}

// sendPending sends what was put off, unless somebody is writing, who does it then.
func (x *clientExchange) sendPending() error {
	x.eager.Store(true)
	if !x.mu.TryLock() {
		return nil
	}
	defer x.mu.Unlock()
	if x.closed {
		return errEnded
	}
	return x.flushLocked()
}

func (x *clientExchange) readResponse() (*message.Response, error) {
	writing := x.sendPending()
	if writing != nil && (message.Unsent(writing) || writing == errEnded || x.ctx.Err() != nil) {
		return nil, x.unusable(writing)
	}
	// Another error of writing is no reason not to read: a server may answer and close
	// before it has read the whole request.
	for empty := (search{}); ; {
		have := x.c.in.buffered()
		end, bare := empty.find(have)
		if end > 0 {
			r, err := x.parse(have[:end])
			x.c.in.skip(end)
			if err != nil {
				return nil, x.unusable(err)
			}
			if !r.Interim() {
				x.answered = true
				if !x.keepAlive || x.switched {
					x.c.unusable.Store(true)
				}
			}
			return r, nil
		}
		if bare {
			return nil, x.unusable(message.Malformed("bare line feed in the head of a response"))
		}
		room, err := x.fill()
		switch {
		case !room:
			return nil, x.unusable(message.Malformed("too large a head of a response"))
		case err != nil:
			if writing != nil {
				err = writing
			}
			return nil, x.unusable(fmt.Errorf("read response: %w", broken(err)))
		}
	}
}

func (x *clientExchange) unusable(err error) error {
	x.c.unusable.Store(true)
	return err
}

// parse reads the head of a response, which ends with an empty line.
func (x *clientExchange) parse(head []byte) (*message.Response, error) {
	status, minor, at, err := parseStatusLine(head)
	if err != nil {
		return nil, err
	}
	r := &x.response
	if status < 200 && status != 101 {
		if x.interim++; x.interim > maxInterim {
			return nil, errTooMany
		}
		r = new(message.Response)
	}
	s := sections.Get().(*section)
	defer sections.Put(s)
	if err := s.scanFrom(head[:len(head)-2], at); err != nil {
		return nil, err
	}
	text := string(head)
	h := message.Header(x.fields[:0])
	if s.n > inlineFields || r != &x.response {
		h = make(message.Header, 0, s.n+4)
	}
	var m framed
	if h, err = m.collect(s, text, h); err != nil {
		return nil, err
	}
	r.Status, r.Header = status, h
	return r, x.frame(r, minor, &m)
}

// frame decides how the content is framed (RFC 9112, 6.3).
func (x *clientExchange) frame(r *message.Response, minor int, m *framed) error {
	if m.chunked && minor == 0 {
		return message.Malformed("transfer-encoding in HTTP/1.0")
	}
	x.keepAlive = minor == 1 && !m.close
	tunnel := x.connect && r.Status >= 200 && r.Status <= 299
	switch {
	case r.Status < 200 || r.Status == 204 || tunnel:
		// Nothing of the kind has a content. A parser that does not know would wait for
		// one, or take what follows for it.
		if m.chunked || m.length > 0 {
			return message.Malformed("content in a response that has none")
		}
		if r.Status == 101 {
			if x.protocol == "" || m.changesTo() != x.protocol {
				return message.Malformed("a change of protocols that nobody asked for")
			}
			if x.key != "" {
				if r.Header.Get("sec-websocket-accept") != acceptKey(x.key) {
					return message.Malformed("a wrong answer to the key of a WebSocket")
				}
				r.Header.Del("sec-websocket-accept")
			}
		}
		x.switched = tunnel || r.Status == 101
		x.body.start(x, framedNone, 0)
	case x.headOnly || r.Status == 304:
		r.Length = m.length
		x.body.start(x, framedNone, 0)
	case m.chunked:
		r.Length = -1
		x.body.start(x, framedChunked, 0)
	case m.length >= 0:
		r.Length = m.length
		x.body.start(x, framedLength, m.length)
	default:
		r.Length = -1
		x.keepAlive = false
		x.body.start(x, framedClose, 0)
	}
	return nil
}

// finished implements source.
func (x *clientExchange) finished() {}

// Body implements message.ClientExchange.
func (x *clientExchange) Body() message.Body {
	if !x.answered {
		return unanswered{}
	}
	return &x.body
}

// unanswered is the content of a response that has not come.
type unanswered struct{}

func (unanswered) Read([]byte) (int, error) { return 0, errEarlyRead }
func (unanswered) Trailer() message.Header  { return nil }

// Stream implements message.ClientExchange.
func (x *clientExchange) Stream() (message.Stream, error) {
	if !x.switched || !x.answered {
		return nil, errNoUpgrade
	}
	return &stream{in: &x.c.in, out: &x.c.out}, nil
}

// Close implements message.ClientExchange. It also ends what other goroutines wait in.
func (x *clientExchange) Close() error {
	c := x.c
	if !x.mu.TryLock() {
		c.shut()
		x.mu.Lock()
	}
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	if !x.body.mu.TryLock() {
		c.shut()
		x.body.mu.Lock()
	}
	defer x.body.mu.Unlock()
	c.in.acquire(watchNothing, nil)
	canceled := x.stop != nil && !x.stop() || x.canceled.Load()
	whole := x.answered && x.sent && !x.switched && x.writing == nil && x.body.done()
	if x.body.err == nil {
		x.body.err = errEnded
	}
	if !whole || !x.keepAlive || canceled || len(c.in.buffered()) > 0 || c.in.failed != nil {
		c.shut()
	}
	switch {
	case x.switched:
		// The stream may still be read from; what it holds is the garbage collector's.
	case c.unusable.Load():
		c.shut()
		c.out.drop()
		c.in.close()
	default:
		c.in.relax(true)
		c.in.release()
	}
	c.active.Store(0)
	return nil
}

var (
	_ message.Client         = (*ClientConn)(nil)
	_ message.ClientExchange = (*clientExchange)(nil)
)
