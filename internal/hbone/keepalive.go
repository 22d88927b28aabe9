package hbone

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errSilent     = errors.New("peer did not answer a PING")
	errUnfinished = errors.New("peer did not finish the handshake in time")
)

// keepAlive finds out that a peer is gone. It is one timer for the tunnel: nothing
// walks over the streams, and the reader only sets a flag.
type keepAlive struct {
	t     *tunnel
	heard atomic.Bool

	mu      sync.Mutex
	timer   *time.Timer
	state   keepAliveState
	stopped bool
}

type keepAliveState int

const (
	awaitingSettings keepAliveState = iota
	quiet                           // waiting for the next silence
	asked                           // a PING is out
)

// start begins with the time allowed for the handshake.
func (k *keepAlive) start(t *tunnel) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.t = t
	k.timer = time.AfterFunc(handshakeTimeout, k.fire)
}

// alive notes that octets arrived.
func (k *keepAlive) alive() {
	if !k.heard.Load() {
		k.heard.Store(true)
	}
}

// settled ends the time of the handshake.
func (k *keepAlive) settled() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state != awaitingSettings || k.stopped {
		return
	}
	k.state = quiet
	k.heard.Store(false)
	if k.t.opts.keepAlive < 0 {
		k.timer.Stop()
		return
	}
	k.timer.Reset(k.t.opts.keepAlive)
}

func (k *keepAlive) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	k.timer.Stop()
}

// fire runs when the timer ends.
func (k *keepAlive) fire() {
	k.mu.Lock()
	if k.stopped {
		k.mu.Unlock()
		return
	}
	heard := k.heard.Swap(false)
	state := k.state
	switch {
	case state == awaitingSettings:
	case heard:
		k.state = quiet
		k.timer.Reset(k.t.opts.keepAlive)
	case state == quiet:
		k.state = asked
		k.timer.Reset(k.t.opts.keepAliveTimeout)
	}
	k.mu.Unlock()

	switch {
	case state == awaitingSettings:
		k.t.fail(&TunnelError{Code: CodeInternal, Cause: errUnfinished})
	case heard:
	case state == quiet:
		k.t.ping()
	default:
		k.t.fail(&TunnelError{Code: CodeInternal, Cause: errSilent})
	}
}

// ping asks the peer for a sign of life; its answer counts as any octets do.
func (t *tunnel) ping() {
	t.mu.Lock()
	_ = t.framer.WritePing(false, [8]byte{'a', 'l', 'i', 'v', 'e', '?'})
	t.queued()
	t.mu.Unlock()
	t.kick()
}
