package handshake

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// places admits connections to the TLS handshake. Whoever reaches the port may
// open one and stay silent until the timeout, so neither one source nor all
// together may take every place.
type places struct {
	free chan struct{}

	mu       sync.Mutex
	admitted int // in the handshake or waiting for a place
	bySource map[netip.Addr]int
	empty    chan struct{} // closed when nobody is admitted; nil while nobody waits
}

func newPlaces() *places {
	return &places{free: make(chan struct{}, maxInProgress), bySource: map[netip.Addr]int{}}
}

var errTooManyWaiting = errors.New("too many connections wait for their TLS handshake")

// admit counts a connection until leave; an error refuses it.
func (h *places) admit(source netip.Addr) error {
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

func (h *places) leave(source netip.Addr) {
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
func (h *places) settle(ctx context.Context) {
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
func (h *places) begin(ctx context.Context) error {
	select {
	case h.free <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *places) end() { <-h.free }
