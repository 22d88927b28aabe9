package http1

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

var (
	errEnded     = errors.New("the exchange has ended")
	errNoHead    = errors.New("content before the head of the response")
	errTwoHeads  = errors.New("a second head of the response")
	errLength    = errors.New("the content is not as long as its head says")
	errNoUpgrade = errors.New("the client did not ask for another protocol")
	errStalled   = errors.New("the client sent or took nothing for too long")
	errUnended   = errors.New("the handler left its response unfinished")
)

// inlineFields is how many fields of a head, with those that filters add, need no
// memory of their own. Requests between services have about ten; eighteen fill the
// allocator's class of 896 octets.
const inlineFields = 18

// exchange is one request and its response. It implements message.Exchange.
//
// It is made anew for each request, so that whoever keeps one too long gets errors and
// not the next request's response.
type exchange struct {
	c       *serverConn
	request message.Request
	fields  [inlineFields]message.Field
	body    body

	minor     int // of the client's version
	keepAlive bool
	watched   bool // the watch may have reading, once the content is read
	draining  bool // the content is read for nobody
	// waiting tells that somebody waits for content; over tells him that the exchange
	// has ended.
	waiting, over atomic.Bool

	// mu guards what follows, and the connection's output: the goroutine that reads the
	// content may have to send 100.
	mu        sync.Mutex
	expecting bool // the client waits for 100
	responded bool
	bodiless  bool // the response has no content, whatever is written
	chunked   bool
	left      int64 // of the content, -1 if only its end tells
	ended     bool
	switched  bool
	closing   bool // the client was told that the connection ends
	hurried   bool // the alarm is set for who reads the content
	err       error
}

// parse reads a head, which ends with an empty line.
func (x *exchange) parse(head []byte) error {
	line, at, err := parseRequestLine(head)
	if err != nil {
		return err
	}
	s := sections.Get().(*section)
	defer sections.Put(s)
	if err := s.scanFrom(head[:len(head)-2], at); err != nil {
		return err
	}
	text := string(head)
	h := message.Header(x.fields[:0])
	if s.n > inlineFields {
		h = make(message.Header, 0, s.n+4)
	}
	var m framed
	if h, err = m.collect(s, text, h); err != nil {
		return err
	}
	r := &x.request
	r.Method, r.Header = line.method.of(text), h
	if r.Scheme = x.c.server.Config.Scheme; r.Scheme == "" {
		r.Scheme = "http"
	}
	x.minor = line.minor
	x.keepAlive = line.minor == 1 && !m.close
	if err := x.parseTarget(line.target.of(text), &m); err != nil {
		return err
	}
	return x.frame(&m)
}

// parseTarget reads the target (RFC 9112, 3.2) and the authority.
func (x *exchange) parseTarget(target string, m *framed) (err error) {
	r := &x.request
	switch {
	case m.hosts > 1:
		return message.Malformed("several Host fields")
	case m.hosts == 0 && x.minor == 1:
		return message.Malformed("no Host field")
	case m.hosts == 1:
		if r.Authority, err = message.NormalizeAuthority(m.host); err != nil {
			return err
		}
	}
	switch {
	case r.Method == "CONNECT":
		authority, err := message.NormalizeAuthority(target)
		if err != nil || !strings.Contains(target[strings.LastIndexByte(target, ']')+1:], ":") {
			return message.Malformed("invalid target of CONNECT")
		}
		if m.hosts == 1 && authority != r.Authority {
			return message.Malformed("another host in the target than in Host")
		}
		r.Authority = authority
		return nil
	case target[0] == '/':
	case target == "*" && r.Method == "OPTIONS":
		r.Path = "*"
		return nil
	default:
		var found bool
		scheme, rest, found := strings.Cut(target, "://")
		if !found || !strings.EqualFold(scheme, r.Scheme) {
			return message.Malformed("invalid target")
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		authority, err := message.NormalizeAuthority(rest[:end])
		if err != nil {
			return err
		}
		if m.hosts == 1 && authority != r.Authority {
			return message.Malformed("another host in the target than in Host")
		}
		r.Authority = authority
		if target = rest[end:]; target == "" && r.Method == "OPTIONS" {
			r.Path = "*"
			return nil
		}
		if target == "" || target[0] == '?' {
			target = "/" + target
		}
	}
	r.Path, r.Query, r.HasQuery, err = message.ParseTarget(target)
	return err
}

// frame decides how the content is framed (RFC 9112, 6.3).
func (x *exchange) frame(m *framed) error {
	r := &x.request
	if m.chunked && x.minor == 0 {
		return message.Malformed("transfer-encoding in HTTP/1.0")
	}
	if r.Method == "CONNECT" {
		if m.chunked || m.length > 0 {
			return message.Malformed("CONNECT with content")
		}
		x.body.start(x, framedNone, 0)
		return nil
	}
	switch {
	case m.chunked:
		r.Length = -1
		x.body.start(x, framedChunked, 0)
	case m.length > 0:
		r.Length = m.length
		x.body.start(x, framedLength, m.length)
	default:
		x.body.start(x, framedNone, 0)
	}
	if x.minor == 0 {
		return nil
	}
	if m.expectOther {
		return &message.ProtocolError{Status: 417, Reason: "an expectation other than 100-continue"}
	}
	if r.Length != 0 {
		r.ExpectContinue = m.expect
		x.expecting = m.expect
	} else {
		// With content, nobody could tell where the other protocol begins.
		r.Protocol = m.changesTo()
	}
	return nil
}

// Request implements message.Exchange.
func (x *exchange) Request() *message.Request { return &x.request }

// Body implements message.Exchange.
func (x *exchange) Body() message.Body { return &x.body }

// input implements source.
func (x *exchange) input() *wire { return &x.c.in }

// fill implements source.
func (x *exchange) fill() (room bool, err error) {
	err = x.wait(func() (err error) {
		room, err = x.c.in.fill()
		return err
	})
	return room, err
}

// readInto implements source.
func (x *exchange) readInto(p []byte) (n int, err error) {
	err = x.wait(func() (err error) {
		n, err = x.c.in.readInto(p)
		return err
	})
	return n, err
}

// wait calls read, which may wait for the client. When the response ends meanwhile,
// what was read is for nobody.
func (x *exchange) wait(read func() error) error {
	x.waiting.Store(true)
	defer x.waiting.Store(false)
	if x.over.Load() {
		return errEnded
	}
	x.goOn()
	stall := x.c.server.Config.StallTimeout
	if stall > 0 && !x.draining {
		x.c.alarm.set(alarmRead, time.Now().Add(stall))
	}
	err := read()
	if stall > 0 && !x.draining && !x.over.Load() {
		x.c.alarm.set(alarmRead, time.Time{})
	}
	if err != nil {
		if x.c.alarm.hasRung() {
			err = errStalled
		}
		// The handler shall know that its client has gone.
		x.c.cancel(broken(err))
		return err
	}
	if x.over.Load() {
		return errEnded
	}
	return nil
}

// finished implements source.
func (x *exchange) finished() {
	if !x.draining && !x.over.Load() {
		x.watched = true
		x.c.watchClient()
	}
}

// goOn sends 100 to a client that waits for it, before its content is waited for.
func (x *exchange) goOn() {
	if !x.request.ExpectContinue {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.expecting && !x.responded && !x.ended {
		_ = x.informLocked(&message.Response{Status: 100})
	}
}

// Inform implements message.Exchange.
func (x *exchange) Inform(r *message.Response) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !r.Interim() || r.Status < 100 {
		return errStatus
	}
	if x.ended || x.responded {
		return errTwoHeads
	}
	if x.minor == 0 || r.Status == 100 && x.request.ExpectContinue && !x.expecting {
		return x.err
	}
	return x.informLocked(r)
}

func (x *exchange) informLocked(r *message.Response) error {
	if r.Status == 100 {
		x.expecting = false
	}
	out := &x.c.out
	l, err := out.begin(r.Header, 0, 0)
	if err != nil {
		return err
	}
	l.b = append(l.b, statusLines[r.Status]...)
	l.count++
	l.fields(r.Header)
	if err := out.end(&l); err != nil {
		return err
	}
	return x.fail(out.flush())
}

// Respond implements message.Exchange.
func (x *exchange) Respond(r *message.Response, end bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.ended:
		return errEnded
	case x.responded:
		return errTwoHeads
	case r.Status < 200 || r.Status > 599 || x.request.Method == "CONNECT" && r.Status < 300:
		return errStatus
	}
	return x.respondLocked(r, end)
}

func (x *exchange) respondLocked(r *message.Response, end bool) error {
	head := x.request.Method == "HEAD"
	empty := r.Status == 204 || r.Status == 304
	length := r.Length
	switch {
	case r.Status == 204, r.Status == 304 && length == 0:
		// Of what was not modified, nobody knows the length who says 0.
		length = -1
	case head || empty:
	case end:
		length = 0
	}
	// Some requests leave the connection in a state that nobody could be sure of: a
	// client may send the content that it expected to be asked for, or what it wanted to
	// send through CONNECT.
	if x.expecting || x.request.Method == "CONNECT" || x.c.server.draining.Load() {
		x.keepAlive = false
	}
	chunked := false
	if length < 0 && !head && !empty && !end {
		chunked = x.minor == 1
		x.keepAlive = x.keepAlive && chunked
	}
	out := &x.c.out
	content := length
	if head || empty {
		content = 0
	}
	l, err := out.begin(r.Header, 0, content)
	if err != nil {
		return err
	}
	l.b = append(l.b, statusLines[r.Status]...)
	l.count++
	if !l.fields(r.Header) {
		l.line("date: ", message.Date(time.Now()))
	}
	switch {
	case chunked:
		l.line("transfer-encoding: chunked")
	case length >= 0:
		l.length(length)
	}
	if !x.keepAlive {
		l.line("connection: close")
	}
	if err := out.end(&l); err != nil {
		return err
	}
	x.closing = !x.keepAlive
	x.responded, x.chunked = true, chunked
	x.bodiless = head || empty || end
	x.left = length
	if x.bodiless {
		x.left = 0
	}
	return nil
}

// Write implements message.Exchange.
func (x *exchange) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.ended:
		return 0, errEnded
	case !x.responded:
		return 0, errNoHead
	case x.bodiless && x.request.Method == "HEAD":
		return len(p), nil
	case len(p) == 0:
		return 0, x.err
	case x.left >= 0:
		if int64(len(p)) > x.left {
			x.err = errLength
			return 0, errLength
		}
		x.left -= int64(len(p))
	}
	if err := x.fail(x.c.out.content(p, x.chunked)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush implements message.Exchange.
func (x *exchange) Flush() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return errEnded
	}
	return x.fail(x.c.out.flush())
}

// Close implements message.Exchange.
func (x *exchange) Close(trailer message.Header) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.ended:
		return errEnded
	case !x.responded:
		return errNoHead
	case x.err == nil && x.left > 0:
		x.err = errLength
	case x.err == nil && x.chunked && !x.bodiless:
		_ = x.fail(x.c.out.trailers(trailer))
	}
	if x.err != nil {
		x.abortLocked()
		return x.err
	}
	x.endLocked()
	return x.fail(x.c.out.flush())
}

// endLocked ends the exchange. Whoever reads the content gets an error.
func (x *exchange) endLocked() {
	x.ended = true
	x.over.Store(true)
	if x.waiting.Load() {
		// A read cannot be interrupted, only be given some time.
		x.hurried = true
		x.c.alarm.set(alarmRead, time.Now().Add(drainTime))
	}
}

// Abort implements message.Exchange. It also ends a Write that another goroutine waits
// in.
func (x *exchange) Abort(reason error) {
	if !x.mu.TryLock() {
		reset(x.c.in.conn)
		x.mu.Lock()
	}
	defer x.mu.Unlock()
	if x.ended {
		return
	}
	if x.err == nil {
		x.err = fmt.Errorf("response broken off: %w", reason)
	}
	x.abortLocked()
}

// abortLocked resets the connection: a mere end of it could pass for the end of a
// response that has no length.
func (x *exchange) abortLocked() {
	x.endLocked()
	x.c.out.drop()
	reset(x.c.in.conn)
}

// fail remembers the first error of writing.
func (x *exchange) fail(err error) error {
	if x.err == nil && err != nil {
		if x.c.alarm.hasRung() {
			err = errStalled
		}
		x.err = err
		x.c.cancel(err)
	}
	return x.err
}

// Switch implements message.Exchange.
func (x *exchange) Switch(r *message.Response) (message.Stream, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	connect := x.request.Method == "CONNECT"
	switch {
	case x.ended || x.responded:
		return nil, errTwoHeads
	case !connect && x.request.Protocol == "":
		return nil, errNoUpgrade
	}
	status := 101
	if connect {
		if status = r.Status; status < 200 || status > 299 {
			status = 200
		}
	}
	out := &x.c.out
	l, err := out.begin(r.Header, len(x.request.Protocol), 0)
	if err != nil {
		return nil, err
	}
	l.b = append(l.b, statusLines[status]...)
	l.count++
	l.fields(r.Header)
	if !connect {
		l.line("connection: upgrade")
		l.line("upgrade: ", x.request.Protocol)
		if x.request.Protocol == "websocket" && !r.Header.Has("sec-websocket-accept") {
			l.line("sec-websocket-accept: ", acceptKey(x.request.Header.Get("sec-websocket-key")))
		}
	}
	if err := out.end(&l); err != nil {
		return nil, err
	}
	if err := x.fail(out.flush()); err != nil {
		return nil, err
	}
	x.responded, x.switched = true, true
	x.c.in.acquire(watchNothing, nil)
	return &stream{in: &x.c.in, out: &x.c.out}, nil
}

// acceptKey proves that a server knows WebSocket (RFC 6455, 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// finish ends the exchange after the handler. It reports whether the connection can
// take another request.
func (x *exchange) finish() (bool, error) {
	x.mu.Lock()
	if !x.ended && !x.switched {
		if x.err == nil {
			x.err = errUnended
		}
		x.abortLocked()
	}
	err, closing := x.err, x.closing
	x.mu.Unlock()
	if err != nil || x.switched {
		// Closed in any case; readers are the garbage collector's.
		return false, err
	}
	x.body.mu.Lock()
	defer x.body.mu.Unlock()
	if x.watched {
		x.c.in.acquire(watchNothing, nil)
	}
	if !x.body.done() {
		x.draining = true
		x.over.Store(false)
		x.c.alarm.set(alarmRead, time.Now().Add(drainTime))
		if x.body.err == errEnded {
			x.body.err = nil
		}
		whole := !closing && x.body.discard(maxDrain) && x.c.alarm.set(alarmRead, time.Time{})
		// Whoever still reads must not take this for the end of the content.
		x.body.err = errEnded
		if !whole {
			x.c.linger()
			return false, nil
		}
	}
	if closing {
		x.c.linger()
		return false, nil
	}
	if x.hurried && !x.c.alarm.set(alarmRead, time.Time{}) {
		return false, errStalled
	}
	return true, nil
}

var _ message.Exchange = (*exchange)(nil)
