package hbone_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

var (
	poolKey    = hbone.Key{Source: "uid-a", Destination: netip.MustParseAddrPort("10.0.0.7:15008"), Peers: "spiffe://td/ns/shop/sa/api"}
	anyRequest = hbone.Request{Authority: "10.0.0.7:8080"}
)

// mesh dials tunnels in memory and counts them.
type mesh struct {
	t       *testing.T
	server  *hbone.Server
	dials   atomic.Int32
	delay   time.Duration
	expires time.Duration
	mu      sync.Mutex
	refuse  error
	tunnels []*hbone.ClientConn
	servers sync.WaitGroup
}

func newMesh(t *testing.T, h hbone.Handler) *mesh {
	return &mesh{t: t, server: &hbone.Server{Handler: h}}
}

func (m *mesh) dial(ctx context.Context, _ hbone.Key) (hbone.Tunnel, error) {
	m.dials.Add(1)
	select {
	case <-time.After(m.delay):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return nil, m.refuse
	}
	c, s := net.Pipe()
	m.servers.Go(func() { _ = m.server.ServeConn(context.Background(), s, nil) })
	cfg := hbone.ClientConfig{}
	if m.expires > 0 {
		cfg.ExpiresAt = time.Now().Add(m.expires)
	}
	t, err := hbone.NewClient(c, cfg)
	if err == nil {
		m.tunnels = append(m.tunnels, t)
	}
	return t, err
}

func (m *mesh) setRefuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

// end ends everything so that the bubble can.
func (m *mesh) end(p *hbone.Pool) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.Drain(ctx)
	m.mu.Lock()
	for _, t := range m.tunnels {
		_ = t.Close()
	}
	m.mu.Unlock()
	m.servers.Wait()
}

// hold accepts and keeps the stream until the client ends it.
func hold(_ context.Context, r *hbone.ServerRequest) {
	if s, err := r.Accept(hbone.Response{Status: 200}); err == nil {
		_, _ = io.Copy(io.Discard, s)
		_ = s.Close()
	}
}

func inBubble(t *testing.T, cfg hbone.PoolConfig, run func(t *testing.T, m *mesh, p *hbone.Pool)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, hold)
		cfg.Dial = m.dial
		p := hbone.NewPool(cfg)
		defer m.end(p)
		run(t, m, p)
	})
}

func mustOpen(t *testing.T, p *hbone.Pool) hbone.Stream {
	t.Helper()
	s, _, err := p.Open(t.Context(), poolKey, anyRequest)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func TestPoolDialsOnceForAllWhoWait(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		m.delay = time.Second
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { mustOpen(t, p) })
		}
		wg.Wait()
		mustOpen(t, p)
		if n := m.dials.Load(); n != 1 {
			t.Errorf("%d dials, want 1", n)
		}
		other := poolKey
		other.Source = "uid-b"
		if _, _, err := p.Open(t.Context(), other, anyRequest); err != nil {
			t.Error(err)
		}
		if n := m.dials.Load(); n != 2 {
			t.Errorf("%d dials, want another one for another source", n)
		}
	})
}

func TestPoolDialsBesideAFilledTunnelWithoutWaiting(t *testing.T) {
	inBubble(t, hbone.PoolConfig{MaxStreams: 2}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		m.delay = time.Second
		mustOpen(t, p)
		mustOpen(t, p)
		start := time.Now()
		mustOpen(t, p) // on the filled one
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %v for a second tunnel", waited)
		}
		time.Sleep(2 * time.Second)
		mustOpen(t, p)
		if n := m.dials.Load(); n != 2 {
			t.Errorf("%d dials, want 2", n)
		}
		if n := m.tunnels[1].Streams(); n != 1 {
			t.Errorf("second tunnel has %d streams, want 1", n)
		}
	})
}

func TestPoolFillsSeveralTunnelsWhenThePeerAllowsFewStreams(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		m.server.MaxStreams = 3
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { mustOpen(t, p) })
		}
		wg.Wait()
		for range 4 {
			mustOpen(t, p)
		}
		if n := m.dials.Load(); n != 3 {
			t.Errorf("%d dials for 7 streams of 3 each, want 3", n)
		}
	})
}

func TestPoolOpensNothingOnAnExpiredTunnel(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		m.expires = time.Minute
		old := mustOpen(t, p)
		time.Sleep(time.Minute)
		mustOpen(t, p)
		if n := m.dials.Load(); n != 2 {
			t.Errorf("%d dials, want 2", n)
		}
		if _, err := old.Write([]byte("goes on")); err != nil {
			t.Errorf("a stream opened before: %v", err)
		}
	})
}

func TestPoolFailsTogetherAndSpacesDialsOut(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		down := errors.New("connection refused")
		m.setRefuse(down)
		m.delay = time.Millisecond
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, _, err := p.Open(t.Context(), poolKey, anyRequest); !errors.Is(err, down) {
					t.Errorf("Open: %v", err)
				}
			})
		}
		wg.Wait()
		if n := m.dials.Load(); n != 1 {
			t.Errorf("%d dials for 20 waiting, want 1", n)
		}
		// An application that tries again all the time for 10 s makes few dials.
		for range 10_000 {
			if _, _, err := p.Open(t.Context(), poolKey, anyRequest); !errors.Is(err, down) {
				t.Fatalf("Open: %v", err)
			}
			time.Sleep(time.Millisecond)
		}
		if n := m.dials.Load(); n > 30 {
			t.Errorf("%d dials in 10 s, want at most 30", n)
		}
		m.setRefuse(nil)
		time.Sleep(time.Second)
		mustOpen(t, p)
	})
}

func TestPoolWaitEndsWithTheContext(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		m.delay = 5 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, _, err := p.Open(ctx, poolKey, anyRequest)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Open: %v after %v", err, time.Since(start))
		}
	})
}

func TestPoolBoundsADial(t *testing.T) {
	inBubble(t, hbone.PoolConfig{DialTimeout: 3 * time.Second}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		m.delay = time.Hour
		start := time.Now()
		_, _, err := p.Open(t.Context(), poolKey, anyRequest)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("Open: %v after %v", err, time.Since(start))
		}
	})
}

func TestPoolClosesIdleTunnels(t *testing.T) {
	inBubble(t, hbone.PoolConfig{IdleTimeout: time.Minute}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		s := mustOpen(t, p)
		time.Sleep(time.Hour)
		if !m.tunnels[0].Usable() {
			t.Error("a tunnel with a stream was closed as idle")
		}
		_ = s.Close()
		time.Sleep(2*time.Minute + 2*time.Second)
		select {
		case <-m.tunnels[0].Done():
		default:
			t.Error("an idle tunnel stays")
		}
		if list := p.Tunnels(); len(list) != 0 {
			t.Errorf("the pool lists %v", list)
		}
	})
}

func TestPoolReplacesABrokenTunnel(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		s := mustOpen(t, p)
		_ = m.tunnels[0].Close()
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("the stream survived its tunnel")
		}
		mustOpen(t, p)
		if n := m.dials.Load(); n != 2 {
			t.Errorf("%d dials, want 2", n)
		}
	})
}

func TestPoolMovesOnWhenThePeerDrains(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		old := mustOpen(t, p)
		draining := m.server
		m.server = &hbone.Server{Handler: hold}
		go func() { _ = draining.Drain(t.Context()) }()
		synctest.Wait()
		mustOpen(t, p)
		if n := m.dials.Load(); n != 2 {
			t.Errorf("%d dials, want 2", n)
		}
		_ = old.Close()
	})
}

func TestPoolCloseSourceBreaksItsTunnelsOnly(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		gone := mustOpen(t, p)
		other := poolKey
		other.Source = "uid-b"
		stays, _, err := p.Open(t.Context(), other, anyRequest)
		if err != nil {
			t.Fatal(err)
		}
		p.CloseSource(poolKey.Source)
		if _, err := gone.Write([]byte("x")); err == nil {
			t.Error("a stream of the closed source goes on")
		}
		if _, err := stays.Write([]byte("x")); err != nil {
			t.Errorf("a stream of another source: %v", err)
		}
	})
}

func TestPoolCloseSourceEndsItsDial(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		m.delay = 5 * time.Second
		failed := make(chan error, 1)
		go func() {
			_, _, err := p.Open(t.Context(), poolKey, anyRequest)
			failed <- err
		}()
		synctest.Wait()
		p.CloseSource(poolKey.Source)
		if err := <-failed; err == nil {
			t.Error("Open succeeded on a closed source")
		}
	})
}

func TestPoolRevalidateStopsNewStreamsOnly(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		old := mustOpen(t, p)
		p.Revalidate(func(hbone.Key, hbone.Tunnel) bool { return true })
		mustOpen(t, p)
		p.Revalidate(func(k hbone.Key, _ hbone.Tunnel) bool { return k != poolKey })
		mustOpen(t, p)
		if n := m.dials.Load(); n != 2 {
			t.Errorf("%d dials, want 2", n)
		}
		if _, err := old.Write([]byte("goes on")); err != nil {
			t.Errorf("a stream opened before: %v", err)
		}
	})
}

func TestPoolDrainWaitsForStreamsUntilTheContextEnds(t *testing.T) {
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		s := mustOpen(t, p)
		drained := make(chan error, 1)
		go func() { drained <- p.Drain(t.Context()) }()
		synctest.Wait()
		if _, _, err := p.Open(t.Context(), poolKey, anyRequest); !errors.Is(err, hbone.ErrPoolClosed) {
			t.Errorf("Open while draining: %v", err)
		}
		time.Sleep(10 * time.Second)
		select {
		case err := <-drained:
			t.Fatalf("drained with an open stream: %v", err)
		default:
		}
		_ = s.Close()
		if err := <-drained; err != nil {
			t.Errorf("Drain: %v", err)
		}
	})
	inBubble(t, hbone.PoolConfig{}, func(t *testing.T, m *mesh, p *hbone.Pool) {
		s := mustOpen(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain: %v", err)
		}
		if _, err := s.Write([]byte("x")); err == nil {
			t.Error("a stream outlived the drain's deadline")
		}
	})
}

func TestPoolDoesNotRetryARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		m := newMesh(t, func(_ context.Context, r *hbone.ServerRequest) {
			asked.Add(1)
			_ = r.Refuse(503)
		})
		p := hbone.NewPool(hbone.PoolConfig{Dial: m.dial})
		defer m.end(p)
		var se *hbone.StatusError
		if _, _, err := p.Open(t.Context(), poolKey, anyRequest); !errors.As(err, &se) || se.Status != 503 {
			t.Errorf("Open: %v", err)
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the peer was asked %d times", n)
		}
	})
}

// TestPoolSpacesOutTunnelsThatNeverAnswer is a peer that accepts connections and
// breaks them, as one that refuses our certificate does.
func TestPoolSpacesOutTunnelsThatNeverAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		p := hbone.NewPool(hbone.PoolConfig{Dial: func(context.Context, hbone.Key) (hbone.Tunnel, error) {
			dials.Add(1)
			c, s := net.Pipe()
			_ = s.Close()
			return hbone.NewClient(c, hbone.ClientConfig{})
		}})
		var broken *hbone.TunnelError
		for range 10_000 {
			if _, _, err := p.Open(t.Context(), poolKey, anyRequest); !errors.As(err, &broken) {
				t.Fatalf("Open: %v, want a TunnelError", err)
			}
			time.Sleep(time.Millisecond)
		}
		if n := dials.Load(); n > 30 {
			t.Errorf("%d dials in 10 s, want at most 30", n)
		}
		_ = p.Drain(t.Context())
	})
}

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
