package hbone_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// fullTunnel is a tunnel whose peer takes no streams at all.
type fullTunnel struct{ done chan struct{} }

func (f *fullTunnel) Open(context.Context, hbone.Request) (hbone.Stream, hbone.Response, error) {
	return nil, hbone.Response{}, hbone.ErrTooManyStreams
}
func (f *fullTunnel) Streams() int          { return 0 }
func (f *fullTunnel) Usable() bool          { return false }
func (f *fullTunnel) ExpiresAt() time.Time  { return time.Time{} }
func (f *fullTunnel) Done() <-chan struct{} { return f.done }
func (f *fullTunnel) Err() error            { return nil }
func (f *fullTunnel) Drain()                { f.Close() }
func (f *fullTunnel) Close() error {
	select {
	case <-f.done:
	default:
		close(f.done)
	}
	return nil
}

// A peer that takes connections and no streams is not dialled in a loop.
func TestPoolPeerThatTakesNoStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		p := hbone.NewPool(hbone.PoolConfig{Dial: func(context.Context, hbone.Key) (hbone.Tunnel, error) {
			dials++
			time.Sleep(time.Millisecond)
			return &fullTunnel{done: make(chan struct{})}, nil
		}})
		defer func() { _ = p.Drain(t.Context()) }()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, _, err := p.Open(ctx, poolKey, anyRequest)
		if !errors.Is(err, hbone.ErrTooManyStreams) {
			t.Errorf("Open: %v, want ErrTooManyStreams", err)
		}
		if dials > 4 {
			t.Errorf("%d dials for one stream", dials)
		}
		if n := len(p.Tunnels()); n > 1 {
			t.Errorf("%d tunnels are kept that take no streams", n)
		}
	})
}
