package inbound

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// handshakes admits connections to the TLS handshake. Whoever reaches the pod may
// open one and stay silent until the timeout, so neither one source nor all
// together may take every place.
type handshakes struct {
	places chan struct{}

	mu       sync.Mutex
	admitted int // in the handshake or waiting for a place
	bySource map[netip.Addr]int
	empty    chan struct{} // closed when nobody is admitted; nil while nobody waits
}

func newHandshakes() *handshakes {
	return &handshakes{places: make(chan struct{}, maxHandshakes), bySource: map[netip.Addr]int{}}
}

var errTooManyWaiting = errors.New("too many connections of this pod wait for their TLS handshake")

// admit counts a connection until leave; an error refuses it.
func (h *handshakes) admit(source netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.admitted >= maxWaiting:
		return errTooManyWaiting
	case h.bySource[source] >= maxPerSource:
		return fmt.Errorf("%d connections from %v have not finished their TLS handshake", maxPerSource, source)
	}
	h.admitted++
	h.bySource[source]++
	return nil
}

func (h *handshakes) leave(source netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.admitted--
	if h.bySource[source]--; h.bySource[source] == 0 {
		delete(h.bySource, source)
	}
	if h.admitted == 0 && h.empty != nil {
		close(h.empty)
		h.empty = nil
	}
}

// settle waits until all handshakes have ended, or ctx ends.
func (h *handshakes) settle(ctx context.Context) {
	h.mu.Lock()
	if h.admitted == 0 {
		h.mu.Unlock()
		return
	}
	if h.empty == nil {
		h.empty = make(chan struct{})
	}
	empty := h.empty
	h.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// begin waits for a place, which end gives back.
func (h *handshakes) begin(ctx context.Context) error {
	select {
	case h.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *handshakes) end() { <-h.places }
