package carriertest

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

func testDrainByServer(t *testing.T, connect Connect) {
	pair := connect(t, echo(t))
	s := open(t, pair.Client)
	defer s.Close()
	drained := make(chan error, 1)
	go func() { drained <- pair.Drain(limited(t)) }()

	// New streams are refused before long, and the old one goes on.
	within(t, "the notice", func() {
		for {
			extra, _, err := pair.Client.Open(limited(t), request)
			if err == nil {
				_ = extra.Close()
				continue
			}
			if !errors.Is(err, hbone.ErrDraining) {
				t.Errorf("Open on a draining tunnel: %v, want ErrDraining", err)
			}
			return
		}
	})
	if pair.Client.Usable() {
		t.Error("a draining tunnel is usable")
	}
	_, _ = s.Write([]byte("still here"))
	_ = s.CloseWrite()
	within(t, "the last echo", func() {
		if got, err := io.ReadAll(s); err != nil || string(got) != "still here" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	if err := await(t, "the drain", drained); err != nil {
		t.Errorf("Drain: %v", err)
	}
	await(t, "the end of the tunnel", pair.Client.Done())
}

func testDrainByClient(t *testing.T, connect Connect) {
	pair := connect(t, echo(t))
	s := open(t, pair.Client)
	defer s.Close()
	pair.Client.Drain()
	if _, _, err := pair.Client.Open(limited(t), request); !errors.Is(err, hbone.ErrDraining) {
		t.Errorf("Open after Drain: %v", err)
	}
	_, _ = s.Write([]byte("bye"))
	_ = s.CloseWrite()
	within(t, "the last echo", func() {
		if got, err := io.ReadAll(s); err != nil || string(got) != "bye" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	_ = s.Close()
	await(t, "the end of the tunnel", pair.Client.Done())
}

// What the client sent and ended in order reaches an application that reads late,
// although the client drains its tunnel meanwhile.
func testDrainLeavesWhatIsOnItsWay(t *testing.T, connect Connect) {
	const size = 60_000
	proxy, app := sockets(t)
	_ = proxy.SetWriteBuffer(8 << 10)
	_ = app.SetReadBuffer(8 << 10)
	_ = app.CloseWrite() // nothing to say, all to hear
	joined := make(chan error, 1)
	pair := connect(t, func(ctx context.Context, r *hbone.ServerRequest) {
		if s := accept(t, r); s != nil {
			joined <- s.Join(ctx, proxy, nil)
		}
	})
	s := open(t, pair.Client)
	within(t, "the client's part", func() {
		_, _ = s.Write(make([]byte, size))
		_ = s.CloseWrite()
		if n, err := io.Copy(io.Discard, s); n != 0 || err != nil {
			t.Errorf("read %d bytes: %v", n, err)
		}
	})
	_ = s.Close()
	pair.Client.Drain()
	// As long as a tunnel that does not wait needs to be gone.
	select {
	case <-pair.Client.Done():
	case <-time.After(500 * time.Millisecond):
	}
	within(t, "the application's part", func() {
		if n, err := io.Copy(io.Discard, app); n != size || err != nil {
			t.Errorf("the application received %d of %d bytes: %v", n, size, err)
		}
	})
	if err := await(t, "Join", joined); err != nil {
		t.Errorf("Join: %v", err)
	}
	await(t, "the end of the tunnel", pair.Client.Done())
}

func testClose(t *testing.T, connect Connect) {
	broken := make(chan error, 1)
	pair := connect(t, func(ctx context.Context, r *hbone.ServerRequest) {
		s := accept(t, r)
		if s == nil {
			return
		}
		defer s.Close()
		_, err := io.Copy(io.Discard, s)
		<-ctx.Done()
		broken <- err
	})
	s := open(t, pair.Client)
	defer s.Close()
	if err := pair.Client.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read after Close: %v", err)
	}
	if err := await(t, "the server's error", broken); err == nil {
		t.Error("the server saw an orderly end")
	}
	await(t, "Done", pair.Client.Done())
	if pair.Client.Err() == nil {
		t.Error("Err is nil after Close")
	}
	if _, _, err := pair.Client.Open(limited(t), request); err == nil {
		t.Error("Open after Close succeeded")
	}
}
