package hbone

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/internal/backoff"
)

// Limits of a pool.
const (
	// poolStreams is how many streams a tunnel carries before the pool dials another
	// one beside it; one tunnel has one reader, so this also spreads the load.
	poolStreams = 256
	// poolIdle is how long a tunnel without streams stays; ztunnel keeps it 5 minutes.
	poolIdle = 5 * time.Minute
	// poolDial bounds one dial, TCP and TLS.
	poolDial = 10 * time.Second
	// poolBackoffMin and poolBackoffMax space the dials of a peer that fails, from its
	// second failure on. Opens meanwhile fail at once: their application retries itself.
	poolBackoffMin = 50 * time.Millisecond
	poolBackoffMax = time.Second
	// poolTries bounds the tunnels that one Open tries.
	poolTries = 4
)

// Key names tunnels that may stand for each other: same source, same destination,
// same expectation of the peer.
type Key struct {
	// Source is the uid of the pod in whose namespace the tunnel is dialled.
	Source string
	// Destination is where it is dialled to.
	Destination netip.AddrPort
	// Peers is the sorted list of expected identities, joined with commas.
	Peers string
	// Workload is the uid of the workload there, so that another one that gets its
	// address does not get its tunnels; empty when it is not known.
	Workload string
}

// DialFunc makes the tunnel for a key. ctx ends when the pool gives up on it.
type DialFunc func(ctx context.Context, key Key) (Tunnel, error)

// PoolConfig are the settings of a Pool. Only Dial is required.
type PoolConfig struct {
	Dial DialFunc
	// MaxStreams is how many streams a tunnel carries before another is dialled; zero: 256.
	MaxStreams int
	// IdleTimeout is how long a tunnel without streams stays; zero: 5 minutes.
	IdleTimeout time.Duration
	// DialTimeout bounds one dial; zero: 10 s.
	DialTimeout time.Duration
}

// Pool keeps tunnels and opens streams on them. It is safe for concurrent use.
type Pool struct {
	cfg    PoolConfig
	ctx    context.Context // of dials; ends with the pool
	cancel context.CancelFunc
	dials  sync.WaitGroup

	mu      sync.Mutex
	entries map[Key]*entry
	members map[*member]struct{} // every tunnel that has not ended, drained ones too
	closed  bool
}

// entry is what the pool knows of one key, guarded by the pool's mu.
type entry struct {
	key     Key
	members []*member
	dial    *dialCall
	retry   *backoff.Backoff // nil while dialing works
	retryAt time.Time
	lastErr error
	forget  *time.Timer // removes an entry that only remembers a failure
}

// dialCall is a dial that several Opens may wait for.
type dialCall struct {
	done   chan struct{}
	cancel context.CancelFunc
	err    error // valid after done
}

// ErrPoolClosed is returned by Open after Drain, and for a source that was closed meanwhile.
var ErrPoolClosed = errors.New("pool of tunnels is closed")

// NewPool returns an empty pool. It must be ended with Drain.
func NewPool(cfg PoolConfig) *Pool {
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = poolStreams
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = poolIdle
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = poolDial
	}
	p := &Pool{cfg: cfg, entries: map[Key]*entry{}, members: map[*member]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Open opens a stream on a tunnel for key, dialling one when none is fit. Opens
// that wait for the same dial share its outcome. It returns what Tunnel.Open
// returns, the error of the dial, or ErrPoolClosed; ending ctx ends the wait with
// context.Cause(ctx), and leaves a dial that others may need running.
func (p *Pool) Open(ctx context.Context, key Key, r Request) (Stream, Response, error) {
	if err := r.Validate(); err != nil {
		return nil, Response{}, err
	}
	var tried []*member
	var err error
	for range poolTries {
		var m *member
		var proven bool
		m, proven, err = p.acquire(ctx, key, tried)
		if err != nil {
			return nil, Response{}, err
		}
		var s Stream
		var response Response
		s, response, err = m.tunnel.Open(ctx, r)
		var broken *TunnelError
		var status *StatusError
		switch {
		case err == nil, errors.As(err, &status):
			p.answered(key, m)
			return s, response, err
		case errors.Is(err, ErrDraining), errors.Is(err, ErrTooManyStreams):
			p.refused(key, m, err)
		case errors.As(err, &broken) && proven:
			// A tunnel that stood idle while its peer went away: nothing passed, ask anew.
		case errors.As(err, &broken):
			// Such as a peer that refuses our certificate, which TLS 1.3 tells late.
			p.stillborn(key, m, err)
			return nil, response, err
		default:
			return nil, response, err
		}
		tried = append(tried, m)
	}
	return nil, Response{}, err
}

// answered notes that a tunnel's peer answers.
func (p *Pool) answered(key Key, m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.proven {
		return
	}
	m.proven = true
	if e := p.entries[key]; e != nil {
		e.retry = nil
	}
}

// stillborn treats a tunnel that broke before its first answer as a failed dial, so
// that its peer is not dialled again at once. Only the first to notice does it.
func (p *Pool) stillborn(key Key, m *member, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entries[key]
	if e == nil || !slices.Contains(e.members, m) {
		return
	}
	e.members = slices.DeleteFunc(e.members, func(o *member) bool { return o == m })
	p.drop(m)
	if len(e.members) == 0 && e.dial == nil {
		p.dialFailed(e, err)
	}
}

// refused treats a tunnel that takes no stream at all, though it has none, as a
// failed dial: its peer would refuse the next tunnel's streams too.
func (p *Pool) refused(key Key, m *member, err error) {
	p.mu.Lock()
	fresh := !m.proven && m.tunnel.Streams() == 0
	p.mu.Unlock()
	if fresh {
		p.stillborn(key, m, err)
		m.tunnel.Drain()
	}
}

// acquire returns a tunnel for key that is not among tried, and whether its peer
// has answered before.
func (p *Pool) acquire(ctx context.Context, key Key, tried []*member) (*member, bool, error) {
	for {
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, false, ErrPoolClosed
		}
		e := p.entries[key]
		if e == nil {
			e = &entry{key: key}
			p.entries[key] = e
		}
		if m := p.choose(e, tried); m != nil {
			m.opens++
			proven := m.proven
			p.mu.Unlock()
			return m, proven, nil
		}
		if e.dial == nil {
			if wait := time.Until(e.retryAt); e.lastErr != nil && wait > 0 {
				err := fmt.Errorf("%w (next attempt in %v)", e.lastErr, wait.Round(time.Millisecond))
				p.mu.Unlock()
				return nil, false, err
			}
			p.startDial(e)
		}
		call := e.dial
		p.mu.Unlock()
		select {
		case <-call.done:
			if call.err != nil {
				return nil, false, call.err
			}
		case <-ctx.Done():
		}
	}
}

// choose returns the usable tunnel with the fewest streams, nil when there is none.
// It starts a dial in the background when even that one is well filled; mu is held.
func (p *Pool) choose(e *entry, tried []*member) *member {
	var best *member
	least, usable := 0, 0
	var stillborn error
	e.members = slices.DeleteFunc(e.members, func(m *member) bool {
		// In this order: a tunnel that breaks between the two looks has ended.
		fruitless := m.fruitless()
		switch {
		case m.ended():
			if !m.proven {
				stillborn = m.tunnel.Err()
			}
		case fruitless:
			stillborn = ErrTooManyStreams
			m.tunnel.Drain()
		default:
			return false
		}
		p.drop(m)
		return true
	})
	if stillborn != nil && len(e.members) == 0 && e.dial == nil {
		p.dialFailed(e, stillborn)
	}
	for _, m := range e.members {
		if slices.Contains(tried, m) || !m.tunnel.Usable() {
			continue
		}
		usable++
		if n := m.tunnel.Streams(); best == nil || n < least {
			best, least = m, n
		}
	}
	if best == nil || e.dial != nil || time.Now().Before(e.retryAt) {
		return best
	}
	if least >= p.cfg.MaxStreams || least > 0 && usable < runtime.GOMAXPROCS(0) && busy(best.tunnel) {
		p.startDial(e)
	}
	return best
}

// drop forgets a tunnel that is over; mu is held.
func (p *Pool) drop(m *member) {
	m.idle.Stop()
	delete(p.members, m)
}

// startDial dials in the background; mu is held.
func (p *Pool) startDial(e *entry) {
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.DialTimeout)
	call := &dialCall{done: make(chan struct{}), cancel: cancel}
	e.dial = call
	if e.forget != nil {
		e.forget.Stop()
	}
	p.dials.Go(func() {
		defer cancel()
		t, err := p.cfg.Dial(ctx, e.key)
		p.dialed(e, call, t, err)
	})
}

// dialed takes the outcome of a dial and wakes who waits for it.
func (p *Pool) dialed(e *entry, call *dialCall, t Tunnel, err error) {
	p.mu.Lock()
	gone := p.closed || p.entries[e.key] != e
	if gone && err == nil {
		err = ErrPoolClosed
	}
	e.dial = nil
	call.err = err
	switch {
	case gone:
	case err == nil:
		e.retryAt, e.lastErr = time.Time{}, nil // retry stays until the peer answers
		m := &member{tunnel: t}
		m.idle = time.AfterFunc(p.cfg.IdleTimeout, func() { p.checkIdle(e, m) })
		e.members = append(e.members, m)
		p.members[m] = struct{}{}
	default:
		p.dialFailed(e, err)
	}
	p.mu.Unlock()
	close(call.done)
	if gone && t != nil {
		_ = t.Close()
	}
}

// dialFailed remembers the failure for a while; mu is held.
func (p *Pool) dialFailed(e *entry, err error) {
	e.lastErr = err
	if e.forget != nil {
		e.forget.Stop()
	}
	if e.retry == nil {
		e.retry = backoff.New(poolBackoffMin, poolBackoffMax)
	} else {
		e.retryAt = time.Now().Add(e.retry.Next())
	}
	e.forget = time.AfterFunc(2*poolBackoffMax, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(e.members) == 0 && e.dial == nil && p.entries[e.key] == e {
			delete(p.entries, e.key)
		}
	})
}

// checkIdle drains a tunnel that had no stream since the last look.
func (p *Pool) checkIdle(e *entry, m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, here := p.members[m]; !here {
		return
	}
	if !m.ended() && (m.tunnel.Streams() > 0 || m.opens != m.seen) {
		m.seen = m.opens
		m.idle.Reset(p.cfg.IdleTimeout)
		return
	}
	p.leave(e, m)
	delete(p.members, m)
	m.tunnel.Drain()
}

// leave takes m out of its entry, and an empty entry out of the pool; mu is held.
func (p *Pool) leave(e *entry, m *member) {
	e.members = slices.DeleteFunc(e.members, func(o *member) bool { return o == m })
	if len(e.members) == 0 && e.dial == nil && e.lastErr == nil && p.entries[e.key] == e {
		delete(p.entries, e.key)
	}
}

// CloseSource breaks all tunnels of a source that is gone and ends its dials.
func (p *Pool) CloseSource(source string) {
	p.mu.Lock()
	var tunnels []Tunnel
	for key, e := range p.entries {
		if key.Source != source {
			continue
		}
		if e.dial != nil {
			e.dial.cancel()
		}
		if e.forget != nil {
			e.forget.Stop()
		}
		for _, m := range e.members {
			p.drop(m)
			tunnels = append(tunnels, m.tunnel)
		}
		delete(p.entries, key)
	}
	p.mu.Unlock()
	closeAll(tunnels)
}

// closeAll closes tunnels at the same time, since each may take a moment to say goodbye.
func closeAll(tunnels []Tunnel) {
	var wg sync.WaitGroup
	for _, t := range tunnels {
		wg.Go(func() { _ = t.Close() })
	}
	wg.Wait()
}

// Revalidate drains every tunnel for which keep is false: it carries no new stream
// from then on, and those that it has go on. keep must not call the pool.
func (p *Pool) Revalidate(keep func(Key, Tunnel) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, e := range p.entries {
		for _, m := range slices.Clone(e.members) {
			if m.ended() || keep(key, m.tunnel) {
				continue
			}
			p.leave(e, m)
			m.tunnel.Drain()
		}
	}
}

// Drain refuses new streams and waits until those that there are have ended. When
// ctx ends first it breaks what is left and returns context.Cause(ctx).
func (p *Pool) Drain(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	var tunnels []Tunnel
	for m := range p.members {
		m.idle.Stop()
		tunnels = append(tunnels, m.tunnel)
	}
	for _, e := range p.entries {
		if e.forget != nil {
			e.forget.Stop()
		}
	}
	clear(p.entries)
	clear(p.members)
	p.mu.Unlock()
	p.cancel()
	for _, t := range tunnels {
		t.Drain()
	}
	err := awaitAll(ctx, tunnels)
	p.dials.Wait()
	return err
}

// Close breaks every stream and tunnel at once. It waits for their ends, a few seconds at most.
func (p *Pool) Close() error {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(ErrPoolClosed)
	_ = p.Drain(ctx)
	return nil
}

// awaitAll waits for the tunnels' ends; it closes them when ctx ends.
func awaitAll(ctx context.Context, tunnels []Tunnel) error {
	for _, t := range tunnels {
		select {
		case <-t.Done():
		case <-ctx.Done():
			closeAll(tunnels)
			return context.Cause(ctx)
		}
	}
	return nil
}
