package rotation

import (
	"context"
	"slices"
	"sync"
)

// gate lets a bounded number of requests through at once, those for identities
// without a certificate before renewals, else first come first served.
type gate struct {
	mu    sync.Mutex
	free  int
	first []chan struct{}
	renew []chan struct{}
}

func newGate(n int) *gate { return &gate{free: n} }

// enter waits for a place, which leave gives back.
func (g *gate) enter(ctx context.Context, first bool) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	queue := g.queue(first)
	*queue = append(*queue, turn)
	g.mu.Unlock()

	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(*queue, turn)
	if i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 {
		// The turn came at the same moment; pass it on.
		g.leave()
	}
	return context.Cause(ctx)
}

func (g *gate) queue(first bool) *[]chan struct{} {
	if first {
		return &g.first
	}
	return &g.renew
}

// leave gives the place to the next in line.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, queue := range []*[]chan struct{}{&g.first, &g.renew} {
		if len(*queue) > 0 {
			close((*queue)[0])
			*queue = slices.Delete(*queue, 0, 1)
			return
		}
	}
	g.free++
}
