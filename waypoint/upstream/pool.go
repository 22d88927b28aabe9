package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Protocol is what is spoken to a target.
type Protocol uint8

// The protocols. The zero value is HTTP/1.1.
const (
	HTTP1 Protocol = iota
	HTTP2
	protocols
)

func (p Protocol) String() string {
	if p == HTTP2 {
		return "HTTP/2"
	}
	return "HTTP/1.1"
}

// Dialer connects to endpoints. ctx bounds the dialing only; the connection outlives
// it. An error means that the application has seen nothing.
type Dialer interface {
	Dial(ctx context.Context, to *Endpoint, p Protocol) (message.Client, error)
}

// ConnectError says that there is no connection to an endpoint.
type ConnectError struct {
	Endpoint string
	Err      error
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.Endpoint, e.Err) }
func (e *ConnectError) Unwrap() error { return e.Err }

// errRetired is the cause of a ConnectError when the endpoint went away meanwhile.
var errRetired = errors.New("the endpoint is gone")

// PoolConfig says how connections are kept. The zero value is the default.
type PoolConfig struct {
	// MaxIdle HTTP/1.1 connections to one endpoint are kept: 128 when 0, none when
	// negative.
	MaxIdle int
	// IdleTimeout closes connections on which nothing was under way for so long: 90 s
	// when 0, never when negative.
	IdleTimeout time.Duration
	// MaxRequests are sent on one connection; 0 is no limit.
	MaxRequests int
	// MaxStreams under way on one HTTP/2 connection, besides what the server allows:
	// 100 when 0. Fewer, and so more connections, cost more: 64 requests at a time took
	// 51 µs each on one connection, 77 on two and 92 on four, since one write carries
	// what many streams have to say.
	MaxStreams int
	// ConnectTimeout bounds dialing, with TLS; 0 leaves it to the Dialer.
	ConnectTimeout time.Duration
	// MaxDuration is how long after it was made a connection takes requests; 0 is
	// without end.
	MaxDuration time.Duration
}

func (c *PoolConfig) validate() error {
	if c.MaxRequests < 0 || c.MaxStreams < 0 || c.ConnectTimeout < 0 || c.MaxDuration < 0 {
		return errors.New("connection pool: a negative figure")
	}
	return nil
}

func (c PoolConfig) withDefaults() PoolConfig {
	if c.MaxIdle == 0 {
		c.MaxIdle = 128
	}
	c.MaxIdle = max(0, c.MaxIdle)
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 90 * time.Second
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = 100
	}
	return c
}

// pool holds the connections of one protocol to one target. HTTP/1.1 connections
// carry one request at a time, those of HTTP/2 several; the latest used is used
// next, so that those which are not needed grow old and are closed.
type pool struct {
	target   *Target
	protocol Protocol

	mu sync.Mutex
	// free has the connections with room. For HTTP/1.1 the last one is taken, for
	// HTTP/2 the least busy.
	free []*conn
	// open is how many connections there are or are being dialled.
	open int
	// dialing tells, for HTTP/2, that one is on its way: others wait for it.
	dialing int
	waiting []*waiter
	timer   *time.Timer      // for the oldest idle connection; nil when none is armed
	doomed  []message.Client // closed by unlock
	retired bool
}

// unlock releases mu and closes what was given up under it.
func (p *pool) unlock() {
	doomed := p.doomed
	p.doomed = nil
	p.mu.Unlock()
	for _, c := range doomed {
		_ = c.Close() // what it says of a connection that is given up helps nobody
	}
}

// conn is a pooled connection. Its fields are under pool.mu.
type conn struct {
	client message.Client
	leases int
	served int
	idleAt int64 // when it became idle
	madeAt int64
	secure Securer // what it was made with
	isFree bool
	closed bool
}

// waiter is a request that waits for a connection. It is told once.
type waiter struct {
	told chan verdict // buffered: one
}

// verdict is what a waiter gets: a connection that is leased for it, leave to dial,
// with the place of a connection, or an error.
type verdict struct {
	conn   *conn
	reused bool
	dial   bool
	err    error
}

// lease is the use of a connection by one request.
type lease struct {
	pool   *pool
	conn   *conn
	reused bool
}

func (p *pool) init(t *Target, protocol Protocol) { p.target, p.protocol = t, protocol }

func (p *pool) config() *PoolConfig { return &p.target.backend.settings.Load().Pool }

func (p *pool) connections() *gauge { return &p.target.backend.circuit.gauges[Connections] }

func unsent(err error) error { return &message.UnsentError{Err: err} }

func (p *pool) overflow(l Limit) error {
	return unsent(&OverflowError{p.target.backend.Name(), l})
}

func (p *pool) gone() error {
	return unsent(&ConnectError{p.target.Endpoint().String(), errRetired})
}

// acquire leases a connection; with fresh it takes none that was used before.
func (p *pool) acquire(ctx context.Context, fresh bool) (lease, error) {
	p.mu.Lock()
	if !fresh {
		if c := p.take(); c != nil {
			reused := c.served > 1
			p.unlock()
			return lease{p, c, reused}, nil
		}
	}
	p.unlock()
	pending := &p.target.backend.circuit.gauges[Pending]
	if !pending.acquire() {
		return lease{}, p.overflow(Pending)
	}
	defer pending.release()
	return p.wait(ctx, fresh)
}

// wait gets a connection by dialing or by waiting for one.
func (p *pool) wait(ctx context.Context, fresh bool) (lease, error) {
	for {
		p.mu.Lock()
		if p.retired {
			p.unlock()
			return lease{}, p.gone()
		}
		if !fresh {
			if c := p.take(); c != nil {
				reused := c.served > 1
				p.unlock()
				return lease{p, c, reused}, nil
			}
		}
		if p.protocol != HTTP2 || p.dialing == 0 || fresh {
			if p.connections().acquire() {
				p.open++
				p.dialing++
				p.unlock()
				return p.dial(ctx)
			}
			if p.open == 0 {
				p.unlock()
				// Nobody here will give one back; an idle one elsewhere can make room.
				if p.target.backend.reclaim() {
					continue
				}
				return lease{}, p.overflow(Connections)
			}
		}
		if len(p.waiting) >= maxRequestsWaiting {
			p.unlock()
			return lease{}, p.overflow(Pending)
		}
		w := &waiter{told: make(chan verdict, 1)}
		p.waiting = append(p.waiting, w)
		p.unlock()
		var v verdict
		select {
		case v = <-w.told:
		case <-ctx.Done():
			p.mu.Lock()
			i := slices.Index(p.waiting, w)
			if i >= 0 {
				p.waiting = slices.Delete(p.waiting, i, i+1)
			}
			p.unlock()
			if i < 0 {
				p.decline(<-w.told)
			}
			return lease{}, unsent(context.Cause(ctx))
		}
		switch {
		case v.err != nil:
			return lease{}, v.err
		case v.dial:
			return p.dial(ctx)
		default:
			return lease{p, v.conn, v.reused}, nil
		}
	}
}

// decline gives back what a waiter got that has gone meanwhile.
func (p *pool) decline(v verdict) {
	switch {
	case v.conn != nil:
		l := lease{pool: p, conn: v.conn}
		p.mu.Lock()
		v.conn.served--
		p.unlock()
		l.release()
	case v.dial:
		p.mu.Lock()
		p.dialing--
		p.lost()
		p.unlock()
	}
}

// dial makes a connection for which there is a place, and leases it.
func (p *pool) dial(ctx context.Context) (lease, error) {
	t := p.target
	to := t.Endpoint()
	client, err := t.backend.connect(ctx, to, p.protocol)
	p.mu.Lock()
	p.dialing--
	if err != nil {
		cut := ctx.Err() != nil
		if cut {
			err = unsent(context.Cause(ctx))
		} else {
			err = unsent(&ConnectError{to.String(), err})
		}
		if p.protocol == HTTP2 && !cut {
			// Those who waited for it would only fail one after the other.
			for _, w := range p.waiting {
				w.told <- verdict{err: err}
			}
			p.waiting = nil
		}
		p.lost()
		p.unlock()
		return lease{}, err
	}
	c := &conn{client: client, leases: 1, served: 1, secure: to.Secure}
	if p.config().MaxDuration > 0 {
		c.madeAt = t.backend.now()
	}
	if p.room(c) && !p.retired {
		p.insert(c)
	}
	p.handOut()
	p.unlock()
	return lease{pool: p, conn: c}, nil
}

// room reports whether another request may be sent on the connection. For HTTP/1.1
// the client says so only when the one before has ended.
func (p *pool) room(c *conn) bool {
	return !c.closed && p.roomBut(c) && c.client.Usable()
}

// take leases a connection that is there, nil when none has room. What turns out to
// have ended is thrown away.
func (p *pool) take() *conn {
	for len(p.free) > 0 {
		best := len(p.free) - 1
		if p.protocol == HTTP2 {
			for i, c := range p.free {
				if c.leases < p.free[best].leases {
					best = i
				}
			}
		}
		c := p.free[best]
		if !p.room(c) {
			p.remove(c)
			if c.leases == 0 {
				p.discard(c)
			}
			continue
		}
		c.leases++
		c.served++
		if !p.roomBut(c) {
			p.remove(c)
		}
		return c
	}
	return nil
}

// roomBut is room without asking the client, which has not seen the request yet.
func (p *pool) roomBut(c *conn) bool {
	cfg := p.config()
	streams := 1
	if p.protocol == HTTP2 {
		streams = cfg.MaxStreams
	}
	return c.leases < streams && (cfg.MaxRequests == 0 || c.served < cfg.MaxRequests) && !p.outdated(c, cfg)
}

// outdated reports whether the connection is too old, or made otherwise than they are
// now.
func (p *pool) outdated(c *conn, cfg *PoolConfig) bool {
	return c.secure != p.target.Endpoint().Secure ||
		cfg.MaxDuration > 0 && p.target.backend.now()-c.madeAt >= int64(cfg.MaxDuration)
}

// connect dials within the backend's own time for that.
func (b *Backend) connect(ctx context.Context, to *Endpoint, p Protocol) (message.Client, error) {
	timeout := b.settings.Load().Pool.ConnectTimeout
	if timeout == 0 {
		return b.dialer.Dial(ctx, to, p)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no connection within %v", timeout))
	defer cancel()
	client, err := b.dialer.Dial(bounded, to, p)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = context.Cause(bounded)
	}
	return client, err
}

func (p *pool) insert(c *conn) {
	if !c.isFree {
		c.isFree = true
		p.free = append(p.free, c)
	}
}

func (p *pool) remove(c *conn) {
	if !c.isFree {
		return
	}
	c.isFree = false
	i := len(p.free) - 1
	for p.free[i] != c {
		i--
	}
	p.free = slices.Delete(p.free, i, i+1)
}

// discard gives up a connection that nobody uses, and its place to a waiter.
func (p *pool) discard(c *conn) {
	if c.closed {
		return
	}
	c.closed = true
	p.remove(c)
	p.doomed = append(p.doomed, c.client)
	p.lost()
}

// lost takes a connection off the count: the first waiter may dial in its place.
func (p *pool) lost() {
	if len(p.waiting) > 0 && !p.retired && (p.protocol != HTTP2 || p.dialing == 0) {
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		p.dialing++
		w.told <- verdict{dial: true}
		return
	}
	p.open--
	p.connections().release()
}

// handOut gives waiters the connections with room.
func (p *pool) handOut() {
	for len(p.waiting) > 0 {
		c := p.take()
		if c == nil {
			break
		}
		if len(p.waiting) == 0 {
			// The last one was told to dial in the place of one that take threw away.
			c.leases--
			c.served--
			p.insert(c)
			return
		}
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		w.told <- verdict{conn: c, reused: c.served > 1}
	}
	// For HTTP/2 those who waited for a connection that is full already dial another.
	if p.protocol == HTTP2 && len(p.waiting) > 0 && p.dialing == 0 && p.connections().acquire() {
		p.open++
		p.dialing++
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		w.told <- verdict{dial: true}
	}
}

// release ends the use of the connection. It may be called more than once.
func (l *lease) release() {
	p, c := l.pool, l.conn
	if c == nil {
		return
	}
	l.conn = nil
	p.mu.Lock()
	defer p.unlock()
	c.leases--
	switch {
	case p.retired || !p.room(c):
		p.remove(c)
		if c.leases == 0 {
			p.discard(c)
		}
	case len(p.waiting) > 0:
		p.insert(c)
		p.handOut()
	case c.leases == 0 && p.protocol == HTTP1 && len(p.free) >= p.config().MaxIdle:
		p.discard(c)
	default:
		if p.protocol == HTTP1 || c.leases > 0 {
			p.insert(c)
		} else {
			// The latest used last, as with HTTP/1.1.
			p.remove(c)
			p.insert(c)
		}
	}
	if c.leases == 0 && !c.closed {
		c.idleAt = p.target.backend.now()
		p.arm()
	}
}

// arm sets the timer for the oldest idle connection, if it is not set.
func (p *pool) arm() {
	timeout := p.config().IdleTimeout
	if timeout > 0 && p.timer == nil {
		p.timer = time.AfterFunc(timeout, p.expire)
	}
}

// expire closes what was idle for too long.
func (p *pool) expire() {
	p.mu.Lock()
	defer p.unlock()
	p.timer = nil
	if p.retired {
		return
	}
	now, timeout := p.target.backend.now(), int64(p.config().IdleTimeout)
	next := int64(never)
	for _, c := range slices.Clone(p.free) {
		if c.leases > 0 {
			continue
		}
		if left := c.idleAt + timeout - now; left > 0 {
			next = min(next, left)
		} else {
			p.discard(c)
		}
	}
	if next != never {
		p.timer = time.AfterFunc(time.Duration(next), p.expire)
	}
}

// reclaim closes an idle connection, so that there is room for another.
func (b *Backend) reclaim() bool {
	b.mu.Lock()
	targets := b.targets
	b.mu.Unlock()
	for _, t := range targets {
		for i := range t.pools {
			if t.pools[i].closeIdle() {
				return true
			}
		}
	}
	return false
}

func (p *pool) closeIdle() bool {
	p.mu.Lock()
	defer p.unlock()
	for _, c := range p.free {
		if c.leases == 0 {
			p.discard(c)
			return true
		}
	}
	return false
}

// retire closes what is idle and lets the rest end.
func (p *pool) retire() {
	p.mu.Lock()
	defer p.unlock()
	p.retired = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	for _, w := range p.waiting {
		w.told <- verdict{err: p.gone()}
	}
	p.waiting = nil
	for _, c := range slices.Clone(p.free) {
		p.remove(c)
		if c.leases == 0 {
			p.discard(c)
		}
	}
}
